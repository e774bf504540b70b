"""Rules about webhooks, accounts and passwords (pure).

Each rule returns a sentence of refusal, empty where it has nothing against the act.
"""

from __future__ import annotations

from clr.registry.acts import Act, Principal, State
from clr.registry.names import shown
from clr.registry.refusals import lacks
from clr.registry.roles import ADMIN, SERVICES, Policy, is_user_name

MAKE = "create_user"
ACCOUNTS = frozenset({MAKE, "delete_user"})
"""MLflow's handlers that make and remove accounts; its other acts on users give rights."""

_SHARED = frozenset(SERVICES) - {"admin"}


def webhook(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """Webhooks come from a file."""
    return (
        "Webhooks are listed in mlflow/webhooks.yaml and set up when the server starts; nobody "
        "changes them through the server. Edit that file, then start the server again."
    )


def manage(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """Accounts without a role by an admin; rights by a file."""
    if act.endpoint not in ACCOUNTS:
        return (
            "Rights are given in mlflow/policy.yaml alone; MLflow's own roles, grants and admin "
            "flag decide nothing here. On the server's machine: `clr users add NAME --role ROLE`."
        )
    if problem := lacks(who, (ADMIN,), "make or remove accounts"):
        return problem
    if act.endpoint == MAKE and not is_user_name(act.name):
        return (
            f"{shown(act.name)} cannot be the name of a user here: in the ledger it could pass "
            "for somebody else. Use a-z, 0-9 and ._@-, at most 63, starting with a letter or digit."
        )
    return _with_role(act, state, policy)


def _with_role(act: Act, state: State, policy: Policy) -> str:
    if act.name and not (state.user_roles or policy.roles(act.name)):
        return ""
    return (
        f"The account {shown(act.name)} has a role in policy.yaml, and who could replace it could "
        "act in its name. Use `clr users` on the server's machine."
    )


def set_password(act: Act, who: Principal, state: State, policy: Policy) -> str:
    """One's own password; an admin also that of a user without a role."""
    if act.name in _SHARED:
        return (
            f"{act.name} is used by the commands, which read its password from a file. "
            "Use `clr users passwd` on the server's machine."
        )
    if act.name == who.name:
        return ""
    return lacks(who, (ADMIN,), "set another user's password") or _with_role(act, state, policy)
