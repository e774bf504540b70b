"""A trial of a challenger, as the tag ``clr.trial`` of its version describes it (pure).

The tag says what runs, the alias ``challenger`` that it runs: without the alias nothing does.
Both are the release role's to write (clr/registry/policy_aliases.py, policy_versions.py). A
share of 0 is shadow mode: the challenger answers, too, but nobody gets its answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clr.core.files import canonical_json
from clr.errors import UsageError
from clr.registry.policy_file import Reader

SCHEMA = "clr.trial/1"
MAX_SHARE = 0.1
"""Largest share of a task's items that a challenger may answer, where the policy says nothing."""

MOST = 0.9
"""No policy allows more: without answers of the champion there is nothing to compare with."""

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Trial:
    """A trial of one version against the champion of its task.

    Attributes:
        id: key of the assignment; another trial assigns anew.
        share: of the items that the challenger answers; 0: shadow mode.
        champion: digest of the adapter that it is tried against.
        started: UTC, ISO 8601.
        reason: words of who started it.
        ended: likewise; empty while it runs.
        outcome: what it says, a sentence; empty while nothing is decided.
        report: run of MLflow that has the report; empty while there is none.
    """

    id: str
    share: float
    champion: str
    started: str
    reason: str = ""
    ended: str = ""
    outcome: str = ""
    report: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= MOST:  # not a number is not, either
            raise _wrong(f"the share is not a number from 0 to {MOST}")

    def text(self) -> str:
        """Return the value of the tag."""
        return canonical_json({"schema": SCHEMA, **asdict(self)}).decode()


def percent(share: float) -> str:
    """Return a share as people read it, told from any other that can be asked for: ``10.4%``."""
    return f"{100 * share:.6g}%"


def parse_trial(text: str) -> Trial:
    """Return the trial that a tag describes.

    Raises:
        UsageError: it describes none.
    """
    try:
        raw: Any = json.loads(text)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict) or raw.pop("schema", None) != SCHEMA:
        raise _wrong("it is not of the form " + SCHEMA)
    share = raw.get("share")
    if raw.keys() != {one.name for one in fields(Trial)}:
        raise _wrong("fields are missing or unknown")
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise _wrong("the share is no number")
    if not all(isinstance(value, str) for name, value in raw.items() if name != "share"):
        raise _wrong("a field is no text")
    if not _ID.fullmatch(raw["id"]):
        raise _wrong("its id is not 32 hexadecimal digits")
    if not 0 <= share <= MOST:  # an integer may be larger than any float
        raise _wrong(f"the share is not a number from 0 to {MOST}")
    return Trial(**{**raw, "share": float(share)})


def read_max_share(raw: Any, reader: Reader) -> float:
    """Return what the policy file says under ``trials: {max_share: …}``.

    Raises:
        UsageError: an unknown field, or no share; names the line.
    """
    place: Mapping[str, Any] = reader.mapping(raw, "trials")
    reader.only(place, {"max_share"}, "trials")
    value = place.get("max_share", MAX_SHARE)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST:  # neither nan nor infinity is
        fix = f"Write a number from 0, shadow mode only, to {MOST}."
        raise reader.wrong(place, "max_share", f"max_share is {value!r}.", fix)
    return float(value)


def _wrong(why: str) -> UsageError:
    return UsageError(f"This is no trial: {why}.", fix="Start one with `clr ab start`.")
