"""The questions about the task that is offered: is it worth it, affordable, and traceable?"""

from __future__ import annotations

import re
from math import isfinite

import numpy as np

from clr.gate.checks import (
    Check,
    Pairs,
    Verdict,
    compare_answers,
    count,
    percent,
    points,
    signed,
)
from clr.gate.evidence import PROVENANCE, Ints, Limits, Newcomer, evidence_digest
from clr.gate.statistics import paired_interval, wilson_interval

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}(\.dir)?|git:[0-9a-f]{40}")


def judge_newcomer(one: Newcomer, limits: Limits) -> list[Check]:
    """Return the checks of the newcomer: improvement, own champion, budgets, provenance."""
    champion = [] if one.champion is None else [_own_champion(one, one.champion, limits)]
    return [_improvement(one, limits), *champion, *_budgets(one, limits), _provenance(one)]


def _improvement(one: Newcomer, limits: Limits) -> Check:
    """Ask whether the adapter is better than what costs nothing: linear probe, majority class."""
    probe = compare_answers(one.labels, one.probe, one.predicted)
    majority = compare_answers(one.labels, one.majority, one.predicted)
    verdict, judgement = _against_baselines(probe, majority, limits)
    low, high = paired_interval(probe.regressed, probe.repaired, probe.n, 2 * limits.alpha)
    message = (
        f"{one.task}: {percent(probe.after)} of {count(one.n, 'test image')} right, the linear "
        f"probe {percent(probe.before)}, the majority class {percent(majority.before)}. "
        f"{signed(-probe.drop)} points over the probe ({percent(1 - 2 * limits.alpha, 0)} "
        f"interval {signed(low)} to {signed(high)}): {judgement}"
    )
    facts = {
        "accuracy": round(probe.after, 6),
        "accuracy_ci": [round(end, 6) for end in _accuracy_interval(probe)],
        "linear_probe": round(probe.before, 6),
        "majority": round(majority.before, 6),
        "routed": None if one.routed is None else round(float(np.mean(one.routed)), 6),
        "gain": round(-probe.drop, 6),
        "gain_ci": [round(low, 6), round(high, 6)],
        "regressed": probe.regressed,
        "repaired": probe.repaired,
    }
    digest = evidence_digest(
        {"check": "improvement", "task": one.task},
        one.labels,
        one.predicted,
        one.probe,
        one.majority,
    )
    return Check(
        "improvement", one.task, verdict, -probe.drop, 0.0, one.n, digest, "", message, facts
    )


def _against_baselines(probe: Pairs, majority: Pairs, limits: Limits) -> tuple[Verdict, str]:
    alpha = limits.alpha
    if majority.at_least(alpha) > 0:
        return "fail", "worse than always naming the most frequent class."
    if probe.at_least(alpha) > 0:
        return "fail", "shown to be worse than the probe."
    if probe.at_most(alpha) < 0:
        return "pass", "shown to be better than the probe."
    beats_majority = majority.at_most(alpha) < 0
    if beats_majority and probe.regressed == 0:
        return "pass", "every image that the probe has right is right here too."
    if beats_majority and probe.at_most(alpha) < limits.margin:
        return "pass", f"not worse than the probe by more than {points(limits.margin)}."
    if not beats_majority:
        return "inconclusive", "not shown to be better than always naming the most frequent class."
    return "inconclusive", "too few test images to tell whether it is better or worse."


