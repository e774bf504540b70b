"""What several records say about one thing, and what its bytes say today (pure functions).

The same digest is written down by many: the ledger, tags and parameters of the registry, reports
that name what they are about, the bytes themselves. Where two of them differ, one was changed
after it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from clr.audit.document import LINKS

RESTORE = "Compare with a backup; promote nothing that rests on it until it is explained."


@dataclass(frozen=True)
class Claim:
    """One fact, by all who state it.

    Attributes:
        link: link of the chain that it is about, see `clr.audit.document.LINKS`.
        what: the thing, as the subject of a sentence: ``the adapter file``.
        said: (who, what they say), the most trustworthy first; None or empty: nothing.
        found: what was computed from the bytes now; empty: they are not there.
        computed: whether that was tried at all.
    """

    link: str
    what: str
    said: tuple[tuple[str, str | None], ...]
    found: str = ""
    computed: bool = False


@dataclass(frozen=True)
class Finding:
    """One problem of the chain, as it is in the document's verdict.

    Attributes:
        link: link of the chain.
        subject: what it is about, as registry and ledger call it.
        kind: ``changed`` (bytes), ``missing``, ``differs`` (records), or the ledger's own.
        message: what is wrong, in one sentence.
        fix: what to do about it.
    """

    link: str
    subject: str
    kind: str
    message: str
    fix: str = RESTORE

    def as_dict(self) -> dict[str, str]:
        """Return the problem as one JSON-serialisable object."""
        return asdict(self)


def compare(subject: str, claims: Iterable[Claim]) -> Iterator[Finding]:
    """Yield where what is said about one thing differs, from each other or from its bytes."""
    for claim in claims:
        said = [(who, value) for who, value in claim.said if value]
        if not said:
            continue
        first, right = said[0]
        for who, value in said[1:]:
            if value != right:
                message = f"{claim.what} is {value} by {who}, but {right} by {first}."
                yield Finding(claim.link, subject, "differs", _sentence(message))
        if claim.computed and not claim.found:
            message = f"{claim.what} is missing; by {first} it is {right}."
            yield Finding(claim.link, subject, "missing", _sentence(message))
        elif claim.computed and claim.found != right:
            message = f"{claim.what} is {claim.found} now, but {right} by {first}."
            yield Finding(claim.link, subject, "changed", _sentence(message))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return problems once each: the ledger's first, by which all is measured, then by link."""
    order = ["ledger", *LINKS]
    return sorted(dict.fromkeys(findings), key=lambda one: order.index(one.link))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
