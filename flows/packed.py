"""A dropped archive: under which names its record is found again.

Its bytes alone identify it where the folder in it names the task. Where the archive's own name
does, the same bytes under another name are another task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clr.core.files import sha256_bytes
from clr.data.archive_names import suffix_of
from clr.data.folder import task_name
from clr.errors import UsageError
from clr.settings import Settings

_DOMAIN = "clr.arrival/archive"


@dataclass(frozen=True)
class Packed:
    """An archive that was read.

    Attributes:
        name: of the file.
        digest: ``sha256:…`` of its bytes.
    """

    name: str
    digest: str

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name[: -len(suffix_of(self.name))]

    @property
    def origins(self) -> tuple[str, str]:
        """What its record may name as origin: what names the task is known once it is unpacked."""
        return self.digest, named(self.digest, self.stem)

    @property
    def task(self) -> str:
        """A name of a task that a report on it can be kept under."""
        try:
            return task_name(self.stem)
        except UsageError as error:
            return str(error.data["suggestion"])

    def origin(self, task: str) -> str:
        """Return the origin of the task that it holds."""
        return self.origins[task == self.stem]

    def home(self, settings: Settings) -> Path:
        """Return the folder that it is unpacked in."""
        return settings.unpacked / self.origins[1].removeprefix("sha256:")[:16]


def named(digest: str, name: str) -> str:
    """Return the digest of an archive's bytes and of the task that its name makes them."""
    return sha256_bytes(f"{_DOMAIN}\0{digest}\0{name}".encode("utf-8", "surrogateescape"))
