"""What one check says, and the words and rules that all checks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import numpy as np

from clr.gate.evidence import Bools, Ints
from clr.gate.statistics import items_needed, paired_drop_limit

Verdict = Literal["pass", "fail", "inconclusive"]
How = Literal["identical", "replayed", "paired-test", ""]


@dataclass(frozen=True)
class Check:
    """One question that the gate asked, and its answer.

    Attributes:
        name: what was asked, e.g. ``retention``; see docs/gate.md.
        task: the task it was asked about.
        verdict: pass, fail or inconclusive.
        observed: the figure that was compared; None where nothing was measured.
        limit: what it was compared with; None where the answer is yes or no.
        n: items behind the figure; 0 where there are none.
        evidence: digest of exactly what this check was shown.
        how: proof that was used, for retention and routing; else empty.
        message: the answer as a plain sentence.
        facts: further figures, JSON-serialisable.
    """

    name: str
    task: str
    verdict: Verdict
    observed: float | None
    limit: float | None
    n: int
    evidence: str
    how: How
    message: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The check's name among all of a report: ``name:task``."""
        return f"{self.name}:{self.task}"

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON-serialisable fields; figures that are not finite are null."""
        return {
            "name": self.name,
            "task": self.task,
            "verdict": self.verdict,
            "observed": _finite(self.observed),
            "limit": _finite(self.limit),
            "n": self.n,
            "evidence": self.evidence,
            "how": self.how,
            "message": self.message,
            "facts": self.facts,
        }


@dataclass(frozen=True)
class Pairs:
    """How the same n items were answered before and after.

    Attributes:
        regressed: b, items right before and wrong after.
        repaired: c, items wrong before and right after.
        n: items.
        before: share right before.
        after: share right after.
    """

    regressed: int
    repaired: int
    n: int
    before: float
    after: float

    @property
    def drop(self) -> float:
        """Fall of accuracy, (b - c) / n; negative where it rose."""
        return (self.regressed - self.repaired) / self.n

    def at_most(self, alpha: float) -> float:
        """Upper confidence limit of the drop at one-sided error rate `alpha`."""
        return paired_drop_limit(self.regressed, self.repaired, self.n, alpha)

    def at_least(self, alpha: float) -> float:
        """Lower confidence limit of the drop at one-sided error rate `alpha`."""
        return -paired_drop_limit(self.repaired, self.regressed, self.n, alpha)

    def facts(self) -> dict[str, Any]:
        """Return the counts and both accuracies under their names in ``gate.json``."""
        return {
            "before": round(self.before, 6),
            "after": round(self.after, 6),
            "regressed": self.regressed,
            "repaired": self.repaired,
        }


def compare(right_before: Bools, right_after: Bools) -> Pairs:
    """Count regressed and repaired items of two equally long lists of truth values."""
    n = len(right_before)
    before, after = int(np.count_nonzero(right_before)), int(np.count_nonzero(right_after))
    both = int(np.count_nonzero(right_before & right_after))
    return Pairs(before - both, after - both, n, before / n, after / n)


def compare_answers(labels: Ints, before: Ints, after: Ints) -> Pairs:
    """Count regressed and repaired items of two lists of predicted classes."""
    return compare(before == labels, after == labels)


def judge_drop(
    pairs: Pairs, margin: float, alpha: float, what: str
) -> tuple[Verdict, str, dict[str, Any]]:
    """Decide whether a drop lies below `margin`.

    pass: its upper confidence limit does. fail: it does not, and a drop is shown
    (its lower limit is above zero). inconclusive: neither is shown.

    Args:
        pairs: the same items before and after.
        margin: largest drop that may be left open.
        alpha: one-sided error rate of each limit.
        what: the measured quantity as the subject of a sentence, e.g. "accuracy".

    Returns:
        The verdict, a sentence, and the facts behind both.
    """
    most, least = pairs.at_most(alpha), pairs.at_least(alpha)
    facts = {**pairs.facts(), "drop_at_most": round(most, 6), "drop_at_least": round(least, 6)}
    moved = (
        f"{pairs.regressed} of {count(pairs.n, 'test image')} turned from right to wrong and "
        f"{pairs.repaired} from wrong to right, so {what} went from {percent(pairs.before)} to "
        f"{percent(pairs.after)}."
    )
    sure = f"With {percent(1 - alpha, 0)} confidence"
    if most < margin:
        bound = f"fell by less than {points(most)}" if most > 0 else "did not fall"
        return "pass", f"{moved} {sure} it {bound}; {points(margin)} are allowed.", facts
    if least > 0:
        return (
            "fail",
            f"{moved} {sure} that is a fall of at least {points(least)}, and it may be "
            f"{points(most)}; {points(margin)} are allowed.",
            facts,
        )
    return (
        "inconclusive",
        f"{moved} That is too little to judge: the fall may be as large as {points(most)} "
        f"({percent(1 - alpha, 0)} limit) and {points(margin)} are allowed. Without any regression "
        f"{items_needed(margin, alpha)} test images would do.",
        facts,
    )


def count(number: int, thing: str) -> str:
    """Return e.g. ``1 task`` or ``2,500 tasks``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage; ``–``: there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    value = 100 * share
    digits = 1 if abs(value) >= 0.095 or value == 0 else 2
    return f"{value:.{digits}f} points"


def signed(difference: float | None) -> str:
    """Return a difference of shares in percentage points with its sign, ``+1.2``; ``–``: none."""
    if difference is None:
        return "–"
    value = round(100 * difference, 1)
    return f"{value:+.1f}".replace("-", "−") if value else "0.0"


def _finite(value: float | None) -> float | None:
    return round(value, 6) if value is not None and isfinite(value) else None
