"""The questions about one earlier task: is it intact, and still found by the router?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clr.gate.checks import (
    Check,
    Verdict,
    compare,
    compare_answers,
    count,
    judge_drop,
    percent,
    points,
)
from clr.gate.evidence import SHARED_PARTS, EarlierTask, Ints, Limits, Snapshot, evidence_digest

_WORDS = {
    "backbone": "the shared backbone",
    "adapter": "its adapter file",
    "preprocessing": "its preprocessing",
}


def judge_earlier(
    one: EarlierTask, declared: frozenset[str], limits: Limits, routed: bool
) -> list[Check]:
    """Return the checks of one earlier task: retention always first, then what is wrong.

    Args:
        one: the evidence.
        declared: parts that the offer says it changes.
        limits: margins and error rate.
        routed: a router is in use, so routed accuracy must have been measured.
    """
    digest = _digest(one, declared)
    causes = _undeclared(one, declared, digest)
    causes += _test_data(one, digest)
    causes += _canary(one, digest)
    causes += _missing_replay(one, digest, blamed=bool(causes))
    checks = [_retention(one, limits, digest, causes), *causes]
    return checks + _routing(one, limits, routed) + _doubt(one, limits)


def _changed(one: EarlierTask) -> list[str]:
    return [part for part in SHARED_PARTS if getattr(one.before, part) != getattr(one.after, part)]


def _same_environment(one: EarlierTask) -> bool:
    return one.before.environment == one.after.environment


def _canaries_taken(one: EarlierTask) -> bool:
    return bool(one.before.canary and one.after.canary)


def _identical(one: EarlierTask) -> bool:
    """Digests, environment and canary logits are all equal: the first and strongest proof."""
    return (
        not _changed(one)
        and _same_environment(one)
        and _canaries_taken(one)
        and one.before.canary == one.after.canary
    )


def _undeclared(one: EarlierTask, declared: frozenset[str], digest: str) -> list[Check]:
    return [
        _failed(
            part,
            one,
            digest,
            f"{_WORDS[part].capitalize()} is not the one that {one.task} was accepted with, and "
            f"the offer does not say that it changes ({_short(getattr(one.before, part))} became "
            f"{_short(getattr(one.after, part))}).",
        )
        for part in _changed(one)
        if part not in declared
    ]


def _test_data(one: EarlierTask, digest: str) -> list[Check]:
    if not one.test_after or one.n == 0:
        message = (
            f"The test images of {one.task} are missing, so nothing about it can be proved by test."
        )
    elif not one.test_before:
        message = f"It is not on record which test images {one.task} was accepted with."
    elif one.test_before != one.test_after:
        message = (
            f"The test images of {one.task} are not those it was accepted with "
            f"({_short(one.test_before)} became {_short(one.test_after)})."
        )
    else:
        return []
    return [_failed("test-data", one, digest, message)]


def _canary(one: EarlierTask, digest: str) -> list[Check]:
    comparable = not _changed(one) and _same_environment(one) and _canaries_taken(one)
    if not comparable or one.before.canary == one.after.canary:
        return []
    message = (
        f"Every digest of {one.task} is unchanged, yet the serving object answers the canary "
        "images with other numbers: something outside the recorded files has changed."
    )
    return [_failed("canary", one, digest, message)]


def _missing_replay(one: EarlierTask, digest: str, blamed: bool) -> list[Check]:
    """Ask for the replay where a proof needs it, unless a deeper cause is named already."""
    if one.replayed is not None or blamed:
        return []
    if one.replay_due:
        why = "its turn has come"
    elif not _same_environment(one):
        why = "the environment (libraries, device or threads) has changed"
    elif changed := _changed(one):
        why = f"the offer changes {' and '.join(_WORDS[part] for part in changed)}"
    elif not _canaries_taken(one):
        why = "no canary answers were taken"
    else:
        return []
    message = f"The test images of {one.task} had to be put through the new release, since {why}."
    return [_failed("replay", one, digest, f"{message} That was not done.")]


def _retention(one: EarlierTask, limits: Limits, digest: str, causes: list[Check]) -> Check:
    """Return the proof of retention: identical, replayed or a paired test, or why there is none."""
    accuracy = float(np.mean(one.stored == one.labels)) if one.n else None
    base = Check("retention", one.task, "pass", 0.0, 0.0, one.n, digest, "", "")
    unchanged = {"before": _rounded(accuracy), "after": _rounded(accuracy)}
    right = f" ({percent(accuracy or 0)} of {count(one.n, 'test image')} right)" if one.n else ""
    same_answers = one.replayed is not None and np.array_equal(one.replayed, one.stored)

    if _identical(one) and (one.replayed is None or same_answers):
        also = " All test images were replayed too, with the same answers." if same_answers else ""
        message = (
            f"{one.task}: same backbone, adapter and preprocessing, and bit-equal canary answers. "
            f"Nothing can have been forgotten{right}.{also}"
        )
        facts = {**unchanged, "replayed": same_answers}
        return replace(base, how="identical", message=message, facts=facts)
    if one.replayed is None or one.n == 0:
        reason = causes[0].message if causes else "Nothing was replayed."
        facts = {"before": _rounded(accuracy), "after": None, "replayed": False}
        return replace(
            base,
            verdict="inconclusive",
            observed=None,
            limit=None,
            message=f"{one.task}: its accuracy in the new release was not measured. {reason}",
            facts=facts,
        )
    if same_answers:
        message = (
            f"{one.task}: all test images were put through the new release and every answer is "
            f"what it was before{right}."
        )
        return replace(base, how="replayed", message=message, facts={**unchanged, "replayed": True})
    return _paired(one, one.replayed, limits, base)


def _paired(one: EarlierTask, replayed: Ints, limits: Limits, base: Check) -> Check:
    """Judge answers that moved: by a paired test, or as a failure where nothing may move."""
    pairs = compare_answers(one.labels, one.stored, replayed)
    if not _changed(one) and _same_environment(one):
        moved = int(np.count_nonzero(replayed != one.stored))
        message = (
            f"{one.task}: {moved} of {count(one.n, 'answer')} differ from those on record, though "
            "no file and no library has changed. The new release does not serve what was recorded."
        )
        return replace(
            base,
            verdict="fail",
            observed=pairs.drop,
            how="replayed",
            message=message,
            facts={**pairs.facts(), "moved": moved, "replayed": True},
        )
    verdict, sentence, facts = judge_drop(pairs, limits.margin, limits.alpha, "accuracy")
    return replace(
        base,
        verdict=verdict,
        observed=pairs.drop,
        limit=limits.margin,
        how="paired-test",
        message=f"{one.task}: {sentence}",
        facts={**facts, "replayed": True},
    )


def _routing(one: EarlierTask, limits: Limits, routed: bool) -> list[Check]:
    before, after = one.routed_before, one.routed_after
    if before is None and after is None and not routed:
        return []
    digest = evidence_digest({"check": "routing", "task": one.task}, before, after)
    if before is None or after is None or one.n == 0:
        message = (
            f"{one.task}: the router is in use, but how well it finds this task was not measured "
            f"{'before' if before is None else 'after'} the change."
        )
        return [Check("routing", one.task, "fail", None, None, one.n, digest, "", message)]
    pairs = compare(before, after)
    base = Check(
        "routing", one.task, "pass", pairs.drop, limits.routing_margin, one.n, digest, "", "",
        pairs.facts(),
    )  # fmt: skip
    if np.array_equal(before, after):
        message = (
            f"{one.task}: without being told the task, the release answers the same "
            f"{count(one.n, 'test image')} right as before ({percent(pairs.before)})."
        )
        return [replace(base, how="replayed", message=message)]
    verdict, sentence, facts = judge_drop(
        pairs, limits.routing_margin, limits.alpha, "routed accuracy"
    )
    message = f"{one.task}: {sentence}"
    return [replace(base, verdict=verdict, how="paired-test", message=message, facts=facts)]


def _doubt(one: EarlierTask, limits: Limits) -> list[Check]:
    """Ask whether the newcomer makes choices doubtful that are right; nothing where none is."""
    if one.doubted is None or not one.doubted.any():
        return []
    before = np.zeros_like(one.doubted) if one.doubted_before is None else one.doubted_before
    pairs = compare(~before, ~one.doubted)
    least = pairs.at_least(limits.alpha)
    much = least > limits.routing_margin
    doubted = int(np.count_nonzero(one.doubted))
    message = (
        f"{one.task}: {doubted} of {count(one.n, 'test image')} reach it, but doubtful on account "
        f"of the newcomer; before, {np.count_nonzero(before)} were. With "
        f"{percent(1 - limits.alpha, 0)} confidence their share rose by "
        f"{points(max(least, 0.0))} or more; {points(limits.routing_margin)} are allowed."
    )
    digest = evidence_digest({"check": "doubt", "task": one.task}, before, one.doubted)
    facts = {"doubted": doubted, "rose_at_least": round(least, 6)}
    verdict: Verdict = "fail" if much else "pass"
    return [
        Check(
            "doubt", one.task, verdict, pairs.drop, limits.routing_margin, one.n, digest, "",
            message, facts,
        )
    ]  # fmt: skip


def _failed(name: str, one: EarlierTask, digest: str, message: str) -> Check:
    verdict: Verdict = "fail"
    return Check(name, one.task, verdict, None, None, one.n, digest, "", message)


def _digest(one: EarlierTask, declared: frozenset[str]) -> str:
    subject = {
        "check": "retention",
        "task": one.task,
        "before": _listed(one.before),
        "after": _listed(one.after),
        "test": [one.test_before, one.test_after],
        "due": one.replay_due,
        "declared": sorted(declared),
    }
    return evidence_digest(subject, one.labels, one.stored, one.replayed)


def _listed(state: Snapshot) -> list[str]:
    return [state.backbone, state.adapter, state.preprocessing, state.environment, state.canary]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _short(digest: str) -> str:
    kind, _, rest = digest.rpartition(":")
    return f"{kind}:{rest[:12]}…" if kind and len(rest) > 12 else digest[:20]
