"""People on the registry server: a login in MLflow's database, roles in policy.yaml, a record.

Done by whoever may write the workspace on the server's machine. The order is such that a
crash in between leaves a login without a role, which can do nothing, and no role without
a record; the same command again completes it.
"""

from __future__ import annotations

import os
from typing import Any

from clr.errors import UsageError
from clr.registry.acts import LOCAL
from clr.registry.roles import (
    Policy,
    add_user,
    checked_user,
    load_policy,
    policy_path,
    remove_user,
)
from clr.registry.server.users import checked_password, open_logins
from flows import output
from flows.provenance import local_user
from flows.session import Session

Result = dict[str, Any]
VARIABLE = "CLR_PASSWORD"


def add(session: Session, name: str, roles: tuple[str, ...]) -> Result:
    """Let `name` sign in and give him `roles` besides those that he has.

    Without a password in the environment one is asked for, unless he can sign in already.

    Raises:
        UsageError: not a possible name or password, no password, or a broken policy file.
        ServiceUnavailable: database, policy file or ledger cannot be written.
    """
    before = _policy(session).roles(checked_user(name))
    given = os.environ.get(VARIABLE, "")
    with open_logins(session.settings) as logins:
        known = logins.has(name)
        if given or not known:
            logins.put(name, checked_password(given or _ask(name)))
    wanted = sorted(before.union(roles))
    _record(session, "user.added", name, roles=wanted, password=bool(given or not known))
    if before != frozenset(wanted):
        add_user(policy_path(session.settings.workspace), name, wanted)
    return {"name": name, "roles": wanted, "new": not known, "password": bool(given or not known)}


def remove(session: Session, name: str) -> Result:
    """Take all roles from `name`, then his login.

    Raises:
        UsageError: nobody of this name, or a list of reviewers needs him.
        ServiceUnavailable: database, policy file or ledger cannot be written.
    """
    roles = _policy(session).roles(checked_user(name))
    listed = name in _policy(session).users
    with open_logins(session.settings) as logins:
        if not listed and not logins.has(name):
            raise _nobody(name)
        if listed:
            remove_user(policy_path(session.settings.workspace), name)
        _record(session, "user.removed", name, roles=sorted(roles))
        logins.remove(name)
    return {"name": name, "roles": sorted(roles)}


def people(session: Session) -> list[Result]:
    """Return everybody who can sign in or has a role: what ``clr users list --json`` prints."""
    policy = _policy(session)
    with open_logins(session.settings) as logins:
        signing = logins.names()
    return [
        {"name": name, "roles": sorted(policy.roles(name)), "login": name in signing}
        for name in sorted({*signing, *policy.users})
    ]


def set_password(session: Session, name: str) -> Result:
    """Give `name` another password.

    Raises:
        UsageError: nobody of this name, or not a possible password.
        ServiceUnavailable: database or ledger cannot be written.
    """
    checked_user(name)
    with open_logins(session.settings) as logins:
        if not logins.has(name):
            raise _nobody(name)
        password = checked_password(os.environ.get(VARIABLE, "") or _ask(name))
        _record(session, "user.password", name)
        logins.put(name, password)
    return {"name": name}


def _policy(session: Session) -> Policy:
    return load_policy(policy_path(session.settings.workspace))


def _nobody(name: str) -> UsageError:
    return UsageError(f"There is no user {name}.", fix="`clr users list` shows who is there.")


def _ask(name: str) -> str:
    import click

    if not output.asks_somebody():
        raise UsageError(
            f"A password for {name} is needed.",
            fix=f"Set {VARIABLE}, or run this at a terminal, where it is asked for.",
        )
    return str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))


def _record(session: Session, action: str, name: str, **facts: Any) -> None:
    session.ledger.append(action, name, facts, actor=local_user(), authentication=LOCAL)
