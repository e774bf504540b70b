"""What the retention gate says of each method: its own pure functions, asked about every offer.

An offer is one more task of a sequence: the newcomer with its budgets, and every task before
it. What a task was accepted with are its answers right after it was learned, as in the
registry, so that slow forgetting is not excused step by step.

Where tasks share weights, the offer declares that they change, and the paired test decides.
Where tasks are separate, nothing is declared: the backbone's digest and bit-equal canary
logits, before and after the same learner was taught something else, are the proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clr.compare.unit import Ints, State, Step, Unit
from clr.core.files import canonical_json, sha256_bytes
from clr.gate.evidence import EarlierTask, Limits, Newcomer, Offer, Snapshot
from clr.gate.verdict import GateReport, decide

_ORDER = ("fail", "inconclusive", "pass")


@dataclass(frozen=True, eq=False)
class Learned:
    """One task in a sequence, whichever units it comes from.

    Attributes:
        task: name.
        unit: that learned it.
        step: number in that unit.
    """

    task: str
    unit: Unit
    step: int

    @property
    def at(self) -> Step:
        """What was measured then."""
        return self.unit.steps[self.step]


def sequences(units: Iterable[Unit], orders: Sequence[Sequence[str]]) -> list[list[Learned]]:
    """Return every complete sequence of one method that its units make.

    Args:
        units: of one method and one amount of images.
        orders: of the tasks; separate units make each of them.
    """
    found: list[list[Learned]] = []
    separate: dict[int, dict[str, Unit]] = {}
    for unit in units:
        if unit.asked.shared:
            found.append([Learned(task, unit, at) for at, task in enumerate(unit.asked.tasks)])
        else:
            separate.setdefault(unit.asked.seed, {})[unit.asked.tasks[0]] = unit
    for _, by_task in sorted(separate.items()):
        for order in orders:
            if set(order) <= by_task.keys():
                found.append([Learned(task, by_task[task], 0) for task in order])
    return found


def judge(
    sequence: Sequence[Learned],
    probes: Mapping[str, Ints],
    parameters: int,
    limits: Limits,
) -> list[GateReport]:
    """Return the gate's report on every offer of a sequence, the first task's too.

    Args:
        sequence: in the order of learning.
        probes: by task, the linear probe's answers with the same seed; a task without them is
            compared with its own answers.
        parameters: of the backbone as published.
        limits: what the gate allows.
    """
    return [
        decide(
            Offer(
                newcomer=_newcomer(one, probes, parameters),
                earlier=tuple(_earlier(before, one) for before in sequence[:at]),
                declared=frozenset({"adapter"} if one.unit.asked.shared else ()),
            ),
            limits,
        )
        for at, one in enumerate(sequence)
    ]


def summary(reports: Sequence[Sequence[GateReport]]) -> dict[str, Any]:
    """Return what the gate said of one method.

    Args:
        reports: per sequence, per offer.

    Returns:
        {offers, retention: {verdict: offers with an earlier task}, how: {proof: earlier tasks},
        admission: {check: offers whose newcomer does not pass it}, passes: offers that would
        be let through, verdict: of retention over all, example: a sentence about the worst}.
    """
    offers = [report for sequence in reports for report in sequence]
    retention: Counter[str] = Counter()
    how: Counter[str] = Counter()
    admission: Counter[str] = Counter()
    for report in offers:
        earlier = [one for one in report.checks if one.task != report.newcomer]
        if earlier:
            retention[_worst(one.verdict for one in earlier)] += 1
        how.update(one.how for one in earlier if one.name == "retention")
        admission.update(
            one.name
            for one in report.checks
            if one.task == report.newcomer and one.verdict != "pass"
        )
    return {
        "offers": len(offers),
        "passes": sum(report.verdict == "pass" for report in offers),
        "retention": dict(retention),
        "how": {name or "none": count for name, count in how.items()},
        "admission": dict(admission),
        "verdict": _worst(retention) if retention else "",
        "example": _example(offers),
    }


def _worst(verdicts: Iterable[str]) -> str:
    return min(verdicts, key=_ORDER.index)


def _example(offers: Sequence[GateReport]) -> str:
    """Return the sentence about the earlier task that lost most; empty where all passed."""
    lost = [
        (one.observed or 0.0, f"Offered {report.newcomer}: {one.message}")
        for report in offers
        for one in report.checks
        if one.task != report.newcomer and one.verdict != "pass"
    ]
    return max(lost)[1] if lost else ""


def _newcomer(one: Learned, probes: Mapping[str, Ints], parameters: int) -> Newcomer:
    step, cost = one.at, one.at.cost
    predicted = step.predicted(one.task)
    return Newcomer(
        task=one.task,
        labels=one.unit.labels[one.task],
        predicted=predicted,
        probe=probes.get(one.task, predicted),
        majority=one.unit.majority[one.task],  # type: ignore[arg-type]  # one answer for all
        champion=None,
        routed=None,
        # what a rival changes or adds in place of kernels counts like kernels
        params_pct=100 * (cost["kernels"] + cost["other"]) / parameters,
        adapter_bytes=cost["bytes"],
        latency_p95_ms=step.latency["p95"],
        bare_latency_p95_ms=step.latency["bare_p95"],
        digests={**one.unit.about["digests"], "adapter": one.unit.key},
    )


def _earlier(before: Learned, now: Learned) -> EarlierTask:
    """Put what answers for an earlier task now beside what answered when it was learned."""
    task, shared = before.task, before.unit.asked.shared
    stored = before.at.predicted(task)
    labels = before.unit.labels[task]
    test = sha256_bytes(canonical_json(labels.tolist()))
    if shared:
        was, will_be = before.at.state, now.at.state
        states = f"{before.unit.key}#{before.step}", f"{now.unit.key}#{now.step}"
    else:
        was, will_be = before.at.state, before.unit.after or before.at.state
        states = before.unit.key, before.unit.key
    return EarlierTask(
        task=task,
        before=_snapshot(before, was, states[0]),
        after=_snapshot(before, will_be, states[1]),
        test_before=test,
        test_after=test,
        labels=labels,
        stored=stored,
        replayed=now.at.predicted(task) if shared else None,
        replay_due=shared,
    )


def _snapshot(one: Learned, state: State, adapter: str) -> Snapshot:
    return Snapshot(
        backbone=state.backbone,
        adapter=adapter,
        preprocessing=one.unit.about["digests"]["data"],
        environment=one.unit.about["numeric"],
        canary=state.canaries[one.task],
    )
