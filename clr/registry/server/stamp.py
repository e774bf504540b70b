"""A file that says when users or passwords changed, for server processes that remember them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def stamp_path(state: Path) -> Path:
    """Return where it is, under ``CLR_HOME``."""
    return state / "server" / "users.stamp"


def users_changed(state: Path) -> None:
    """Tell every process of the server to forget, within a second, the passwords it remembers."""
    with suppress(OSError):  # without the folder there is no server
        stamp_path(state).write_text(f"{time.time_ns()}\n", encoding="ascii")
