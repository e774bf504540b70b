"""The retention gate: evidence in, verdict out. No effects, no clock, no chance.

The rules, and where they come from, are told in docs/gate.md.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clr.gate.checks import Check, How, Verdict, count, percent
from clr.gate.earlier import judge_earlier
from clr.gate.evidence import Limits, Offer
from clr.gate.matrix import AccuracyMatrix, grow
from clr.gate.newcomer import judge_newcomer
from clr.gate.overlap import Overlap, overlap_sentence, overlaps

SCHEMA = "clr.gate/1"

_PROOFS: dict[How, tuple[str, str]] = {
    "identical": ("identical", "proved identical"),
    "replayed": ("replayed", "replayed with equal answers"),
    "paired-test": ("paired_test", "by paired test"),
}


@dataclass(frozen=True)
class GateReport:
    """What the gate decided, and all that it decided from.

    Attributes:
        verdict: pass only if every check passes; fail if one fails; else inconclusive.
        checks: the newcomer's checks, then those of each earlier task by name.
        matrix: accuracies of all tasks over time.
        metrics: flat figures: average_accuracy, backward_transfer, forgetting (absent
            where there is nothing to average), earlier_tasks, and identical,
            replayed, paired_test: earlier tasks by proof.
        newcomer: name of the offered task; empty where there is none.
        limits: what was allowed.
        declared: parts that the offer said it changes.
        sentence: the verdict in plain words.
        overlaps: earlier tasks that the router confuses with the newcomer.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    matrix: AccuracyMatrix
    metrics: dict[str, float]
    newcomer: str
    limits: Limits
    declared: frozenset[str]
    sentence: str
    overlaps: tuple[Overlap, ...] = ()

    @property
    def failed(self) -> list[str]:
        """Keys (``name:task``) of the checks that failed."""
        return [one.key for one in self.checks if one.verdict == "fail"]

    @property
    def inconclusive(self) -> list[str]:
        """Keys (``name:task``) of the checks that could not be decided."""
        return [one.key for one in self.checks if one.verdict == "inconclusive"]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-serialisable fields, schema ``clr.gate/1``."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "newcomer": self.newcomer,
            "failed": self.failed,
            "inconclusive": self.inconclusive,
            "declared": sorted(self.declared),
            "limits": asdict(self.limits),
            "metrics": self.metrics,
            "matrix": self.matrix.to_dict(),
            "overlaps": [one.to_dict(self.newcomer) for one in self.overlaps],
            "checks": [one.to_dict() for one in self.checks],
        }


def decide(offer: Offer, limits: Limits | None = None) -> GateReport:
    """Decide whether an offer may be promoted.

    Args:
        offer: the evidence; the order of tasks and of items does not matter.
        limits: what is allowed; by default the defaults of `Limits`.

    Returns:
        The report. Its verdict is ``pass`` only if every single check passes.

    Raises:
        IntegrityBroken: the history in `offer.matrix` has an unknown form.
    """
    limits = limits or Limits()
    routed = offer.newcomer is not None and offer.newcomer.routed is not None
    checks = [] if offer.newcomer is None else judge_newcomer(offer.newcomer, limits)
    for one in sorted(offer.earlier, key=lambda task: task.task):
        checks += judge_earlier(one, offer.declared, limits, routed)
    matrix = _matrix(offer, checks)
    verdict = _overall(checks)
    name = offer.newcomer.task if offer.newcomer else ""
    alike = overlaps(offer.newcomer, offer.earlier)
    told = _sentence(verdict, checks, name), overlap_sentence(name, alike)
    return GateReport(
        verdict=verdict,
        checks=tuple(checks),
        matrix=matrix,
        metrics=_metrics(matrix, checks),
        newcomer=name,
        limits=limits,
        declared=offer.declared,
        sentence=" ".join(filter(None, told)),
        overlaps=alike,
    )


def _overall(checks: list[Check]) -> Verdict:
    verdicts = {one.verdict for one in checks}
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def _matrix(offer: Offer, checks: list[Check]) -> AccuracyMatrix:
    earlier = {
        one.task: (one.facts["before"], one.facts["after"])
        for one in checks
        if one.name == "retention"
    }
    if offer.newcomer is None:
        return grow(offer.matrix, earlier, None)
    accuracy = float(np.mean(offer.newcomer.predicted == offer.newcomer.labels))
    return grow(offer.matrix, earlier, (offer.newcomer.task, round(accuracy, 6)))


def _metrics(matrix: AccuracyMatrix, checks: list[Check]) -> dict[str, float]:
    proofs = Counter(one.how for one in checks if one.name == "retention" and _proved(one))
    total = sum(one.name == "retention" for one in checks)
    counts = {name: float(proofs[how]) for how, (name, _) in _PROOFS.items()}
    return {**matrix.metrics(), "earlier_tasks": float(total), **counts}


def _proved(check: Check) -> bool:
    return check.verdict == "pass"


def _sentence(verdict: Verdict, checks: list[Check], newcomer: str) -> str:
    retention = [one for one in checks if one.name == "retention"]
    kept = sum(_proved(one) for one in retention)
    subject = f"{newcomer} may join" if newcomer else "The change may be made"
    if verdict == "pass":
        if not retention:
            return f"{subject}: every check passes. There is no earlier task that it could harm."
        proofs = Counter(one.how for one in retention)
        how = ", ".join(f"{proofs[one]:,} {_PROOFS[one][1]}" for one in _PROOFS if proofs[one])
        whose = "the earlier task keeps its"
        if kept > 1:
            whose = f"all {kept:,} earlier tasks keep their"
        return f"{subject}: every check passes, and {whose} accuracy ({how})."
    stopped = [one for one in checks if one.verdict == verdict]
    names = _grouped(stopped)
    subject = f"{newcomer} is" if newcomer else "The change is"
    if verdict == "inconclusive":
        return (
            f"{subject} not promoted: {count(len(stopped), 'check')} could not be decided "
            f"({names}). Nothing has failed."
        )
    lost = [one for one in retention if one.verdict == "fail" and one.facts["after"] is not None]
    worst = max(lost, key=lambda one: one.facts["before"] - one.facts["after"], default=None)
    forgotten = (
        f" Worst: {worst.task} went from {percent(worst.facts['before'])} to "
        f"{percent(worst.facts['after'])}."
        if worst
        else ""
    )
    return f"{subject} refused: {count(len(stopped), 'check')} failed ({names}).{forgotten}"


def _grouped(checks: list[Check]) -> str:
    """Name checks by kind, with their tasks where these are few."""
    tasks: dict[str, list[str]] = {}
    for one in checks:
        tasks.setdefault(one.name, []).append(one.task)
    return "; ".join(
        f"{name} of {', '.join(of) if len(of) <= 3 else count(len(of), 'task')}"
        for name, of in tasks.items()
    )
