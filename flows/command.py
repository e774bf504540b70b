"""What every command of ``clr`` is: a click command that ends with a sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from flows import output

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


class Command(click.Command):
    """A command that ends with a sentence and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn its error into the exit code that clr/errors.py gives it."""
        return _ended(ctx, super().invoke)


def _ended(ctx: click.Context, invoke: Callable[[click.Context], Any]) -> Any:
    try:
        return invoke(ctx)
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click ends quietly where nobody reads on (clr status | head)
    except KeyboardInterrupt:
        output.note("Interrupted. The same command goes on where this one stopped.")
        ctx.exit(130)
    except Exception as error:
        known = output.as_clr_error(error)
        output.fail(known, as_json=ctx.params.get("as_json", False))
        ctx.exit(known.exit_code)


class Commands(click.Group):
    """A group of commands; each is a `Command`."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the group, which may work without a command of its own; errors as above."""
        return _ended(ctx, super().invoke)
