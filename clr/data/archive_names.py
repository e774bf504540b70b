"""Which names in an archive may become files: relative, plain, each one of its kind everywhere.

What is taken must mean the same on every system that the data is later read on: a name that
another system cuts, folds into another or takes for a device is refused, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from clr.data.folder import SPLITS, folded, printable, unusable_name
from clr.errors import DataRefused

ARCHIVE_SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip
UNREAD_SUFFIXES = (".tar.zst", ".tzst", ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst")
"""Archives that are not read, but told about."""

LONGEST_NAME, LONGEST_PATH, DEEPEST = 255, 1024, 32
"""Bytes of one name, bytes of a path, and folders in each other."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.I)
_DRIVE = re.compile(r"[a-z]:", re.I)
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def suffix_of(name: str, suffixes: tuple[str, ...] = ARCHIVE_SUFFIXES) -> str:
    """Return the suffix that makes `name` an archive, longest first; empty if none does."""
    fitting = [one for one in suffixes if name.lower().endswith(one) and len(name) > len(one)]
    return max(fitting, key=len, default="")


def refused(member: str, reason: str, fix: str = "") -> DataRefused:
    """Return the refusal of an archive because of one of its members; empty: of itself."""
    what = f"The archive's member {printable(member)[:300]!r}" if member else "The archive"
    return DataRefused(
        f"{what} {reason}.",
        fix=fix or "Pack the task folder again: plain files and folders, nothing else.",
        member=printable(member)[:300],
    )


def checked_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a member's path; empty for the top itself (``./``).

    Raises:
        DataRefused: it is absolute, leads upwards, or is no name on some system.
    """
    if "\\" in name:
        raise refused(name, "has a backslash in its name")
    if name.startswith("/") or _DRIVE.match(name):
        raise refused(name, "has an absolute path")
    path = name.removeprefix("./").removesuffix("/")
    if path in ("", "."):
        return ()
    parts = tuple(path.split("/"))
    for part in parts:
        if reason := _unusable(part):
            raise refused(name, reason)
    if len(name.encode()) > LONGEST_PATH or len(parts) > DEEPEST:
        raise refused(name[:80], f"has a path of more than {LONGEST_PATH} bytes or {DEEPEST} parts")
    return parts


def _unusable(part: str) -> str:
    if part == "..":
        return "leads out of the folder"
    if part in ("", "."):
        return "has an empty part in its path"
    if reason := unusable_name(part):
        return f"cannot be kept: {reason}"
    if len(part.encode()) > LONGEST_NAME:
        return f"has a name of more than {LONGEST_NAME} bytes"
    if part[-1] in ". ":
        return "has a name that ends in a dot or a space, which some systems drop"
    if _RESERVED.fullmatch(part):
        return "has the name of a device of Windows"
    return ""


@dataclass(eq=False)
class Names:
    """The members met so far: no two may be one on any file system.

    Attributes:
        tops: name to whether it is a folder, of what lies at the top; clutter left out.
    """

    tops: dict[str, bool] = field(default_factory=dict)
    _spelling: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    _files: set[tuple[str, ...]] = field(default_factory=set)
    _folders: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, name: str, *, folder: bool) -> tuple[str, ...]:
        """Return where a member goes, as parts of a path; empty for one that nobody needs.

        Raises:
            DataRefused: its name cannot be kept, or is another's as well.
        """
        parts = checked_parts(name)
        if not parts:
            return ()
        key: tuple[str, ...] = ()
        for depth, part in enumerate(parts, 1):
            key = (*key, folded(part))
            spelled = self._spelling.setdefault(key, parts[:depth])
            if spelled != parts[:depth]:
                other = "/".join(spelled)
                raise refused(name, f"and {printable(other)!r} are one name on some systems")
            if depth < len(parts) or folder:
                self._folders.add(key)
            elif key in self._files:
                raise refused(name, "is there twice")
            else:
                self._files.add(key)
            if key in self._files and key in self._folders:
                raise refused(name, "and another member are a file and a folder of one name")
        if any(part.startswith(".") or part.lower() in _CLUTTER for part in parts):
            return ()
        self.tops[parts[0]] = self.tops.get(parts[0], False) or folder or len(parts) > 1
        return parts

    def root(self) -> str:
        """Return the name of the task folder at the top; empty where the archive is its inside.

        Raises:
            DataRefused: it is no task folder.
        """
        if self.tops.get("train"):
            return ""
        folders = [name for name, is_folder in self.tops.items() if is_folder]
        if len(folders) == 1 and self._has_train(folders[0]):
            return folders[0]
        several = f"has several folders at its top ({_some(folders)}), none of them train"
        raise refused(
            "",
            several if len(folders) > 1 else "holds no task folder: there is no train folder",
            f"Pack one task folder: {SPLITS[0]}/<class>/<images>, and {SPLITS[1]} if there is one.",
        )

    def _has_train(self, top: str) -> bool:
        return self._spelling.get((folded(top), "train")) == (top, "train")


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name)[:60] for name in sorted(names)[:4])
    return shown + (", …" if len(names) > 4 else "")
