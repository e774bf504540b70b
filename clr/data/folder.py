"""The task folder: what a user hands over, and what its ``task.yaml`` may say.

A task folder is a plain torchvision ImageFolder pair, ``train/<class>/*`` and an
optional ``test/<class>/*``, with an optional ``task.yaml`` (docs/task-folder.md).
This module reads names only; no image is opened here.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clr.errors import DataRefused, UsageError

SPLITS = ("train", "test")
TASK_FILE = "task.yaml"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RESERVED = frozenset({"release"})  # the registry's model of the whole system has this name
_KEYS = {"title": str, "owner": str, "backbone": str, "recipe": dict, "business": dict}
_MAX_TASK_FILE = 65_536
_MAX_DIGITS = 1_000
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class TaskFolder:
    """A task as its folder describes it.

    Attributes:
        root: absolute path of the folder.
        name: name of the task, see `task_name`.
        title: what people call it; the name where ``task.yaml`` has none.
        owner: who answers for it; may be empty.
        backbone: backbone it asks for; empty for the workspace's.
        recipe: training settings that differ from the defaults, unchecked here.
        business: assumptions of the business case, unchecked here.
        classes: sorted names of the class folders of both splits, empty ones too.
        has_test: whether it brings its own test split.
        unused: folders beside ``train`` and ``test``, which nothing reads.
    """

    root: Path
    name: str
    title: str = ""
    owner: str = ""
    backbone: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    business: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    has_test: bool = False
    unused: tuple[str, ...] = ()


def task_name(text: str) -> str:
    """Return `text` if it can name a task: ``[a-z0-9][a-z0-9-]{0,62}``, not ``release``.

    Raises:
        UsageError: it cannot; proposes a name that can.
    """
    if _NAME.fullmatch(text) and text not in _RESERVED:
        return text
    slug = _slug(text)
    raise UsageError(
        f"{printable(text)!r} cannot name a task: lower-case letters, digits and hyphens, "
        "at most 63, not starting with a hyphen, and not `release`.",
        fix=f"Call it `{slug}`, for example with `--name {slug}`.",
        name=printable(text),
        suggestion=slug,
    )


def read_task(path: Path | str, name: str | None = None) -> TaskFolder:
    """Read a task folder's names and its ``task.yaml``.

    Args:
        path: the folder.
        name: name of the task; the folder's own name by default.

    Raises:
        UsageError: `path` is no readable folder, the name cannot name a task, or
            ``task.yaml`` is not valid.
        DataRefused: there is no ``train`` folder with class folders in it, a split is a link
            or an empty folder, or two classes have one name on some systems.
    """
    root = Path(os.path.realpath(path))  # resolve() raises where links lead in a circle
    if not root.is_dir():
        raise UsageError(
            f"{printable(str(path))} is not a folder.", fix="Give the path of a task folder."
        )
    name = task_name(root.name if name is None else name)
    described = _read_task_file(root / TASK_FILE)
    train, test = (_class_folders(root, split) for split in SPLITS)
    if not train:
        raise _without_train(root, train, test)
    if test == ():
        raise DataRefused(
            f"{printable(str(root / 'test'))} has no class folders.",
            fix="Fill it as train/ is, or remove it: then one image in five of train/ "
            "becomes the test split.",
        )
    classes = tuple(sorted({*train, *(test or ())}))
    _require_apart(classes)
    return TaskFolder(
        root=root,
        name=name,
        **{"title": name, **described},
        classes=classes,
        has_test=test is not None,
        unused=tuple(
            entry.name
            for entry in visible(root)
            if entry.name not in SPLITS and entry.is_dir(follow_symlinks=False)
        ),
    )


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder by name, without hidden files and system clutter.

    Raises:
        OSError: the folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER:
                yield entry


def printable(text: str) -> str:
    """Return `text` on one line: control and undecodable characters as escapes."""
    return "".join(
        char
        if char.isprintable() or char == " "
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def unusable_name(name: str) -> str:
    """Return why a file or folder name cannot be kept, or an empty string.

    Spaces, leading hyphens and every script are fine. Control characters are not: reports,
    logs and the tools behind them write one name a line. Nor is what separates names elsewhere.
    """
    if any(0xDC80 <= ord(char) <= 0xDCFF for char in name):
        return "its name is not valid UTF-8"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "its name contains a control character"
    if "\\" in name:
        return "its name contains a backslash"
    return ""


def folded(name: str) -> str:
    """Return how file systems compare names that know no case, or only one Unicode form."""
    once = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", once)


def _require_apart(classes: tuple[str, ...]) -> None:
    """See that no two classes are one: a name in train/ may have been typed again in test/."""
    met: dict[str, str] = {}
    for name in classes:
        other = met.setdefault(folded(name).rstrip(". "), name)  # Windows drops these at the end
        if other != name:
            raise DataRefused(
                f"The classes {_told(other)} and {_told(name)} are one name on some systems.",
                fix="Give the folders of one class one name in train/ and test/, letter by letter.",
                classes=[printable(other), printable(name)],
            )


def _told(name: str) -> str:
    """A name as it is and, where it is not all ASCII, with its code points: they may look alike."""
    return repr(printable(name)) if name.isascii() else f"{printable(name)!r} ({ascii(name)[1:-1]})"


def _class_folders(root: Path, split: str) -> tuple[str, ...] | None:
    """Names of the class folders of a split; None where there is no such split."""
    folder = root / split
    if folder.is_symlink():
        raise DataRefused(
            f"{printable(str(folder))} is a link.", fix="Put the images themselves there."
        )
    if not folder.is_dir():
        return None
    try:
        names = tuple(e.name for e in visible(folder) if e.is_dir(follow_symlinks=False))
    except OSError as error:
        raise UsageError(
            f"{printable(str(folder))} cannot be listed: {error.strerror}.",
            fix="Make it readable for this user.",
        ) from error
    for name in names:
        if reason := unusable_name(name):
            raise DataRefused(
                f"The class folder {printable(f'{split}/{name}')} cannot be used: {reason}.",
                fix="Rename the folder.",
                files=[printable(f"{split}/{name}")],
            )
    return names


def _without_train(
    root: Path, train: tuple[str, ...] | None, test: tuple[str, ...] | None
) -> DataRefused:
    shown = printable(str(root))
    if train is not None:
        return DataRefused(
            f"{shown}/train has no class folders.",
            fix="Put the images of each class into a folder of its own: train/<class>/.",
        )
    if test is not None:
        return DataRefused(
            f"{shown} has a test folder but no train folder.",
            fix="Add train/<class>/ with the images to learn from.",
        )
    return DataRefused(
        f"{shown} has no train folder.",
        fix="Move the class folders into a folder called train: train/<class>/*.jpg.",
    )


class _Plain(yaml.SafeLoader):
    """YAML of what JSON and databases take, too, and Python can write down.

    No aliases: a few that name each other make a small file gigabytes.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(
                f"line {event.start_mark.line + 1} has the alias *{event.anchor}: "
                "write out what it stands for"
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        endless = node.tag.endswith(":int") and len(value) > _MAX_DIGITS
        if endless or "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise yaml.YAMLError(
                f"line {node.start_mark.line + 1} has a value that is no text and no number"
            )
        return value


