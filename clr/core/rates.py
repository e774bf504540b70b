"""How much more slowly than its recipe says a training learns: from images, classes and steps."""

from __future__ import annotations

from clr.core.recipe import Recipe

STEPS = 256
"""Steps of a training that learns at the recipe's full rates."""
MANY = 0.75
"""How much lower the rate of kernels is in a training of more steps: see `caution`."""
FEW = 20
"""Images a class that are trained on, below which kernels learn at lower rates still."""


def caution(recipe: Recipe, images: int, classes: int) -> tuple[float, float]:
    """Return by how much head and kernels must learn more slowly: two shares in 0 … 1.

    Adam's steps are as long whether a gradient is sure or not (Kingma & Ba 2015, section
    2.1), so that a few of them move thousands of kernels at random, far from the probe's
    features. In proportion to the number of steps below `STEPS`, few images stay near the
    probe; kernels, of which there are more than such images can tell apart, also with the
    square of the images a class below `FEW` (docs/recipe.md).

    Kernels that take many long steps are driven away from all that the backbone knows, and
    the loss rises until the rate falls. Above `STEPS` it is lower with the power `MANY` of the
    number of steps: between 1/2, with which a random walk gets as far as before, and 1, with
    which one straight ahead does.

    Args:
        recipe: epochs and batch size.
        images: that are trained on.
        classes: that they are of.
    """
    steps = recipe.epochs * -(-images // recipe.batch_size) / STEPS
    head = min(1.0, steps)
    return head, min(steps, steps**-MANY) * min(1.0, images / (FEW * classes)) ** 2
