"""Make a workspace: git, DVC, ``data.dvc``, ``clr.env`` and ``incoming/`` in one folder.

Files that other parts of the project want in it are handed in by the caller.

DVC's own files are written here as `dvc init` and `dvc add` of an empty ``data/``
write them (a test compares), so that a workspace is there in a tenth of a second.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from clr.core.files import write_atomic
from clr.data.dvc import IGNORED, ignore_patterns
from clr.data.listing import EMPTY_DATA_DVC, EMPTY_DIR, keep_object, object_path
from clr.data.repository import git_root, run_git
from clr.errors import ServiceUnavailable, UsageError
from clr.settings import Settings, absolute

DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
    remote = clr
['remote "clr"']
    url = ../.clr/remote
"""
DVC_GITIGNORE = "/config.local\n/tmp\n/cache\n"
GITIGNORE = ("/data", "/.clr/", "/incoming/", "/quarantine/")

_OURS = frozenset({
    ".git", ".dvc", ".dvcignore", ".gitignore", ".clr", "clr.env", "data", "data.dvc", "incoming",
    "mlflow",
})  # fmt: skip


def init_workspace(directory: Path, files: Mapping[str, str] | None = None) -> list[Path]:
    """Make a workspace in `directory`, or complete one; what is there already stays.

    Args:
        directory: made if it does not exist. A git repository around it is used.
        files: text of further files by their path in the workspace.

    Returns:
        Absolute paths of what was made, in the order of making; empty if nothing was missing.

    Raises:
        UsageError: the path is a file, or a folder with other things in it that is in
            no git repository, or it has a ``data`` folder of its own.
        ServiceUnavailable: it cannot be written.
    """
    root = absolute(directory)
    _refuse_foreign(root)
    try:
        return _make(root, files or {})
    except OSError as error:
        culprit = error.filename or root
        in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
        raise ServiceUnavailable(
            f"Cannot make a workspace in {root}: {culprit}: {error.strerror or error}.",
            fix=f"Move {culprit} away: a folder belongs there."
            if in_the_way
            else "Choose a folder that is writable and has room.",
            path=str(culprit),
        ) from error


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file.", fix="Give the path of a folder.")
    if not root.is_dir() or (root / "data.dvc").is_file():
        return
    try:
        entries = sorted(path.name for path in root.iterdir())
        has_data = "data" in entries and any((root / "data").iterdir())
    except OSError as error:
        raise UsageError(
            f"{root} cannot be used: {error.strerror}.", fix="Give the path of a folder of yours."
        ) from error
    foreign = [name for name in entries if name not in _OURS]
    if foreign and git_root(root) is None:
        raise UsageError(
            f"{root} is not empty ({', '.join(foreign[:3])}{' …' if len(foreign) > 3 else ''}) "
            "and in no git repository.",
            fix="Choose an empty or a new folder; or run `git init` there first if it is meant.",
        )
    if has_data:
        raise UsageError(
            f"{root / 'data'} exists and is not pinned by a data.dvc.",
            fix="Choose another folder; then onboard each task from where it lies.",
        )


def _make(root: Path, files: Mapping[str, str]) -> list[Path]:
    made: list[Path] = []
    _folder(root, made)
    if git_root(root) is None and shutil.which("git"):
        _git_init(root)
        made.append(root / ".git")
    _file(root / ".dvc" / "config", DVC_CONFIG, made)
    _file(root / ".dvc" / ".gitignore", DVC_GITIGNORE, made)
    _folder(root / ".dvc" / "tmp", made)
    _file(root / ".dvcignore", "".join(f"{line}\n" for line in IGNORED), made)
    ignore_patterns(root)
    _add_lines(root / ".gitignore", GITIGNORE, made)
    _file(root / "clr.env", env_template(), made)
    for name, content in files.items():
        _file(root / name, content, made)
    _folder(root / "data", made)
    _folder(root / "incoming", made)
    if not (root / "data.dvc").exists():
        keep_object(object_path(root / ".dvc" / "cache", EMPTY_DIR), b"[]")
    # last: from here on it is a workspace
    _file(root / "data.dvc", EMPTY_DATA_DVC, made)
    return made


def _git_init(root: Path) -> None:
    done = run_git(root, "-c", "init.defaultBranch=main", "init", "--quiet")
    if done.returncode:
        raise ServiceUnavailable(
            f"git could not make a repository in {root}: {done.stderr.strip()}.",
            fix="Correct that, then run the same again.",
        )


def _folder(path: Path, made: list[Path]) -> None:
    if not path.is_dir():
        path.mkdir(parents=True)
        made.append(path)


def _file(path: Path, content: str, made: list[Path]) -> None:
    if not path.exists():
        write_atomic(path, content.encode())
        made.append(path)


def _add_lines(path: Path, lines: tuple[str, ...], made: list[Path]) -> None:
    old = path.read_bytes() if path.is_file() else b""  # of any encoding
    there = {line.strip().strip(b"/") for line in old.splitlines()}
    missing = [line.encode() for line in lines if line.strip("/").encode() not in there]
    if not missing:
        return
    if not old:
        made.append(path)
    elif not old.endswith(b"\n"):
        old += b"\n"
    write_atomic(path, old + b"\n".join(missing) + b"\n")


def env_template() -> str:
    """Return the text of a ``clr.env`` that names every setting and sets none."""
    lines = [
        "# Settings of this workspace, for everybody who works in it. The environment wins.",
        "# Take the # away before a name to set it. No secrets here: this file belongs into git.",
    ]
    for name, field in Settings.model_fields.items():
        if name == "workspace":
            continue
        default = "" if field.default is None else field.default
        lines += ["", f"# {field.description}", f"#CLR_{name.upper()}={default}"]
    return "\n".join(lines) + "\n"
