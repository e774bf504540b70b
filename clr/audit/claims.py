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
        loose: the same, of those who may differ in an honest history: a run that was cut off and
            taken up again, after an upgrade say.
        found: what was computed from the bytes now; empty: they are not there.
        computed: whether that was tried at all.
    """

    link: str
    what: str
    said: tuple[tuple[str, str | None], ...]
    loose: tuple[tuple[str, str | None], ...] = ()
    found: str = ""
    computed: bool = False


@dataclass(frozen=True)
class BrokenLink:
    """One problem of the chain, as it is in the document's verdict.

    Attributes:
        link: link of the chain.
        subject: what it is about, as registry and ledger call it, or a file.
        kind: ``changed`` (bytes), ``missing``, ``differs`` (records), ``review``, or what
            `clr verify` calls it.
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


def compare(subject: str, claims: Iterable[Claim]) -> Iterator[BrokenLink]:
    """Yield where what is said about one thing differs, from each other or from its bytes."""
    for claim in claims:
        said = _heard(claim.said)
        if not said:
            continue
        first, right = said[0]
        for who, value in said[1:]:
            if value != right:
                message = f"{claim.what} is {value} by {who}, but {right} by {first}."
                yield BrokenLink(claim.link, subject, "differs", _sentence(message))
        if claim.computed and not claim.found:
            message = f"{claim.what} is missing; by {first} it is {right}."
            yield BrokenLink(claim.link, subject, "missing", _sentence(message))
        elif claim.computed and claim.found != right:
            message = f"{claim.what} is {claim.found} now, but {right} by {first}."
            yield BrokenLink(claim.link, subject, "changed", _sentence(message))


def remarks(claims: Iterable[Claim]) -> Iterator[str]:
    """Yield differences that an honest history may have, too."""
    for claim in claims:
        said, loose = _heard(claim.said), _heard(claim.loose)
        found = [("the bytes now", claim.found)] if claim.found and not said else []
        everyone = [*said[:1], *loose, *found]
        for who, value in everyone[1:]:
            if value != everyone[0][1]:
                yield f"{claim.what} is {value} by {who}, but {everyone[0][1]} by {everyone[0][0]}"


def in_order(problems: Iterable[BrokenLink]) -> list[BrokenLink]:
    """Return problems once each: the ledger's first, by which all is measured, then by link."""
    order = ["ledger", *LINKS]
    return sorted(dict.fromkeys(problems), key=lambda one: order.index(one.link))


def _heard(said: Iterable[tuple[str, str | None]]) -> list[tuple[str, str]]:
    return [(who, value) for who, value in said if value]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
