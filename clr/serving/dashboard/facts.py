"""What the dashboard shows: registry, journal, ledger and engine, read together every few seconds.

What cannot be read is said on the page, and the rest is shown: the journal is here even where the
registry is away. The server's account may only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter

from clr.errors import ClrError
from clr.registry.faults import redact
from clr.roi import Case, Field
from clr.serving.production import Production, produced, read_production
from clr.serving.upkeep import Upkeep, as_rows, read_upkeep

if TYPE_CHECKING:
    from pathlib import Path

    from clr.audit.chain import Entry
    from clr.audit.ledger import Ledger
    from clr.registry.overview import Overview
    from clr.registry.release import Release
    from clr.registry.store import Registry
    from clr.registry.versions import Version
    from clr.settings import Settings

T = TypeVar("T")
FRESH_SECONDS, IDLE = 10.0, 10.0
"""So old may be what is shown: this many seconds, or times as long as reading it took, so that
pages that are left open take no more than a tenth of a core from who reads images."""

UPKEEP, JOURNAL, REGISTRY, LEDGER = SOURCES = ("Upkeep", "Journal", "Registry", "Ledger")
"""What is read for all tasks together; a problem begins with one of these, or with its task."""

MOVES = ("release.activated", "release.rollback", "task.retired")


@dataclass(frozen=True)
class Task:
    """One task as the dashboard shows it.

    Attributes:
        name: of the task.
        champion: version that serves; 0: none does.
        accuracy: of that version on its test images; None: unknown.
        versions: as rows, newest first.
        case: business case with what production made known; empty: unknown.
        told: what production tells (`clr.serving.production.produced`); empty: nothing yet.
        trial: of a challenger, as JSON with its version; empty: none.
        drift: what the server found of the version that serves: {kind: {values, alarm, …}} for
            ``features`` and ``confidence``; empty: nothing was watched.
        upkeep: records of people, newest first.
    """

    name: str
    champion: int = 0
    accuracy: float | None = None
    versions: tuple[dict[str, Any], ...] = ()
    case: Case = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    trial: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    upkeep: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Facts:
    """All of it.

    Attributes:
        at: when it was read, UTC, ISO 8601.
        tasks: by name.
        releases: acts that changed what serves, or, without a ledger, the releases as they were
            made; newest first.
        registry: address of the registry's pages, without a password; empty: it has none.
        problems: what could not be read, a sentence each.
    """

    at: str
    tasks: Mapping[str, Task] = field(default_factory=dict)
    releases: tuple[dict[str, Any], ...] = ()
    registry: str = ""
    problems: tuple[str, ...] = ()


class Reader:
    """Reads the facts of one installation, no more often than `FRESH_SECONDS` and `IDLE` say.

    Attributes:
        alone: whom to ask for a thread before `facts` is called in it: one caller at a time,
            so that pages that wait for a registry hold no threads that read images.
    """

    def __init__(self, settings: Settings) -> None:
        """Read nothing yet."""
        self._settings = settings
        self.alone = CapacityLimiter(1)
        self._kept: tuple[float, Facts] | None = None
        self._cases: dict[str, Case] = {}

    def facts(self) -> Facts:
        """Return what is known now."""
        began = time.monotonic()
        if self._kept is None or began > self._kept[0]:
            read = self._read()
            ended = time.monotonic()
            self._kept = ended + max(FRESH_SECONDS, IDLE * (ended - began)), read
        return self._kept[1]

    def _read(self) -> Facts:
        problems: list[str] = []
        state = self._settings.state
        upkeep: dict[str, Upkeep] = self._try(
            lambda: read_upkeep(self._ledger), {}, UPKEEP, problems
        )
        production: dict[str, Production] = self._try(
            lambda: read_production(state, upkeep), {}, JOURNAL, problems
        )
        known = self._try(self._registered, None, REGISTRY, problems)
        moves: list[dict[str, Any]] = self._try(self._moves, [], LEDGER, problems)
        tasks: dict[str, Task] = {}
        releases: list[dict[str, Any]] = moves
        if known is not None:
            registry, there, release = known
            for name in there.versions:
                seen = upkeep.get(name, Upkeep()), production.get(name)
                tasks[name] = self._task(registry, there, release, name, *seen, problems)
            releases = moves or _made(there)
        for name, one in production.items():  # which the registry, being away, does not tell of
            if name not in tasks:
                told = produced({}, one, 0)[1]
                tasks[name] = Task(name, told=told)
        return Facts(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            tasks=dict(sorted(tasks.items())),
            releases=tuple(releases[:50]),
            registry=redact(self._settings.registry),
            problems=tuple(problems),
        )

    def _try(self, read: Callable[[], T], nothing: T, what: str, problems: list[str]) -> T:
        try:
            return read()
        except ClrError as error:
            problems.append(f"{what}: {error.message}")
            return nothing

    @cached_property
    def _ledger(self) -> Ledger:
        from clr.audit.ledger import open_ledger

        return open_ledger(self._settings.state, self._settings.ledger_url)

    def _registered(self) -> tuple[Registry, Overview, Release | None]:
        from clr.registry.overview import overview
        from clr.registry.releases import current_release
        from clr.registry.store import open_registry

        registry = open_registry(self._settings)
        return registry, overview(registry), current_release(registry)

    def _moves(self) -> list[dict[str, Any]]:
        entries: list[Entry] = [one for act in MOVES for one in self._ledger.entries(action=act)]
        return [_move(one) for one in sorted(entries, key=lambda one: -one.seq)]

    def _task(
        self,
        registry: Registry,
        there: Overview,
        release: Release | None,
        name: str,
        upkeep: Upkeep,
        production: Production | None,
        problems: list[str],
    ) -> Task:
        known = there.versions[name]
        champion = release.tasks[name].version if release and name in release.tasks else 0
        serving = next((one for one in known if one.version == champion), None)
        shown = serving or (known[-1] if known else None)
        case: Case = {}
        if shown is not None:
            run = shown.run_id
            case = self._try(lambda: self._case(registry, run), {}, name, problems)
        told: Mapping[str, Any] = {}
        if production is not None:
            now, told = produced(case, production, champion)
            case = now if "accuracy" in case else case
        return Task(
            name=name,
            champion=champion,
            accuracy=shown.accuracy if shown else None,
            versions=tuple(_version(one) for one in reversed(known)),
            case=case,
            told=told,
            trial=_trial(known),
            drift=_drift(self._settings.state, name, champion),
            upkeep=tuple(as_rows({name: upkeep})[:20]),
        )

    def _case(self, registry: Registry, run: str) -> dict[str, Field]:
        """Return the business case of an onboarding, which never changes."""
        from clr.registry.fetch import fetch_json

        if run not in self._cases:
            self._cases[run] = fetch_json(registry, run, "roi.json")
        return self._cases[run]


def _version(one: Version) -> dict[str, Any]:
    return {
        "version": one.version,
        "made": _utc(one.created / 1000),
        "aliases": one.aliases,
        "verdict": one.tags.get("clr.verdict", ""),
        "accuracy": one.tags.get("clr.accuracy", ""),
        "retention": one.tags.get("clr.retention", ""),
        "review": one.review,
        "by": one.tags.get("clr.reviewed_by", ""),
        "adapter": one.adapter_digest,
        "run": one.run_id,
    }


def _trial(known: tuple[Version, ...]) -> dict[str, Any]:
    """Return the trial of the version that has the alias ``challenger``."""
    from clr.registry.names import TRIAL
    from clr.registry.trial import parse_trial

    for one in known:
        if "challenger" in one.aliases and TRIAL in one.tags:
            try:
                return {"version": one.version, **asdict(parse_trial(one.tags[TRIAL]))}
            except ClrError:  # the server's log says so
                return {}
    return {}


def _move(entry: Entry) -> dict[str, Any]:
    """Return an act that changed what serves as a row; `what` says which versions came with it."""
    joined = entry.payload.get("joined", ())
    subject = entry.subject.removeprefix("clr-").replace("/", " ")
    return {
        "time": entry.time,
        "act": entry.action.replace(".", " "),
        "what": ", ".join([subject, *(f"{one['task']} {one['version']}" for one in joined)]),
        "by": entry.actor,
        "reason": entry.payload.get("reason", ""),
        "entry": entry.seq,
    }


def _drift(state: Path, task: str, champion: int) -> dict[str, Any]:
    from clr.serving.drift import KINDS, read_drift

    found = read_drift(state).get(task, {})
    if not champion or found.get("version") != champion:
        return {}
    return {kind: _alarm(found[kind]) for kind in KINDS if kind in found}


def _alarm(found: Mapping[str, Any]) -> dict[str, Any]:
    since = found["alarm"]
    return {**found, "alarm": "" if since is None else _utc(since)}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _made(there: Overview) -> list[dict[str, Any]]:
    """Return the releases as the registry has them, where there is no ledger to ask."""
    serving = there.release_aliases.get("champion")
    return [
        {
            "time": _utc(one.created / 1000),
            "act": "in force" if one.version == serving else "made",
            "what": f"release {one.version}",
            "by": "",
            "reason": "",
            "entry": None,
        }
        for one in sorted(there.releases, key=lambda one: -one.version)
    ]
