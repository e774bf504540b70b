"""Ways of learning one task after the other, behind one small interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from clr.core.methods import (
    constant,
    finetuning,
    low_rank,
    masking,
    normalising,
    probing,
    published,
    reprogramming,
    transforming,
)
from clr.core.methods.ewc import Consolidation
from clr.core.methods.interface import Budget, Cost, Learner, Lesson, Method
from clr.core.methods.replay import Rehearsal
from clr.core.methods.separate import separate
from clr.core.methods.sequential import Sequential
from clr.core.sites import Variant
from clr.errors import UsageError

__all__ = ["METHODS", "Budget", "Cost", "Learner", "Lesson", "Method", "find_method"]

_ALL = (
    Method("majority", "Most frequent label", "", False, separate(constant.learn)),
    Method(
        "probe",
        "Linear probe",
        "Alain & Bengio 2017",
        False,
        separate(probing.learn),
    ),
    Method(
        "batch-norm",
        "Batch norm only",
        "Mudrakarta et al. 2019, model patches of scales and biases",
        False,
        separate(normalising.learn),
    ),
    Method(
        "fine-tuning",
        "Fine-tuning, a copy a task",
        "Kumar et al. 2022, LP-FT",
        False,
        separate(finetuning.learn),
    ),
    Method("sequential", "Sequential fine-tuning", "", True, Sequential),
    Method(
        "ewc",
        "Elastic weight consolidation",
        "Kirkpatrick et al. 2017, equation 3",
        True,
        lambda backbone: Sequential(backbone, Consolidation()),
    ),
    Method(
        "replay",
        "Experience replay",
        "Chaudhry et al. 2019, algorithms 1 and 2; Vitter 1985, algorithm R",
        True,
        lambda backbone: Sequential(backbone, Rehearsal()),
    ),
    Method(
        "supsup",
        "Supermasks in superposition",
        "Wortsman et al. 2020, section 3.1; edge-popup, Ramanujan et al. 2020",
        False,
        separate(masking.learn),
    ),
    Method(
        "eft",
        "Efficient feature transformations",
        "Verma et al. 2021, section 3.1",
        False,
        separate(transforming.learn),
    ),
    Method(
        "lora",
        "Low-rank adaptation of convolutions",
        "Hu et al. 2022, equation 3",
        False,
        separate(low_rank.learn),
    ),
    Method(
        "clr-published",
        "CLR as published",
        "Ge et al. 2023, section 3.2, and its released code, main.py",
        False,
        separate(published.learn),
    ),
    Method(
        "clr-reduced",
        "CLR reduced",
        "Ge et al. 2023, section 3.2",
        False,
        separate(reprogramming.learn_variant("reduced")),
    ),
    Method(
        "clr-full",
        "CLR full",
        "Ge et al. 2023, section 3.2",
        False,
        separate(reprogramming.learn_variant("full")),
    ),
    Method(
        "clr-mix",
        "CLR mix",
        "Ge et al. 2023, section 3.2, with channel mixing",
        False,
        separate(reprogramming.learn_variant("mix")),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method by its name, from the simplest on."""

_VARIANTS = {f"clr-{variant}": variant for variant in get_args(Variant)}


def find_method(name: str) -> Method:
    """Return the method of this name, or a variant of CLR with settings of its recipe changed.

    ``clr-reduced+shift=0+kernel_lr=0.005`` is ``clr-reduced`` with two settings changed: what
    one piece of the recipe is worth is seen beside the whole.

    Raises:
        UsageError: no such method, no such setting, or a value that it cannot have.
    """
    base, *settings = name.split("+")
    if base not in METHODS or (settings and base not in _VARIANTS):
        raise UsageError(
            f"{name!r} is no method.",
            fix=f"There are {', '.join(METHODS)}; of {', '.join(_VARIANTS)} settings of the "
            "recipe can be changed: clr-reduced+shift=0.",
            method=name,
        )
    if not settings:
        return METHODS[base]
    changed = dict(_setting(one) for one in settings)
    return replace(
        METHODS[base],
        name=name,
        title=f"{METHODS[base].title}, {', '.join(settings)}",
        start=separate(reprogramming.learn_variant(_VARIANTS[base], changed)),
    )


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value, value)
