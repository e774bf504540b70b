"""Trials on site: who answers which item, what came of it, and what that says so far.

A unit, such as a serial number, is assigned by a keyed hash of its id: the same unit always
meets the same arm of a trial, on every server and after every restart, and another trial assigns
anew. An item without a unit is a unit of its own.

What is inferred counts each unit once, by the first of its items that got a label: later
items of a unit were assigned with the first, so that they say less than their number. Of an
item that was labelled twice the first label counts. Labels must not depend on the arm: who
labels only what looked wrong, or just confirms what the server said, compares something else.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clr.core.files import canonical_json, write_atomic
from clr.errors import IntegrityBroken
from clr.gate.betting import Stream, interval
from clr.gate.sequential import ALPHA, Judged, Verdict, harms, judge, paired, randomised, shares
from clr.registry.trial import Trial
from clr.serving.journal import reading

CHAMPION, CHALLENGER = "champion", "challenger"
_ARMS = (CHAMPION, CHALLENGER)


@dataclass(frozen=True)
class Labelled:
    """A unit whose first label came.

    Attributes:
        arm: whose answer was given.
        share: probability that the unit met the challenger.
        champion: the champion's answer; empty: it was not asked.
        challenger: the challenger's answer; empty: it was not asked.
        label: what it really was.
        time: when the label came, seconds since 1970.
    """

    arm: str
    share: float
    champion: str
    challenger: str
    label: str
    time: float

    @property
    def right(self) -> bool:
        """Whether the answer that was given was right."""
        return self.label == (self.challenger if self.arm == CHALLENGER else self.champion)


@dataclass(frozen=True)
class Arm:
    """One arm of a trial.

    Attributes:
        served: items whose answers came from it, of those that the journal still has; in
            shadow mode the challenger's reached nobody.
        labelled: units that count.
        right: of them.
        low, high: confidence sequence of its success rate.
    """

    served: int
    labelled: int
    right: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        """Share of right answers; None without labels."""
        return self.right / self.labelled if self.labelled else None


@dataclass(frozen=True)
class Figures:
    """A trial so far.

    Attributes:
        champion, challenger: the arms.
        gain: what is known about the difference of their success rates.
        discordant: (champion alone right, challenger alone right) of pairs; None: no pairs.
        first, last: when the first and last item were answered, seconds since 1970; 0: none.
    """

    champion: Arm
    challenger: Arm
    gain: Judged
    discordant: tuple[int, int] | None
    first: float
    last: float

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, rates included."""
        plain = asdict(self)
        for name in _ARMS:
            plain[name]["rate"] = getattr(self, name).rate
        plain["gain"]["verdict"] = self.gain.verdict.value
        return plain


def unit_of(trial: Trial, unit: str | None, request_id: str) -> str:
    """Return the unit of an item as a trial knows it: 32 hexadecimal digits.

    It is HMAC-SHA256 under the trial's id (RFC 2104), so that what is kept of a trial has no
    serial number; the answers of the journal have the unit as it was sent.
    """
    kind, text = ("unit", unit) if unit else ("request", request_id)
    return hmac.digest(bytes.fromhex(trial.id), f"{kind}:{text}".encode(), "sha256").hex()[:32]


def meets_challenger(trial: Trial, unit: str) -> bool:
    """Say whether a unit meets the challenger: its hash, as a fraction of 2**64, is below s."""
    return int(unit[:16], 16) < trial.share * 2**64


def labelled(state: Path, trial: Trial) -> Iterator[Labelled]:
    """Yield the units that count, in the order in which their first labels came.

    Args:
        state: ``CLR_HOME``.
        trial: of which.
    """
    query = """
        SELECT t.unit, t.arm, t.share, t.champion, t.challenger, f.label, f.time
        FROM feedback f CROSS JOIN tried t USING (request_id) -- in this order: labels are few
        WHERE t.trial = ? ORDER BY f.rowid
    """
    seen: set[str] = set()
    with reading(state) as database:
        for unit, *known in database.execute(query, (trial.id,)):
            if unit not in seen:
                seen.add(unit)
                yield Labelled(*known)


