"""Channel-wise lightweight reprogramming with this project's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.compress import pack
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Learn, Served
from clr.core.network import Program
from clr.core.recipe import Recipe
from clr.core.sites import Variant
from clr.core.train import fit, spec_of


def learn_variant(variant: Variant) -> Learn:
    """Return how adapters of this variant are learned: see `clr.core.train.fit`.

    All settings are the default recipe's, also how batch norms and storage are treated.
    """

    def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
        recipe = replace(Recipe(), variant=variant, epochs=budget.epochs, seed=seed)
        spec = spec_of(lesson.task, lesson.labels, backbone, lesson.preprocessing, recipe)
        trained = fit(
            backbone, lesson.images, lesson.baseline, spec, recipe, seconds=budget.seconds
        )
        tensors = {n: t.to(backbone.device) for n, t in trained.adapter.tensors.items()}
        stored = pack(trained.adapter.tensors, spec.storage)
        cost = replace(cost_of(tensors), bytes=sum(array.nbytes for array in stored.values()))
        return Served(Program(backbone, tensors).logits, cost)

    return learn


def cost_of(tensors: Mapping[str, Tensor]) -> Cost:
    """Return what an adapter's tensors add to the backbone, stored as float32."""

    def count(*kinds: str) -> int:
        return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(kinds))

    return Cost.of_floats(
        kernels=count("kernels.", "mix."), batch_norm=count("bn."), head=count("head.")
    )
