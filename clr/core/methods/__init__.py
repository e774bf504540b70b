"""Ways of learning one task after the other, behind one small interface."""

from __future__ import annotations

from clr.core.methods import constant, probing, reprogramming
from clr.core.methods.interface import Budget, Cost, Learner, Lesson, Method
from clr.core.methods.separate import separate

__all__ = ["METHODS", "Budget", "Cost", "Learner", "Lesson", "Method"]

_ALL = (
    Method("majority", "Most frequent label", "", False, separate(constant.learn)),
    Method(
        "probe",
        "Linear probe",
        "Alain & Bengio 2017, section 3",
        False,
        separate(probing.learn),
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
        "Ge et al. 2023, sections 3.2 and 5",
        False,
        separate(reprogramming.learn_variant("mix")),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method by its name, from the simplest on."""
