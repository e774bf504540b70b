"""How long files are kept at least: the policy says it, and no setting can undercut it.

The defaults are what Regulation (EU) 2024/1689 asks of providers of high-risk systems: logs for
six months (Article 19(1)), documentation for ten years (Article 18(1)). What a version, a
release or the ledger names is kept for good in any case, and so is the ledger itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from clr.errors import UsageError
from clr.registry.policy_file import Reader

if TYPE_CHECKING:
    from clr.settings import Settings

MAX_DAYS = 36_525


@dataclass(frozen=True)
class Retention:
    """Days that something is kept at least; part of the policy.

    Attributes:
        logs_days: older parts of the processes' logs, and crash reports.
        evidence_days: files of runs and models that somebody deleted from the registry.
    """

    logs_days: int = 184
    evidence_days: int = 3653


def read_retention(raw: Any, reader: Reader) -> Retention:
    """Return what the policy file says under ``retention``.

    Raises:
        UsageError: an unknown field, or no number of days; names the line.
    """
    place = reader.mapping(raw, "retention")
    known = {one.name: one.default for one in fields(Retention)}
    reader.only(place, known.keys(), "retention")
    return Retention(**{name: _days(place, name, least, reader) for name, least in known.items()})


def _days(place: Any, name: str, default: Any, reader: Reader) -> int:
    value = place.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DAYS:
        fix = f"Write a whole number of days from 1 to {MAX_DAYS}."
        raise reader.wrong(place, name, f"{name} is {value!r}.", fix)
    return int(value)


def kept(settings: Settings, least: Retention) -> Retention:
    """Return how long files are kept: what the settings say, which is no less than the policy.

    Raises:
        UsageError: a setting undercuts the policy.
    """
    asked = {"logs_days": settings.keep_logs_days, "evidence_days": settings.keep_evidence_days}
    for name, days in asked.items():
        minimum = getattr(least, name)
        if days and days < minimum:
            setting = f"CLR_KEEP_{name.upper()}"
            raise UsageError(
                f"{setting} is {days}, but the policy keeps them for at least {minimum} days.",
                fix=f"Unset {setting}, or have retention.{name} changed in mlflow/policy.yaml, "
                "which the ledger records.",
                setting=setting,
            )
    return Retention(**{name: days or getattr(least, name) for name, days in asked.items()})
