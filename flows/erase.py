"""``clr erase``: a person asked to be forgotten (GDPR, Art. 17), and the ledger stays provable.

Done by whoever may write the workspace on the server's machine. First the login goes, then what
the registry repeats, last what the ledger keeps beside its rows: so a kill in between leaves the
name known, and the same command again completes it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from clr.audit.personal import mentions, placeholder
from clr.errors import UsageError
from clr.registry.acts import LOCAL
from clr.registry.faults import redact
from clr.registry.roles import SERVICES, load_policy, policy_path
from clr.registry.served import is_elsewhere
from flows.provenance import local_user
from flows.prune_registry import is_here

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.settings import Settings
    from flows.session import Session

LOG = logging.getLogger("clr")
Result = dict[str, Any]
UNDER_WAY_SECONDS = 2.0
"""What somebody was doing when the login was removed is written down by then."""


def run_erase(session: Session, name: str, reason: str) -> Result:
    """Erase a person from login, policy, registry and ledger; record that, without the name.

    Args:
        session: the workspace.
        name: as it is in the ledger.
        reason: the legal ground; kept for good.

    Returns:
        {person, entry, erased, tags, login, left: {where: rows or entries}}; `left` names what
        this command does not change.

    Raises:
        UsageError: not the server's machine, nobody of this name, a service, the one who runs
            this, or the last reviewer that a list in policy.yaml has.
        ServiceUnavailable: a database cannot be written; the same again completes it.
        IntegrityBroken: the ledger lost or changed its newest entries.
    """
    settings = session.settings
    _check(settings, name, reason)
    ledger, here = session.ledger, is_here(settings)
    with session.lock("promote"):
        login = _remove_login(session, name) if here else False
        if login:
            time.sleep(UNDER_WAY_SECONDS)
        ref = ledger.person(name)
        open_rows = ledger.naming(name)
        if ref is None and not open_rows and not login:
            ledger.scrub()  # a call that was killed before it had done so
            raise UsageError(
                f"Nobody here is called {name!r}.",
                fix="Names are compared letter by letter: take it as the ledger has it.",
            )
        tags = _from_registry(session, name, ref, open_rows) if here and ref else 0
        entry, erased = None, 0
        if ref is not None:
            done = ledger.erase(name, reason, actor=local_user(), authentication=LOCAL)
            entry, erased = done.entry.seq, len(done.gone)
        ledger.scrub()
    LOG.info("erase     %d values, %d tags", erased, tags)
    return {
        "person": placeholder(ref) if ref else None,
        "entry": entry,
        "erased": erased,
        "tags": tags,
        "login": login,
        "left": _left(session, name, open_rows, here=here),
    }


def _check(settings: Settings, name: str, reason: str) -> None:
    if is_elsewhere(settings):
        raise UsageError(
            f"Registry and ledger are kept by {redact(settings.registry)}.",
            fix="Run this on that machine.",
        )
    if name in SERVICES:
        raise UsageError(f"{name} is a service of this installation, not a person.")
    if name == local_user():
        raise UsageError(
            f"{name} is who runs this command, and would be written down anew by it.",
            fix="Let another administrator of this machine run it.",
        )
    if not reason.strip() or mentions(reason, name):
        raise UsageError(
            "The reason is empty, or names the person.",
            fix="Say why, without the name: it is kept for good, e.g. `asked on 3 March, no. 17`.",
        )


def _remove_login(session: Session, name: str) -> bool:
    """Take login and roles away; say whether there were any."""
    from clr.registry.server.users import open_logins
    from flows.users import remove

    settings = session.settings
    there = name in load_policy(policy_path(settings.workspace)).users
    if not there and (settings.registry_database or (settings.state / "auth.db").exists()):
        with open_logins(settings) as logins:
            there = logins.has(name)
    if there:
        remove(session, name)
    return there


def _from_registry(session: Session, name: str, ref: str, open_rows: list[int]) -> int:
    from clr.registry.server.forget import forget, scrub

    words: dict[str, set[str]] = {}
    kept: set[str] = set()
    in_the_open = set(open_rows)
    for entry in session.ledger.entries():
        if entry.seq in in_the_open:
            kept.add(entry.subject)
        if name in (entry.actor, entry.payload.get("reviewer")):
            words.setdefault(entry.subject, set()).update(_written(entry))
    changed = forget(session.settings, name, placeholder(ref), words, kept)
    scrub(session.settings)
    return changed


def _written(entry: Entry) -> list[str]:
    found = (entry.payload.get(field) for field in ("reason", "value"))
    return [one for one in found if isinstance(one, str) and one]


def _left(session: Session, name: str, open_rows: list[int], *, here: bool) -> dict[str, Any]:
    """Return where the name still is, as far as this machine can see."""
    from clr.registry.server.forget import still_naming

    left: dict[str, Any] = {}
    if open_rows:
        left["ledger entries from before names could be erased"] = open_rows
    if here:
        left |= still_naming(session.settings, name)
    else:
        left[f"registry {session.registry.uri}"] = "run `clr erase` on its machine"
    return left
