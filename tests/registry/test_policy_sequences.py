"""Random people do random things, for long: nothing that the policy allows breaks a rule.

The rules are told again in oracle.py, from what is stored and without the policy's code. So
that this can be believed, the policy is also made wrong in many ways, one at a time, and
each must be found out.
"""

from __future__ import annotations

from collections import Counter

import pytest

from clr.registry.acts import Kind
from clr.registry.policy import decide
from tests.registry.mutants import CHANGES, MUTANTS, Decide, everybody_still, lets
from tests.registry.oracle import NEVER
from tests.registry.walk import USERS, Broken, Walk

FAULTS = {**MUTANTS, "counts who lost the role": everybody_still(USERS)}


def find_out(judge: Decide, walks: int, steps: int = 60) -> str:
    """Return which rule `judge` lets somebody break; empty where none was."""
    for seed in range(walks):
        try:
            Walk(seed, judge).walk(steps)
        except Broken as broke:
            return str(broke)
    return ""


def test_nothing_that_is_allowed_breaks_a_rule():
    count: Counter[tuple[Kind, bool]] = Counter()
    moves: Counter[str] = Counter()
    for seed in range(150):
        one = Walk(seed, decide)
        one.walk(60)
        count += one.count
        moves += one.moves
    assert moves["promoted"] > 150, "they get somewhere"
    assert moves["back"] > 30
    assert moves["retired"] > 10
    assert {kind for kind, allowed in count if not allowed} == set(Kind)
    assert set(Kind) - {kind for kind, allowed in count if allowed} == NEVER


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_who_lets_everybody_do_one_kind_of_act_is_found_out(kind: Kind):
    assert find_out(lets(kind), 400)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_policy_with_one_fault_is_found_out(fault: str):
    assert find_out(FAULTS[fault], 400)
