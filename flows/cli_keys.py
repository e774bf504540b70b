"""Commands about the API keys of the prediction server: `clr keys`."""

from __future__ import annotations

from typing import Any

import click

from flows import output, text
from flows.command import Commands, as_json

SCOPE = click.Choice(["predict", "feedback", "metrics", "admin"])


@click.group(cls=Commands)
def keys() -> None:
    """Say who may call the prediction server, for what, and until when.

    Works on the server's machine, whether the server runs or not; a change counts at once.
    Docs: docs/serving.md.
    """


@keys.command("add")
@click.argument("name")
@click.option("--scope", "scopes", type=SCOPE, multiple=True, required=True, help="Repeatable.")
@click.option("--task", "tasks", multiple=True, help="Only for this task; repeatable.")
@click.option("--expires", default="", metavar="WHEN", help="90d, 12h, 2027-12-31; default: never.")
@as_json
def keys_add(
    name: str, scopes: tuple[str, ...], tasks: tuple[str, ...], expires: str, as_json: bool
) -> None:
    """Make an API key and show it, once: only its hash is kept.

    \b
    Examples:
      clr keys add line-3 --scope predict --task solder-joints --expires 90d
      clr keys add inspection --scope feedback
      clr keys add prometheus --scope metrics --json
    """
    from flows.keys import add
    from flows.session import open_session

    output.emit(add(open_session(), name, scopes, tasks, expires), as_json, _added)


@keys.command("revoke")
@click.argument("name")
@as_json
def keys_revoke(name: str, as_json: bool) -> None:
    """Make the key NAME, or the key with that id, unusable: at once and for good.

    \b
    Example:  clr keys revoke line-3
    """
    from flows.keys import revoke
    from flows.session import open_session

    output.emit(
        revoke(open_session(), name),
        as_json,
        lambda one: f"The key {one['name']} ({one['id']}) is revoked.",
    )


@keys.command("list")
@as_json
def keys_list(as_json: bool) -> None:
    """List all keys: what each may do, and whether it can be used.

    \b
    Example:  clr keys list --json
    """
    from flows.keys import listed
    from flows.session import open_session

    output.emit(listed(open_session()), as_json, _listed)


def _added(result: dict[str, Any]) -> str:
    tasks = f" of {', '.join(result['tasks'])}" if result["tasks"] else ""
    until = f" until {result['expires']}" if result["expires"] else ""
    return (
        f"{result['key']}\n"
        f"This is {result['name']}, for {', '.join(result['scopes'])}{tasks}{until}. "
        "It is not shown again: keep it where secrets are kept."
    )


def _listed(result: list[dict[str, Any]]) -> str:
    rows = (
        (
            one["name"],
            one["id"],
            one["state"],
            ", ".join(one["scopes"]),
            ", ".join(one["tasks"]) or "all",
            one["expires"] or "never",
        )
        for one in result
    )
    columns = ("name", "id", "state", "scopes", "tasks", "expires")
    return text.table("API keys of the prediction server", columns, rows)
