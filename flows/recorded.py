"""What the ledger tells about versions, reviews and releases, ordered for comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clr.registry.acts import LOCAL
from clr.registry.names import ACTIVATED
from flows.activation import RETIRED, ROLLBACK

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.versions import Version

APPROVED, REJECTED = "review.approved", "review.rejected"
JUDGED, DATA_VERSIONED, DATA_REFUSED = "gate.judged", "data.versioned", "data.refused"
_MOVES = (ACTIVATED, ROLLBACK, RETIRED)
_CLOSING = ("promotion.refused", "candidate.closed")


@dataclass(frozen=True)
class Records:
    """Entries by what they are about.

    Attributes:
        registered: the newest ``adapter.registered`` by subject (``clr-<task>/<number>``).
        created: {source of a version: its registration as the server saw it}.
        decisions: reviews by subject, oldest first.
        moves: which release serves: activations, and orders to go back or retire.
        deleted: {model or version: newest entry that deleted it}.
        runs: runs of which a version was registered.
        data: {task: digests of its data that were pinned or trained on}.
        judged: {adapter digest: what the gate said of it, oldest first}.
        candidates: {model: newest act of a server on its alias ``candidate``}.
        closed: {version: newest entry that refused its promotion, or closed it as rejected}.
        refused: refusals of data.
        policy: digest of the review policy that a server loaded last; empty without one.
    """

    registered: Mapping[str, Entry]
    created: Mapping[str, Entry]
    decisions: Mapping[str, tuple[Entry, ...]]
    moves: tuple[Entry, ...]
    deleted: Mapping[str, int]
    runs: frozenset[object] = frozenset()
    data: Mapping[str, frozenset[str]] = field(default_factory=dict)
    judged: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    candidates: Mapping[str, Entry] = field(default_factory=dict)
    closed: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[Entry, ...] = ()
    policy: str = ""

    def of(self, version: Version) -> tuple[Entry, ...]:
        """Return the decisions that were given for exactly this version's source and bytes.

        Decisions without a server once named no source.
        """
        return tuple(
            one
            for one in self.decisions.get(subject(version), ())
            if one.payload.get("adapter") == version.adapter_digest
            and (
                one.payload.get("source") == version.source
                or (not one.payload.get("source") and one.authentication == LOCAL)
            )
        )


def subject(version: Version) -> str:
    """Return how the ledger calls a version."""
    return f"clr-{version.task}/{version.version}"


def read_records(entries: Iterable[Entry]) -> Records:
    """Order the entries of a ledger.

    Args:
        entries: all of them, in order.
    """
    from clr.registry.acts import Kind

    wanted = (
        *("adapter.registered", APPROVED, REJECTED, *_MOVES, JUDGED, DATA_VERSIONED, DATA_REFUSED),
        *(Kind.CREATE_VERSION, Kind.DELETE_VERSION, Kind.DELETE_MODEL),
        *(Kind.SET_ALIAS, Kind.DELETE_ALIAS, "policy.loaded", *_CLOSING),
    )
    by_action: dict[str, list[Entry]] = {action: [] for action in wanted}
    failed: set[object] = set()
    moves: list[Entry] = []
    for one in entries:
        if one.action in by_action:
            by_action[one.action].append(one)
        if one.action in _MOVES:
            moves.append(one)
        elif one.action == "act.failed":
            failed.add(one.payload.get("entry"))

    def of(*actions: str) -> list[Entry]:
        found = (one for action in actions for one in by_action[action])
        return sorted(found, key=lambda one: one.seq)

    def done(*actions: str) -> list[Entry]:
        return [one for one in of(*actions) if one.seq not in failed]

    registered = of("adapter.registered")
    policies = of("policy.loaded")
    return Records(
        registered={one.subject: one for one in registered},
        created={str(one.payload.get("source")): one for one in done(Kind.CREATE_VERSION)},
        decisions=_grouped((one.subject, one) for one in of(APPROVED, REJECTED)),
        moves=tuple(moves),
        deleted={one.subject: one.seq for one in done(Kind.DELETE_VERSION, Kind.DELETE_MODEL)},
        runs=frozenset(one.payload.get("run") for one in registered),
        data={
            task: frozenset(str(one.payload.get("data")) for one in found)
            for task, found in _grouped(
                (one.subject.removeprefix("clr-").partition("/")[0], one)
                for one in [*of(DATA_VERSIONED), *registered]
            ).items()
        },
        judged=_grouped((str(one.payload.get("adapter")), one) for one in of(JUDGED)),
        candidates={
            str(one.payload.get("model")): one
            for one in done(Kind.SET_ALIAS, Kind.DELETE_ALIAS)
            if one.payload.get("name") == "candidate"
        },
        closed={one.subject: one.seq for one in of(*_CLOSING)},
        refused=tuple(of(DATA_REFUSED)),
        policy=str(policies[-1].payload.get("digest")) if policies else "",
    )


def _grouped(pairs: Iterable[tuple[str, Entry]]) -> dict[str, tuple[Entry, ...]]:
    found: dict[str, list[Entry]] = {}
    for name, entry in pairs:
        found.setdefault(name, []).append(entry)
    return {name: tuple(entries) for name, entries in found.items()}