def _own_champion(one: Newcomer, champion: Ints, limits: Limits) -> Check:
    """Ask whether the new version is worse than the version of the same task in use."""
    pairs = compare_answers(one.labels, champion, one.predicted)
    worse = pairs.at_least(limits.alpha) > 0
    if one.dropped:
        judgement = f"it does not know {', '.join(one.dropped)} any more"
    elif worse:
        judgement = "shown to be worse than the version in use"
    elif pairs.drop > 0:
        judgement = "lower than the version in use, by no more than chance explains"
    elif pairs.drop == 0:
        judgement = "as good as the version in use"
    else:
        judgement = "better than the version in use"
    message = (
        f"{one.task}: the version in use has {percent(pairs.before)} right on the same images, "
        f"this one {percent(pairs.after)} ({pairs.regressed} turned wrong, {pairs.repaired} turned "
        f"right): {judgement}."
    )
    about = {"dropped": list(one.dropped)} if one.dropped else {}
    digest = evidence_digest(
        {"check": "own-champion", "task": one.task} | about, one.labels, one.predicted, champion
    )
    return Check(
        "own-champion",
        one.task,
        "fail" if worse or one.dropped else "pass",
        -pairs.drop,
        0.0,
        one.n,
        digest,
        "",
        message,
        {**pairs.facts(), **about},
    )


def _budgets(one: Newcomer, limits: Limits) -> list[Check]:
    megabytes = one.adapter_bytes / 1e6
    ratio = _ratio(one.latency_p95_ms, one.bare_latency_p95_ms)
    return [
        _budget(
            one,
            "parameters",
            one.params_pct,
            limits.max_params_pct,
            f"the adapter adds {one.params_pct:.2f} % of the backbone's parameters",
            f"{limits.max_params_pct:g} %",
        ),
        _budget(
            one,
            "bytes",
            megabytes,
            limits.max_adapter_mb,
            f"the adapter file has {megabytes:.3f} MB",
            f"{limits.max_adapter_mb:g} MB",
        ),
        _budget(
            one,
            "latency",
            ratio,
            limits.max_latency_ratio,
            f"95 % of predictions take at most {one.latency_p95_ms:.1f} ms, {ratio:.2f} times the "
            f"bare backbone's {one.bare_latency_p95_ms:.1f} ms",
            f"{limits.max_latency_ratio:g} times",
        ),
    ]


def _budget(
    one: Newcomer, name: str, value: float, limit: float, sentence: str, allowed: str
) -> Check:
    measured = isfinite(value) and value >= 0
    within = measured and value <= limit
    message = (
        f"{one.task}: {sentence}; {allowed} {'is' if limit == 1 else 'are'} allowed."
        if measured
        else f"{one.task}: the {name} were not measured; {allowed} are allowed."
    )
    digest = evidence_digest({"check": name, "task": one.task, "value": repr(float(value))})
    verdict: Verdict = "pass" if within else "fail"
    return Check(name, one.task, verdict, value, limit, 0, digest, "", message)


def _provenance(one: Newcomer) -> Check:
    """Ask whether it is on record what the adapter was made from."""
    bad = [name for name in PROVENANCE if not _DIGEST.fullmatch(str(one.digests.get(name) or ""))]
    missing = [name for name in bad if not one.digests.get(name)]
    damaged = [name for name in bad if one.digests.get(name)]
    parts = []
    if missing:
        parts.append(f"no digest of {', '.join(missing)} is on record")
    if damaged:
        parts.append(f"what is on record for {', '.join(damaged)} is no digest")
    message = f"{one.task}: " + (
        f"{' and '.join(parts)}, so it cannot be told what the adapter was made from."
        if parts
        else f"the digests of {', '.join(PROVENANCE[:-1])} and {PROVENANCE[-1]} are on record."
    )
    recorded = {name: str(one.digests.get(name) or "") for name in PROVENANCE}
    digest = evidence_digest({"check": "provenance", "task": one.task, "digests": recorded})
    return Check(
        "provenance",
        one.task,
        "fail" if bad else "pass",
        float(len(PROVENANCE) - len(bad)),
        float(len(PROVENANCE)),
        0,
        digest,
        "",
        message,
        {"missing": missing, "damaged": damaged},
    )


def _ratio(value: float, base: float) -> float:
    measured = isfinite(value) and isfinite(base) and value > 0 and base > 0
    return value / base if measured else float("nan")


def _accuracy_interval(pairs: Pairs) -> tuple[float, float]:
    return wilson_interval(round(pairs.after * pairs.n), pairs.n)
