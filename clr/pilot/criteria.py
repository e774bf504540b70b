"""Go or no-go: what a pilot measured in, one answer a criterion out (pure).

Every criterion is `met`, `not met` or `unknown`; `unknown` is where the images are too few to
tell, or where an assumption is missing, and is never counted as met.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clr.errors import UsageError
from clr.gate.evidence import Ints
from clr.gate.statistics import paired_interval, wilson_interval

Answer = Literal["met", "not met", "unknown"]
Decision = Literal["go", "no-go", "open"]
Facts = Mapping[str, Any]

PAYBACK_NEEDS = (
    "items_per_year", "error_cost", "label_cost_per_image", "compute_cost_per_hour",
    "engineer_hours", "hourly_rate", "maintenance_hours_per_month", "horizon_years",
)  # fmt: skip


@dataclass(frozen=True)
class Today:
    """How well the work is done now.

    Attributes:
        error: share of wrong decisions.
        wrong: wrong ones of the labelled sample; None where the rate was given.
        of: decisions of that sample.
    """

    error: float
    wrong: int | None = None
    of: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.error <= 1:
            raise UsageError(
                f"An error rate of {self.error} is not possible.", fix="Give a share from 0 to 1."
            )

    @classmethod
    def sample(cls, wrong: int, of: int) -> Today:
        """Return what a labelled sample of decisions tells.

        Raises:
            UsageError: no decisions, or more wrong ones than there are.
        """
        if not 0 <= wrong <= of or of < 1:
            raise UsageError(f"{wrong} wrong of {of} decisions is no sample.")
        return cls(wrong / of, wrong, of)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the error; both ends are the rate itself where it was given."""
        if self.wrong is None or self.of is None:
            return self.error, self.error
        return wilson_interval(self.wrong, self.of)


