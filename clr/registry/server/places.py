"""Let writes into a run or logged model end before it is registered, and none begin after.

An upload can last long. Decided while its model was not registered, it must not end after the
digest of the registered file was computed. So whoever writes into a run or model holds its
place together with others, and whoever registers it holds it alone.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from clr.errors import ServiceUnavailable

_SECONDS = 2.0


class Places:
    """The places of runs and logged models, shared by all processes of the server."""

    def __init__(self, folder: Path) -> None:
        """Keep one empty file a place in `folder`, and remove those that nobody holds."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            with suppress(OSError), file.open("ab") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()

    def write(self, ids: Iterable[str]) -> list[IO[bytes]]:
        """Hold places together with others who write.

        Raises:
            ServiceUnavailable: one of them is being registered, or the disk cannot be used.
        """
        return self._hold(ids, fcntl.LOCK_SH, "is being registered")

    def settle(self, ids: Iterable[str]) -> list[IO[bytes]]:
        """Hold places alone.

        Raises:
            ServiceUnavailable: somebody writes there, or the disk cannot be used.
        """
        return self._hold(ids, fcntl.LOCK_EX, "is being written to")

    def leave(self, held: Sequence[IO[bytes]]) -> None:
        """Give places back."""
        for file in held:
            file.close()

    def forget(self, ids: Iterable[str]) -> None:
        """Remove the files of places that are registered now, while they are held alone."""
        for one in ids:
            with suppress(OSError):
                (self._folder / one).unlink()

    def _hold(self, ids: Iterable[str], how: int, why_not: str) -> list[IO[bytes]]:
        held: list[IO[bytes]] = []
        give_up = time.monotonic() + _SECONDS
        try:
            for one in sorted(set(ids)):
                held.append(self._one(one, how, give_up, why_not))
        except OSError as error:
            self.leave(held)
            raise ServiceUnavailable(
                f"The server's folder cannot be used: {error.strerror}.",
                fix="Make CLR_HOME writable for the server.",
            ) from error
        except ServiceUnavailable:
            self.leave(held)
            raise
        return held

    def _one(self, name: str, how: int, give_up: float, why_not: str) -> IO[bytes]:
        while True:
            file = (self._folder / name).open("ab")
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:  # else it was removed meanwhile
                    return file
            except BlockingIOError:
                pass
            file.close()
            if time.monotonic() > give_up:
                raise ServiceUnavailable(
                    f"{name} {why_not} by another request.", fix="Wait for it and try again."
                )
            time.sleep(0.01)
