"""The sentences of a pilot's page in English and Japanese, with their figures (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clr.gate.checks import signed
from clr.pilot.labels import WORDS

__all__ = [
    "WORDS",
    "count",
    "headline",
    "money",
    "months",
    "next_steps",
    "percent",
    "points",
    "result_of",
    "summary",
    "threshold_of",
]

MOST = 1_000_000
"""Images, beyond which a law's number has more digits than meaning."""

Facts = Mapping[str, Any]
Ends = Mapping[str, float | None]


def percent(share: float, language: str) -> str:
    """Return a share as a percentage, to a tenth."""
    return f"{100 * share:.1f}{' %' if language == 'en' else '%'}"


def points(difference: float, language: str) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{signed(difference)}{' points' if language == 'en' else 'ポイント'}"


def count(number: float, language: str, thing: str = "image") -> str:
    """Return a number of things."""
    if language == "en":
        return f"{number:,.0f} {thing}{'' if number == 1 else 's'}"
    return f"{number:,.0f}{ {'image': '枚', 'decision': '件', 'task': '件'}[thing] }"


def months(value: float | None, language: str) -> str:
    """Return a number of months; None is never."""
    if value is None:
        return WORDS[language]["never"]
    shown = f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:,.0f}"
    return f"{shown}{' months' if language == 'en' else 'か月'}"


def money(value: float | None, unit: str, language: str) -> str:
    """Return an amount with its unit as it is: a currency, or another word."""
    if value is None:
        return WORDS[language]["never"]
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.4g}"
    shown = shown.replace("-", "−")
    return f"{shown}%" if unit == "%" and language == "ja" else f"{shown} {unit}".strip()


def headline(document: Facts, language: str) -> str:
    """Return the decision as a heading."""
    return WORDS[language][f"{document['decision']}:{document['next']}"].format(
        title=document["title"]
    )


def summary(document: Facts, language: str) -> str:
    """Return the pilot in one or two sentences."""
    found = {one["name"]: one for one in document["criteria"]}
    gain, words = found["gain"], WORDS[language]
    before = 1 - gain["today"]["error"]["middle"] if "today" in gain else None
    was = gain["probe_accuracy"]["middle"] if before is None else before
    return words["summary"].format(
        against=words[f"against:{gain['against']}"],
        before=percent(was, language),
        after=percent(gain["accuracy"]["middle"], language),
        images=count(gain["n"], language),
        met=sum(one["answer"] == "met" for one in document["criteria"]),
        of=len(document["criteria"]),
    )


def threshold_of(criterion: Facts, language: str) -> str:
    """Return what a criterion asks for."""
    text = WORDS[language][f"ask:{criterion['name']}"]
    return text.format(
        target=percent(criterion.get("target", 0), language),
        horizon=months(criterion["horizon_months"], language)
        if "horizon_months" in criterion
        else WORDS[language]["horizon"],
    )


def result_of(criterion: Facts, language: str) -> str:
    """Return what was found, in figures."""
    return _RESULTS[criterion["name"]](criterion, language)


def _gain(one: Facts, language: str) -> str:
    words = WORDS[language]
    if "gain" not in one:
        needed = one["images_needed"]
        if needed is None:
            return words["site:no gain" if one["gain_seen"] <= 0 else "site:too small"]
        return words["site:needed"].format(images=count(needed, language))
    text = words["gained"].format(
        gain=points(one["gain"]["middle"], language),
        low=signed(one["gain"]["low"]),
        high=signed(one["gain"]["high"]),
        against=words[f"against:{one['against']}"],
        images=count(one["n"], language),
    )
    if one["answer"] == "unknown":
        text += words["gain:unknown"]
    return text


def _retention(one: Facts, language: str) -> str:
    words = WORDS[language]
    if one["answer"] == "met":
        if not one["earlier_tasks"]:
            return words["kept:none"]
        return words["kept"].format(
            kept=one["kept"], tasks=count(one["earlier_tasks"], language, "task")
        )
    failed = (name.partition(":") for name in one["failed"])
    named = [
        words["check"].format(check=words.get(f"check:{check}", check), task=task)
        for check, _, task in failed
    ]
    return words[f"gate:{one['verdict']}"].format(failed=_listed(named, language))


def _listed(names: Sequence[str], language: str) -> str:
    return ("、" if language == "ja" else ", ").join(names)


def _data(one: Facts, language: str) -> str:
    words = WORDS[language]
    if "verdict" not in one:
        return words["data:none"].format(images=count(one["images"], language))
    low, middle, high = (_bound(one["needed"][end], language) for end in ("low", "middle", "high"))
    if one["verdict"] == "not reachable":
        return words["data:not reachable"].format(most=percent(one["asymptote"]["high"], language))
    return words["data:needed"].format(
        middle=middle, low=low, high=high, images=count(one["images"], language)
    )


def _bound(images: float | None, language: str) -> str:
    words = WORDS[language]
    if images is None:
        return words["no bound"]
    if images > MOST:
        return words["over"].format(images=count(MOST, language))
    return count(images, language)


def _payback(one: Facts, language: str) -> str:
    words = WORDS[language]
    if "months" not in one:
        return words["payback:missing"].format(
            missing=_listed([words[f"assume:{name}"] for name in one["missing"]], language)
        )
    ends = {end: months(one["months"][end], language) for end in ("low", "middle", "high")}
    return words["paid back"].format(**ends)


_RESULTS = {
    "gain": _gain,
    "retention": _retention,
    "data": _data,
    "payback": _payback,
    "site": _gain,
}


def next_steps(document: Facts, language: str) -> list[str]:
    """Return what to do now: for the decision, then for every criterion that is not met."""
    words = WORDS[language]
    found = [words[f"next:{document['next']}"]]
    for one in document["criteria"]:
        key = f"do:{one['name']}:{'missing' if 'missing' in one else one['answer']}"
        if key in words and not (one["name"] == "site" and "gain" not in one):
            found.append(words[key])
    return found
