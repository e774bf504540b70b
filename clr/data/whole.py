"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from clr.core.files import locked
from clr.errors import ServiceUnavailable


@contextmanager
def appearing(home: Path, failed: str) -> Iterator[Path]:
    """Give the path of a folder to make and fill; it becomes `home` in one rename.

    What a killed process left of it is removed first, and nothing of it stays after a failure.
    One at a time makes folders beside each other: what another is making is not left over.

    Args:
        home: a folder that does not exist.
        failed: what cannot be done then, as the beginning of a sentence.

    Raises:
        ServiceUnavailable: the disk is full, or cannot be written.
    """
    partial = home.parent / f".partial-{home.name}"
    try:
        with ExitStack() as held:
            with suppress(OSError):  # NFS locks no folder; one process alone works there
                held.enter_context(locked(home.parent))
            try:
                shutil.rmtree(partial, ignore_errors=True)
                yield partial
                partial.rename(home)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ServiceUnavailable(
            f"{failed}: {error.strerror or error}.",
            fix=f"Make {home.parent} writable and free some space; it is tried again.",
        ) from error
