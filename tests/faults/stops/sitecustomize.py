"""Python loads this in every process of a factory whose PYTHONPATH names this folder.

A flow run stops where the file ``$STOPS_FOLDER/<its task>`` says: ``open 1 gate.json`` is before
it opens, for the first time, a file whose path contains ``gate.json``; ``os.rename`` tells where
a file is moved to. It stands there as long as that file exists. Nothing of the program is
replaced: it stands as still as the system could let it stand.
"""

import os
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("STOPS_FOLDER", "")


class Stop:
    """The one point at which this process stops."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.event, self.left, self.part = "", 0, ""

    def see(self, event: str, arguments: tuple[object, ...]) -> None:
        """Learn whose run this is from the first file of its task; then wait for the point."""
        if event not in ("open", "os.rename"):
            return
        path = arguments[event == "os.rename"]
        if not isinstance(path, str):
            return
        if self.file is None and "/incoming/" in path:
            self.file = Path(FOLDER, path.partition("/incoming/")[2].split("/")[0])
            if self.file.exists():
                self.event, count, self.part = self.file.read_text().split()
                self.left = int(count)
        if self.left and event == self.event and self.part in path:
            self.left -= 1
            if not self.left and self.file is not None:
                Path(f"{self.file}.{os.getpid()}.here").touch()
                while self.file.exists():
                    time.sleep(0.05)


if FOLDER and {"prefect.engine", "flows.warm"} & set(sys.orig_argv):
    sys.addaudithook(Stop().see)