def _read_task_file(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise UsageError(f"{printable(str(path))} is a link.", fix="Put the file itself there.")
    if not path.exists():
        return {}
    try:
        if not path.is_file() or path.stat().st_size > _MAX_TASK_FILE:
            raise UsageError(
                f"{printable(str(path))} is not a small text file.",
                fix="See docs/task-folder.md for what belongs into it.",
            )
        values = yaml.load(path.read_text(encoding="utf-8"), _Plain)  # noqa: S506  # a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(
            f"{printable(str(path))} cannot be read: {printable(detail)}.",
            fix="Correct it: YAML, UTF-8.",
        ) from error
    return _checked({} if values is None else values)


def _checked(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageError(
            f"task.yaml holds a {type(values).__name__}, not `key: value` lines.",
            fix=f"Its keys are {', '.join(_KEYS)}; all are optional.",
        )
    for key, value in values.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise UsageError(
                f"task.yaml has an unknown key {printable(str(key))!r}.",
                fix=f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(_KEYS)}.",
                key=printable(str(key)),
            )
        wanted = _KEYS[key]
        if value is not None and not isinstance(value, wanted):
            kind = "text" if wanted is str else "a list of `name: value` lines below it"
            raise UsageError(
                f"task.yaml: {key} is {printable(reprlib.repr(value))[:80]}, not {kind}.",
                fix=f"Correct {key}: it must be {kind}.",
                key=key,
            )
    return {key: value for key, value in values.items() if value is not None}


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-")
    return f"{slug}-task" if slug in _RESERVED else slug or "my-task"
