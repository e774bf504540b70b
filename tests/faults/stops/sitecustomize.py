"""Python loads this in every process of a factory whose PYTHONPATH names this folder.

A flow run stops where it opens a file whose path contains what a file in ``$STOPS_FOLDER``
says, for as long as that file is there. Nothing of the program is replaced: it stands as still
as the system could let it stand there.
"""

import os
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("STOPS_FOLDER", "")


def points() -> dict[Path, str]:
    """Return what each file says, but the notes that a run is there."""
    files = Path(FOLDER).iterdir()
    return {file: file.read_text() for file in files if not file.name.endswith(".here")}


if FOLDER and "prefect.engine" in sys.orig_argv:
    POINTS = points()
    HERE: set[Path] = set()

    def wait(event: str, arguments: tuple[object, ...]) -> None:
        """Stop once at each point."""
        if event != "open" or not isinstance(arguments[0], str):
            return
        for file, part in POINTS.items():
            if part in arguments[0] and file not in HERE:
                HERE.add(file)
                Path(f"{file}.{os.getpid()}.here").touch()
                while file.exists():
                    time.sleep(0.05)

    if POINTS:
        sys.addaudithook(wait)
