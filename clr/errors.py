"""The errors that callers may meet: one base, one line of meaning each.

Every error says what was wrong and what to do about it, carries its data as
attributes, and knows the exit code of the command line (docs/commands.md).
"""

from __future__ import annotations

from typing import Any, ClassVar


class ClrError(Exception):
    """Base of all errors that this project raises on purpose.

    Attributes:
        exit_code: exit code of the command line when this error ends it.
        fix: what the reader can do about it, as an imperative sentence.
        data: JSON-serialisable facts for machines (``--json``).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Return the error as one JSON-serialisable object."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "fix": self.fix,
            "exit_code": self.exit_code,
            **self.data,
        }


class UsageError(ClrError):
    """What was asked for does not make sense: a wrong name, option, path or setting."""

    exit_code = 2


class DataRefused(ClrError):
    """The task folder breaks its contract; nothing but the quarantine has changed."""

    exit_code = 3


class GateRefused(ClrError):
    """The retention gate did not pass: promotion is refused, champions are as before."""

    exit_code = 4


class ReviewRefused(ClrError):
    """A review is missing, or this person may not give it, or it was given for other bytes."""

    exit_code = 5


class IntegrityBroken(ClrError):
    """Bytes are not what their digest says, or a file has an unknown or hostile form."""

    exit_code = 6


class ServiceUnavailable(ClrError):
    """Something needed from outside cannot be reached or used: server, disk, lock, network."""

    exit_code = 7


class Interrupted(ClrError):
    """Ctrl-C ended the command: what was finished stays, and the same command goes on."""

    exit_code = 130


def extra(name: str) -> str:
    """Return how an extra of pyproject.toml is installed; the package is on no index."""
    return f"In the folder of clr's source: uv sync --frozen --inexact --extra {name}"
