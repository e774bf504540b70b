"""What every command of ``clr`` is: a click command that ends with a sentence and an exit code."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from clr.errors import ClrError, Interrupted, UsageError
from flows import output

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


class FiniteRange(click.FloatRange):
    """A number within bounds; click's own lets nan pass, and inf where there is no upper one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail as click does."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Command(click.Command):
    """A command that ends with a sentence and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn its error into the exit code that clr/errors.py gives it."""
        return _ended(ctx, super().invoke)


def _ended(ctx: click.Context, invoke: Callable[[click.Context], Any]) -> Any:
    known: ClrError
    try:
        return invoke(ctx)
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click ends quietly where nobody reads on (clr status | head)
    except KeyboardInterrupt:
        known = Interrupted("Interrupted.", fix="The same command goes on where this one stopped.")
    except Exception as error:
        known = output.as_clr_error(error)
    output.fail(known, as_json=ctx.params.get("as_json", False))
    raise click.exceptions.Exit(known.exit_code)


class Commands(click.Group):
    """A group of commands; each is a `Command`."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the group, which may work without a command of its own; errors as above."""
        return _ended(ctx, super().invoke)

    def main(self, args: Sequence[str] | None = None, **how: Any) -> Any:  # type: ignore[override]
        """Run a line of arguments as click does; what is wrong in it is a document, too.

        Args:
            args: the line; by default that of this process.
            how: see click.

        Raises:
            SystemExit: always, unless `standalone_mode` is False.
        """
        if not how.pop("standalone_mode", True):
            return super().main(args, standalone_mode=False, **how)
        line = list(sys.argv[1:] if args is None else args)
        try:
            code = self._run(line, how)
        except Exception as error:  # what click or we say found no room
            known = output.as_clr_error(error)
            output.fail(known, as_json=False)
            code = known.exit_code
        finally:
            output.give_up()
        sys.exit(code)

    def _run(self, line: list[str], how: dict[str, Any]) -> int:
        try:
            code = super().main(line, standalone_mode=False, **how)
        except click.ClickException as error:
            return _told(error, as_json="--json" in _options(line))
        except click.Abort:
            output.note("Aborted!")
            return 1
        return code if isinstance(code, int) else 0


def _options(line: list[str]) -> list[str]:
    """Return what of a line may be options: nothing after ``--`` is one."""
    return line[: line.index("--")] if "--" in line else line


def _told(error: click.ClickException, as_json: bool) -> int:
    """Tell what click found wrong in its own words, and as a document where one is wanted."""
    if as_json:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "clr"
        wrong = UsageError(error.format_message(), fix=f"See what `{path} --help` says.")
        output.emit(wrong.as_dict(), as_json=True, text=str)
    said = io.StringIO()
    error.show(said)
    output.note(said.getvalue().rstrip("\n"))
    return error.exit_code