def stream(trial: Trial, units: Sequence[Labelled]) -> Stream:
    """Return the gains of a trial for clr/gate/sequential.py.

    In shadow mode both arms answered each unit, which are pairs; else chance chose the arm.
    """
    if not trial.share:
        before = np.asarray([one.champion == one.label for one in units], dtype=float)
        return paired(before, [one.challenger == one.label for one in units])
    arms = [one.arm == CHALLENGER for one in units]
    return randomised(arms, [one.right for one in units], [one.share for one in units])


def figures(state: Path, trial: Trial, units: Sequence[Labelled] | None = None) -> Figures:
    """Return a trial so far.

    Args:
        state: ``CLR_HOME``.
        trial: which.
        units: of `labelled`, if they are read already.
    """
    units = list(labelled(state, trial)) if units is None else units
    served, first, last = _served(state, trial)
    if not trial.share:  # the challenger answered everything, too
        served[CHALLENGER] = served[CHAMPION]
    right = {
        CHAMPION: [one.champion == one.label for one in units if one.champion],
        CHALLENGER: [one.challenger == one.label for one in units if one.challenger],
    }
    discordant = None
    if not trial.share:
        pairs = list(zip(right[CHAMPION], right[CHALLENGER], strict=True))
        discordant = pairs.count((True, False)), pairs.count((False, True))
    champion, challenger = (_arm(served[name], right[name]) for name in _ARMS)
    gain = judge(stream(trial, units))
    return Figures(champion, challenger, gain, discordant, first, last)


def _served(state: Path, trial: Trial) -> tuple[dict[str, int], float, float]:
    query = "SELECT arm, count(*), min(time), max(time) FROM tried WHERE trial = ? GROUP BY arm"
    with reading(state) as database:
        rows = database.execute(query, (trial.id,)).fetchall()
    counts = {**dict.fromkeys(_ARMS, 0), **{arm: count for arm, count, _, _ in rows}}
    first, last = min((r[2] for r in rows), default=0.0), max((r[3] for r in rows), default=0.0)
    return counts, first, last


def _arm(served: int, right: Sequence[bool]) -> Arm:
    low, high = interval(shares(np.asarray(right, dtype=float)), ALPHA)
    return Arm(served, len(right), sum(right), low, high)


@dataclass(frozen=True)
class Stopped:
    """A trial that the server ended by itself: everybody gets the champion.

    Attributes:
        trial: its id.
        time: seconds since 1970.
        sentence: why.
        figures: as `Figures.as_dict` gave them.
    """

    trial: str
    time: float
    sentence: str
    figures: dict[str, Any]


def harmful(state: Path, trial: Trial) -> Stopped | None:
    """Return why a trial has to end now, if it does: its challenger is worse."""
    units = list(labelled(state, trial))
    if not harms(stream(trial, units)):
        return None
    told = figures(state, trial, units)
    return Stopped(trial.id, time.time(), sentence(told.gain), told.as_dict())


def said(verdict: Verdict) -> str:
    """Return how `sentence` begins under a verdict."""
    return {
        Verdict.HARM: "The challenger is worse",
        Verdict.BETTER: "The challenger is better",
        Verdict.FUTILE: "No gain worth a change is left to be found",
        Verdict.UNDECIDED: "Nothing is decided yet",
    }[verdict]


def sentence(gain: Judged) -> str:
    """Say what is known about the gain, for people."""
    points = f"{100 * gain.estimate:+.1f} points"
    ends = f"{100 * (1 - gain.alpha):.0f} %: {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    verdict = said(gain.verdict)
    if not gain.n:
        return f"{verdict}: no answer has a label."
    return f"{verdict}: {points} ({ends}, however often one looks) after {gain.n} labelled units."


def _stop_file(state: Path, trial_id: str) -> Path:
    return state / "serving" / "stopped" / f"{trial_id}.json"


def write_stop(state: Path, stopped: Stopped) -> None:
    """Keep that a trial was stopped, for the next start and for who ends it in the registry."""
    path = _stop_file(state, stopped.trial)
    write_atomic(path, canonical_json(asdict(stopped)))


def read_stop(state: Path, trial: Trial) -> Stopped | None:
    """Return why the server stopped a trial; None: it did not.

    Raises:
        IntegrityBroken: the file that says so cannot be read.
    """
    path = _stop_file(state, trial.id)
    try:
        return Stopped(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise IntegrityBroken(
            f"{path} cannot be read: {error}.",
            fix="Remove it; it is written again if the challenger is still worse.",
        ) from error
