"""Commands about the registry server and its people: `clr up registry`, `clr users`, `erase`."""

from __future__ import annotations

from typing import Any

import click

from clr.errors import UsageError
from flows import output, text
from flows.command import Command, Commands, as_json

ROLE = click.Choice(["trainer", "reviewer", "release", "auditor", "admin"])


@click.group(cls=Commands, invoke_without_command=True)
@click.option("--free-ports", is_flag=True, help="Let the system choose all ports.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line on stdout when ready.")
@click.pass_context
def up(ctx: click.Context, free_ports: bool, as_json: bool) -> None:
    """Start all servers of one machine and keep them running; `registry`: that one alone.

    Registry, Prefect, release service, workers, the watcher of incoming/ and the prediction
    server run until Ctrl-C or `kill`. Ports: CLR_REGISTRY_PORT, CLR_PREFECT_PORT,
    CLR_METRICS_PORT, CLR_SERVE_PORT. Docs: docs/up.md.

    \b
    Examples:
      clr up
      clr up --free-ports --json
    """
    if ctx.invoked_subcommand is not None:
        return
    from clr.settings import load_settings
    from flows.factory import run_all

    run_all(load_settings(), free_ports=free_ports, as_json=as_json)


@up.command()
@click.option("--host", help="Address to listen on; default: CLR_REGISTRY_HOST.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: CLR_REGISTRY_PORT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line on stdout when ready.")
def registry(host: str | None, port: int | None, as_json: bool) -> None:
    """Start MLflow with the review policy, and the service that promotes what was approved.

    Both run until Ctrl-C or `kill`. Docs: docs/registry.md.

    \b
    Examples:
      clr up registry
      CLR_REGISTRY_DATABASE=postgresql://clr@db/clr clr up registry --port 5001
    """
    from clr.settings import load_settings
    from flows.up import run_registry

    settings = load_settings()
    run_registry(
        settings, host or settings.registry_host, port or settings.registry_port, as_json=as_json
    )


@click.group(cls=Commands)
def users() -> None:
    """Say who may sign in to the registry server, and with which roles.

    Works on the server's machine, whether the server runs or not. Passwords come from
    CLR_PASSWORD or are asked for.
    """


@users.command("add")
@click.argument("name")
@click.option("--role", "roles", type=ROLE, multiple=True, required=True, help="Repeatable.")
@as_json
def users_add(name: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Let NAME sign in with a role; where NAME can already, add the role.

    \b
    Examples:
      clr users add alice --role reviewer
      CLR_PASSWORD=… clr users add bob --role trainer --role auditor
    """
    from flows.session import open_session
    from flows.users import add

    output.emit(add(open_session(), name, roles), as_json, _added)


@users.command("remove")
@click.argument("name")
@as_json
def users_remove(name: str, as_json: bool) -> None:
    """Take all roles from NAME and let NAME sign in no more.

    \b
    Example:  clr users remove bob
    """
    from flows.session import open_session
    from flows.users import remove

    output.emit(
        remove(open_session(), name),
        as_json,
        lambda one: f"{one['name']} is removed.",
    )


@users.command("list")
@as_json
def users_list(as_json: bool) -> None:
    """List everybody who can sign in or has a role.

    \b
    Example:  clr users list --json
    """
    from flows.session import open_session
    from flows.users import people

    output.emit(people(open_session()), as_json, _people)


@users.command("passwd")
@click.argument("name")
@as_json
def users_passwd(name: str, as_json: bool) -> None:
    """Give NAME another password.

    \b
    Example:  clr users passwd alice
    """
    from flows.session import open_session
    from flows.users import set_password

    output.emit(
        set_password(open_session(), name),
        as_json,
        lambda one: (
            f"{one['name']} has a new password; a running server takes the old one, too, "
            "for up to 5 minutes. Start it again to end that."
        ),
    )


@click.command(cls=Command)
@click.argument("name")
@click.option("--reason", required=True, help="The legal ground; kept for good, names nobody.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def erase(name: str, reason: str, yes: bool, as_json: bool) -> None:
    """Erase the person NAME: login, roles, and the name in ledger and registry, for good.

    What NAME did stays, as done by `erased person 1a2b3c4d`, and still verifies. Works on the
    server's machine. The answer says where the name is left; so do backups, until they are
    deleted. Docs: docs/ledger.md.

    \b
    Examples:
      clr erase alice --reason "asked on 3 March, ticket 17"
      clr erase alice --reason "asked on 3 March, ticket 17" --yes --json
    """
    from flows.erase import run_erase
    from flows.session import open_session

    session = open_session()
    if not yes:
        if not output.asks_somebody():
            raise UsageError(
                "This cannot be undone, and there is nobody to ask.", fix="Add --yes to do it."
            )
        click.confirm(f"Erase {name} for good?", abort=True, err=True)
    output.emit(run_erase(session, name, reason), as_json, _erased)


def _erased(result: dict[str, Any]) -> str:
    lines = ["The ledger keeps no name of this person in a form that could be erased."]
    if result["entry"]:
        lines = [
            f"Erased: the ledger now says {result['person']} (entry {result['entry']}); "
            f"{result['erased']} texts and {result['tags']} tags are gone."
        ]
    if result["login"]:
        lines.append("The login and its roles are removed.")
    lines += [f"Left: {where}: {what}" for where, what in result["left"].items()]
    lines.append(
        "Backups made before keep the name until they are deleted; logs, the git history of "
        "policy.yaml and Prefect's database are yours to look through."
    )
    return "\n".join(lines)


def _added(result: dict[str, Any]) -> str:
    login = "can sign in now" if result["new"] else "could sign in already"
    changed = ", with a new password" if result["password"] and not result["new"] else ""
    return f"{result['name']} {login}{changed}; roles: {', '.join(result['roles'])}."


def _people(result: list[dict[str, Any]]) -> str:
    rows = (
        (one["name"], ", ".join(one["roles"]) or "none", "yes" if one["login"] else "no")
        for one in result
    )
    return text.table("Users of the registry server", ("name", "roles", "can sign in"), rows)
