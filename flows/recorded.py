"""What the ledger tells about versions, reviews and releases, ordered for comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clr.registry.acts import LOCAL
from flows.activation import ACTIVATED, RETIRED, ROLLBACK

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.versions import Version

APPROVED, REJECTED = "review.approved", "review.rejected"


@dataclass(frozen=True)
class Records:
    """Entries by what they are about.

    Attributes:
        registered: the newest ``adapter.registered`` by subject (``clr-<task>/<number>``).
        created: {source of a version: its registration as the server saw it}.
        decisions: reviews by subject, oldest first.
        moves: which release serves: activations, and orders to go back or retire.
        deleted: {model or version: newest entry that deleted it}.
    """

    registered: Mapping[str, Entry]
    created: Mapping[str, Entry]
    decisions: Mapping[str, tuple[Entry, ...]]
    moves: tuple[Entry, ...]
    deleted: Mapping[str, int]

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

    registered: dict[str, Entry] = {}
    created: list[Entry] = []
    decisions: dict[str, list[Entry]] = {}
    moves: list[Entry] = []
    deleted: list[Entry] = []
    failed: set[object] = set()
    for one in entries:
        if one.action == "adapter.registered":
            registered[one.subject] = one
        elif one.action in (APPROVED, REJECTED):
            decisions.setdefault(one.subject, []).append(one)
        elif one.action in (ACTIVATED, ROLLBACK, RETIRED):
            moves.append(one)
        elif one.action == Kind.CREATE_VERSION:
            created.append(one)
        elif one.action in (Kind.DELETE_VERSION, Kind.DELETE_MODEL):
            deleted.append(one)
        elif one.action == "act.failed":
            failed.add(one.payload.get("entry"))
    return Records(
        registered,
        {str(one.payload.get("source")): one for one in created if one.seq not in failed},
        {name: tuple(found) for name, found in decisions.items()},
        tuple(moves),
        {one.subject: one.seq for one in deleted if one.seq not in failed},
    )
