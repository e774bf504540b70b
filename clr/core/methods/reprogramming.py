"""Channel-wise lightweight reprogramming with this project's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from clr.core.backbone import Backbone
from clr.core.compress import pack
from clr.core.methods.interface import Budget, Cost, Lesson
from clr.core.methods.separate import Learn, Served
from clr.core.network import Program
from clr.core.recipe import Recipe
from clr.core.sites import Variant, is_early
from clr.core.train import fit, learning_sites, spec_of
from clr.errors import UsageError

FIXED = ("variant", "image_size", "epochs", "validation_share", "seed")
"""Settings that the method's name, the budget or the lesson has decided."""


def learn_variant(variant: Variant, changed: Mapping[str, Any] = MappingProxyType({})) -> Learn:
    """Return how adapters of this variant are learned: see `clr.core.train.fit`.

    Args:
        variant: where kernels act.
        changed: settings that differ from the default recipe's; none of `FIXED`.

    Raises:
        UsageError: no such setting, or a value that it cannot have.
    """
    if fixed := sorted(set(changed) & {*FIXED, "preset"}):
        raise UsageError(
            f"{', '.join(fixed)} cannot be changed in a comparison.",
            fix="--epochs, --size and --seeds are the same for all methods.",
        )
    given = Recipe.of(changed, variant=variant)

    def learn(backbone: Backbone, lesson: Lesson, budget: Budget, seed: int) -> Served:
        recipe = replace(given, epochs=budget.epochs, seed=seed)
        baseline = lesson.baseline if recipe.flips else replace(lesson.baseline, turns=())
        if not recipe.balance:
            baseline = replace(baseline, weights=torch.ones(len(lesson.labels)))
        spec = spec_of(lesson.task, lesson.labels, backbone, lesson.preprocessing, recipe)
        trained = fit(backbone, lesson.images, baseline, spec, recipe, seconds=budget.seconds)
        tensors = {n: t.to(backbone.device) for n, t in trained.adapter.tensors.items()}
        stored = pack(trained.adapter.tensors, spec.storage)
        late = learning_sites(backbone, recipe, baseline)
        added = {name: t for name, t in tensors.items() if not is_early(name, late)}
        cost = replace(cost_of(added), bytes=sum(array.nbytes for array in stored.values()))
        return Served(Program(backbone, tensors).logits, cost)

    return learn


def cost_of(tensors: Mapping[str, Tensor]) -> Cost:
    """Return what an adapter's tensors add to the backbone, stored as float32."""

    def count(*kinds: str) -> int:
        return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(kinds))

    return Cost.of_floats(
        kernels=count("kernels.", "mix."), batch_norm=count("bn."), head=count("head.")
    )