@dataclass(frozen=True)
class Criterion:
    """One question of a pilot and its answer.

    Attributes:
        name: ``gain``, ``retention``, ``data``, ``payback`` or ``site``.
        answer: of it.
        facts: what the answer rests on, JSON-serialisable.
    """

    name: str
    answer: Answer
    facts: Facts = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the criterion as JSON."""
        return {"name": self.name, "answer": self.answer, **self.facts}


@dataclass(frozen=True)
class Pairs:
    """Two sets of answers to the same labelled images.

    Attributes:
        n: images.
        before: right by what is compared with.
        regressed: right before, wrong by the adapter.
        repaired: wrong before, right by the adapter.
    """

    n: int
    before: int
    regressed: int
    repaired: int

    @property
    def after(self) -> int:
        """Images that the adapter has right."""
        return self.before - self.regressed + self.repaired

    @classmethod
    def of(cls, labels: Ints, before: Ints, after: Ints) -> Pairs:
        """Count the pairs of answers `before` and `after` against `labels`, int [n] each."""
        was, now = before == labels, after == labels
        return cls(
            n=len(labels),
            before=int(was.sum()),
            regressed=int((was & ~now).sum()),
            repaired=int((now & ~was).sum()),
        )


def gain(name: str, pairs: Pairs, today: Today | None) -> Criterion:
    """Ask whether the adapter is better than what exists: is the gain's lower bound above 0?

    Against today's way where its error is known: the interval of a difference of two
    independent shares, by their Wilson intervals (Newcombe 1998, method 10), in which a rate
    that was given has no width. Else against the linear probe on the same images: the paired
    interval of the gate (Tango 1998).

    Args:
        name: of the criterion: ``gain``, or ``site`` on images of the line.
        pairs: probe and adapter on the same images.
        today: how well the work is done now, if known.
    """
    probe = interval(*paired_ends(pairs))
    facts: dict[str, Any] = {
        "n": pairs.n,
        "accuracy": share(pairs.after, pairs.n),
        "probe_accuracy": share(pairs.before, pairs.n),
        "gain_over_probe": probe,
        "against": "probe" if today is None else "today",
        "gain": probe,
    }
    if today is not None:
        facts |= {"today": _today(today), "gain": _newcombe(pairs, today)}
    return Criterion(name, above_zero(facts["gain"]), facts)


def above_zero(ends: Mapping[str, float]) -> Answer:
    """Say whether an interval {low, middle, high} lies above zero."""
    if ends["low"] > 0:
        return "met"
    return "not met" if ends["high"] <= 0 else "unknown"


def paired_ends(pairs: Pairs) -> tuple[float, float, float]:
    """Return low, middle and high of the paired gain (repaired - regressed) / n."""
    low, high = paired_interval(pairs.regressed, pairs.repaired, pairs.n)
    return low, (pairs.repaired - pairs.regressed) / pairs.n, high


def _newcombe(pairs: Pairs, today: Today) -> dict[str, float]:
    right = pairs.after / pairs.n
    low, high = wilson_interval(pairs.after, pairs.n)
    least, most = today.interval
    was, now = 1 - today.error, right
    gained = now - was
    return interval(
        gained - math.hypot(now - low, today.error - least),
        gained,
        gained + math.hypot(high - now, most - today.error),
    )


def _today(today: Today) -> dict[str, Any]:
    low, high = today.interval
    kind = "assumed" if today.wrong is None else "measured"
    return {"kind": kind, "wrong": today.wrong, "of": today.of,
            "error": interval(low, today.error, high)}  # fmt: skip


def retention(report: Facts) -> Criterion:
    """Ask the retention gate's report: would every earlier task stay as it is?

    Args:
        report: of schema ``clr.gate/1``.
    """
    answers: dict[str, Answer] = {"pass": "met", "fail": "not met", "inconclusive": "unknown"}
    earlier = int(report["metrics"]["earlier_tasks"])
    proofs = {
        name: int(report["metrics"][name]) for name in ("identical", "replayed", "paired_test")
    }
    facts = {
        "verdict": report["verdict"],
        "earlier_tasks": earlier,
        "kept": sum(proofs.values()),
        "how": proofs,
        "failed": [*report["failed"], *report["inconclusive"]],
    }
    return Criterion("retention", answers[report["verdict"]], facts)


def data(curve: Facts | None, target: float, images: int, reason: str = "") -> Criterion:
    """Ask the learning curve: do the images at hand reach the target?

    Args:
        curve: as `clr.plan.as_document` returns it; None where none could be drawn.
        target: accuracy that is wanted.
        images: labelled training images at hand.
        reason: why there is no curve.
    """
    facts: dict[str, Any] = {"target": target, "images": images}
    if curve is None:
        return Criterion("data", "unknown", {**facts, "reason": reason})
    needed = curve["needed"]
    answer: Answer = "unknown"
    if needed["verdict"] == "reached":
        answer = "met"
    elif needed["verdict"] in ("far", "not reachable") or needed["low"] > images:
        answer = "not met"
    facts |= {
        "verdict": needed["verdict"],
        "needed": {end: needed[end] for end in ("low", "middle", "high")},
        "asymptote": curve["asymptote"],
    }
    return Criterion("data", answer, facts)


def payback(case: Mapping[str, Facts]) -> Criterion:
    """Ask the business case: is the cost of adoption back within the horizon?

    Met where it is at the low end of the accuracy's interval; not met where not even the high
    end brings it back.

    Args:
        case: as `clr.roi.business_case` returns it.
    """
    if "payback_months" not in case or "horizon_years" not in case:
        priced = "cost_matrix" in case
        missing = [one for one in PAYBACK_NEEDS
                   if one not in case and not (priced and one == "error_cost")]  # fmt: skip
        return Criterion("payback", "unknown", {"missing": missing})
    months, horizon = case["payback_months"], 12 * case["horizon_years"]["value"]
    back = {end: months[end] for end in ("low", "middle", "high")}
    answer: Answer = "unknown"
    if back["low"] is not None and back["low"] <= horizon:
        answer = "met"
    elif back["high"] is None or back["high"] > horizon:
        answer = "not met"
    return Criterion("payback", answer, {"months": back, "horizon_months": horizon})


def decide(criteria: Sequence[Criterion]) -> tuple[Decision, str]:
    """Return the decision and what comes next.

    Next is ``site-trial`` where all but stage 3 is met, ``onboard`` where that is too,
    ``stop`` at a no-go, ``close-gaps`` while something is unknown.
    """
    site = next(one for one in criteria if one.name == "site")
    others = {one.answer for one in criteria if one is not site}
    if "not met" in others | {site.answer}:
        return "no-go", "stop"
    if others != {"met"}:
        return "open", "close-gaps"
    if site.answer == "met":
        return "go", "onboard"
    tried = "n" in site.facts
    return ("open", "close-gaps") if tried else ("go", "site-trial")


def share(right: int, n: int) -> dict[str, float]:
    """Return a share with its 95 % interval."""
    low, high = wilson_interval(right, n)
    return interval(low, right / n, high)


def interval(low: float, middle: float, high: float) -> dict[str, float]:
    """Return three ends as JSON has them."""
    return {"low": low, "middle": middle, "high": high}
