"""Ways of learning one task after the other, behind one small interface."""

from __future__ import annotations

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

__all__ = ["METHODS", "Budget", "Cost", "Learner", "Lesson", "Method"]

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
