"""The file ``clr.env`` of a workspace, checked whole before it is read.

The library that reads it skips lines that it does not understand, and a file that is none: a
limit somebody wrote there would be the default again without a word.
"""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Collection
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from clr.errors import UsageError


def check(path: Path, names: Collection[str]) -> None:
    """Refuse a ``clr.env`` that would not be read as it stands; none at all is fine.

    Args:
        path: the file.
        names: what may be set in it.

    Raises:
        UsageError: it is no file of text, a line is not NAME=VALUE, or it sets another name.
    """
    if not os.path.lexists(path):
        return
    for binding in parse_stream(io.StringIO(_text(path))):
        where = f"{path}, line {_line(binding)},"
        if binding.error or (binding.key and binding.value is None):
            raise UsageError(
                f"{where} is not NAME=VALUE.",
                fix="Correct it: one = after the name, and an end to each quotation.",
            )
        if binding.key and binding.key.upper() not in names:
            raise UsageError(
                f"{where} names {binding.key}, which is no setting.",
                fix=_nearest(binding.key.upper(), names),
                setting=binding.key,
            )


def _text(path: Path) -> str:
    if not path.is_file():  # a folder, a link to nothing, a pipe that nobody fills
        raise UsageError(f"{path} is not a file.", fix="Make it one, or remove it.")
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", fix="Make it readable for this user."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8.", fix="Save it as UTF-8.") from error


def _line(binding: Binding) -> int:
    """Return the line of what was bound: empty lines before it belong to it."""
    text = binding.original.string
    before = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(before.splitlines())


def _nearest(name: str, names: Collection[str]) -> str:
    short = [one.removeprefix("CLR_") for one in names]
    near = difflib.get_close_matches(name.removeprefix("CLR_"), short, n=1)
    return f"Did you mean CLR_{near[0]}?" if near else "Remove it: nothing reads it."
