"""Ledger entries of the server: before an act, of a refusal, and of an act that then failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from clr.audit.ledger import Ledger
from clr.errors import ClrError
from clr.registry.acts import AUTHENTICATED, Act, Decision, Kind, Principal, State
from clr.registry.names import REASON, REVIEW
from clr.registry.reviews import record_review
from clr.registry.roles import Policy

LOG = logging.getLogger("mlflow.clr")

REGISTRY = frozenset(
    {
        Kind.CREATE_MODEL,
        Kind.UPDATE_MODEL,
        Kind.RENAME_MODEL,
        Kind.DELETE_MODEL,
        Kind.SET_MODEL_TAG,
        Kind.DELETE_MODEL_TAG,
        Kind.CREATE_VERSION,
        Kind.COPY_VERSION,
        Kind.UPDATE_VERSION,
        Kind.STAGE_VERSION,
        Kind.DELETE_VERSION,
        Kind.SET_VERSION_TAG,
        Kind.DELETE_VERSION_TAG,
        Kind.SET_ALIAS,
        Kind.DELETE_ALIAS,
    }
)
"""Acts that wait for their turn."""

RECORDED = REGISTRY | {Kind.WEBHOOK, Kind.MANAGE_USER, Kind.SET_PASSWORD, Kind.OTHER}
"""Acts with an entry each; runs and files have too many, and their digests are recorded later."""

_CUT = 200
_WORDS = 5000


def before(
    ledger: Ledger, act: Act, who: Principal, state: State, decision: Decision, policy: Policy
) -> int:
    """Record an allowed act before it is done; return the entry's number, 0 for none.

    Raises:
        ClrError: the ledger cannot be written; the act must not be done.
    """
    if act.kind not in RECORDED:
        return 0
    if act.kind is Kind.SET_VERSION_TAG and act.name == REVIEW and state.version is not None:
        return _review(ledger, act, who, state, decision, policy)
    words = act.kind is Kind.SET_VERSION_TAG and act.name == REASON
    entry = ledger.append(
        REASON if words else act.kind.value,
        text(act.subject),
        _payload(act, state, policy, _WORDS if words else _CUT),
        actor=text(who.name),
        authentication=AUTHENTICATED,
    )
    return entry.seq


def _review(
    ledger: Ledger, act: Act, who: Principal, state: State, decision: Decision, policy: Policy
) -> int:
    from clr.registry.server.facts import stored_version

    version = state.version
    assert version is not None
    stored = stored_version(version.model, version.number)
    entry = record_review(
        ledger,
        model=version.model,
        number=version.number,
        adapter=version.adapter,
        source=version.source,
        decision=decision.value,
        reason=_own_words(ledger, act.subject, who, dict(stored.tags or {}) if stored else {}),
        actor=who.name,
        authentication=AUTHENTICATED,
        four_eyes=policy.four_eyes,
    )
    return entry.seq


def _own_words(ledger: Ledger, subject: str, who: Principal, tags: Mapping[str, str]) -> str:
    """Return the reason on a version's page where it was `who` that wrote it; else nothing.

    It stays there for whoever decides next, and nobody signs another person's words.
    """
    reason = tags.get(REASON, "")
    written = ledger.entries(subject=text(subject), action=REASON)
    own = any((one.actor, one.payload.get("value")) == (text(who.name), text(reason, _WORDS))
              for one in written)  # fmt: skip
    return reason if own else ""


def _payload(act: Act, state: State, policy: Policy, limit: int) -> dict[str, Any]:
    about = {
        "endpoint": act.endpoint,
        "model": act.model,
        "version": act.version,
        _named(act.kind): act.name,
        "value": act.value,
        "source": act.source,
        "path": act.path,
    }
    payload: dict[str, Any] = {
        key: text(value, limit) if isinstance(value, str) else value
        for key, value in about.items()
        if value
    }
    if act.tags:
        payload["tags"] = {text(k): text(v) for k, v in sorted(act.tags.items())}
    if state.actual:
        payload["actual"] = state.actual
    if state.version is not None:
        payload["adapter"] = state.version.actual
    if state.target is not None:
        payload["release"] = state.target.actual
    if not policy.four_eyes:
        payload["four_eyes"] = False
    return payload


def _named(kind: Kind) -> str:
    """Return the field for the name in an act; that of a person is kept so that it can go."""
    return "user" if kind in (Kind.MANAGE_USER, Kind.SET_PASSWORD) else "name"


def refusal(ledger: Ledger, act: Act, who: str, sentence: str) -> None:
    """Record that `who` was refused an act; reads are not recorded.

    A ledger that cannot be written does not turn a refusal into anything else.
    """
    if act.kind is Kind.READ:
        return
    about = {
        "kind": act.kind.value,
        "endpoint": act.endpoint,
        "model": act.model,
        "version": act.version,
        _named(act.kind): act.name,
        "value": act.value,
        "source": act.source,
        "path": act.path,
        "sentence": sentence,
    }
    payload = {k: text(v, 1000) if k == "sentence" else text(v) for k, v in about.items() if v}
    try:
        ledger.append(
            "refused", text(act.subject), payload, actor=text(who), authentication=AUTHENTICATED
        )
    except ClrError as error:
        LOG.error("A refusal could not be recorded: %s", error)


def failure(ledger: Ledger, act: Act, who: str, seq: int, status: int) -> None:
    """Record that the act of entry `seq`, allowed and recorded, failed in MLflow itself."""
    payload = {"entry": seq, "kind": act.kind.value, "status": status}
    try:
        ledger.append(
            "act.failed", text(act.subject), payload, actor=text(who), authentication=AUTHENTICATED
        )
    except ClrError as error:
        LOG.error("A failed act (entry %d) could not be recorded: %s", seq, error)


def number_given(ledger: Ledger, act: Act, who: str, answer: Any) -> None:
    """See that a new version got the number that its entry says; record it if it did not.

    The server counts alone, so this happens only where somebody wrote to the database beside it.
    """
    try:
        given = int(answer["model_version"]["version"])
    except (TypeError, KeyError, ValueError):
        given = 0
    if given == act.version:
        return
    LOG.error("%s was registered as version %d: who else writes here?", act.subject, given)
    payload = {"expected": act.version, "source": text(act.source)}
    try:
        ledger.append(
            act.kind.value,
            text(f"{act.model}/{given}"),
            payload,
            actor=text(who),
            authentication=AUTHENTICATED,
        )
    except ClrError as error:
        LOG.error("The number of a version could not be recorded: %s", error)


def text(value: Any, limit: int = _CUT) -> str:
    """Return a client's text as the ledger can keep it: cut, without control characters."""
    raw = str(value)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    clean = "".join(
        c if ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF else f"\\x{ord(c):02x}" for c in cut
    )
    return clean if clean.strip() else "-"
