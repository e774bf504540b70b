"""The part of a backup that is the history of the workspace's git repository, as a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import sha256_bytes
from clr.data.repository import git_output, git_root, run_git
from clr.errors import ServiceUnavailable

if TYPE_CHECKING:
    from clr.settings import Settings
    from flows.backup import Collection

BUNDLE = "dumps/git.bundle"
SHALLOW = "dumps/git/shallow"
"""Where a clone of a part of the history ends: without it git misses what comes before."""


def collect(got: Collection, settings: Settings, before: Mapping[str, Any]) -> dict[str, str]:
    """Take all commits, branches and tags, the repository's configuration and its hooks.

    Args:
        got: the snapshot.
        settings: of the workspace.
        before: facts of the snapshot before.

    Returns:
        {head, refs}: where HEAD is, and a digest of all references; empty without a repository.

    Raises:
        ServiceUnavailable: git fails.
    """
    workspace = settings.workspace
    root = git_root(workspace)
    if root is None or shutil.which("git") is None:
        return {}
    if root != workspace:
        got.left_out.append(f"the git repository {root}: it is more than this workspace")
        return {}
    folder = Path(git_output(workspace, "rev-parse", "--absolute-git-dir").strip())
    got.file(folder / "config", "dumps/git/config")
    for hook in sorted((folder / "hooks").glob("*")):
        if hook.suffix != ".sample" and hook.is_file():
            got.file(hook, f"dumps/git/hooks/{hook.name}")
    # show-ref ends with 1 before the first commit, symbolic-ref where HEAD is on no branch
    refs = git_output(workspace, "show-ref", "--head", answers=(0, 1))
    head = git_output(workspace, "symbolic-ref", "--quiet", "HEAD", answers=(0, 1)).strip()
    ends = _ends(got, workspace)
    about = {"head": head, "refs": sha256_bytes(refs.encode() + ends)}
    same = (before.get("git") or {}).get("refs") == about["refs"]
    kept = got.before.get(BUNDLE)
    if same and kept is not None and got.store.object(kept.sha256).is_file():
        got.files[BUNDLE] = kept
    elif refs:
        _bundle(got, workspace)
    return about


def _ends(got: Collection, workspace: Path) -> bytes:
    """Take the file that says where the history of a shallow clone ends; return its bytes."""
    name = git_output(workspace, "rev-parse", "--git-path", "shallow").strip()
    one = got.file(workspace / name, SHALLOW)
    return got.store.object(one.sha256).read_bytes() if one else b""


def _bundle(got: Collection, workspace: Path) -> None:
    out = str(got.temporary(BUNDLE))
    options = ("-c", "pack.threads=1")
    born = run_git(workspace, "rev-parse", "--verify", "--quiet", "HEAD").returncode == 0
    what = ("HEAD", "--all") if born else ("--all",)  # a tag may be there before any commit
    git_output(workspace, *options, "bundle", "create", "--quiet", out, *what)
    got.taken(BUNDLE)


def restore(folder: Path, bundle: Path | None, about: Mapping[str, str]) -> None:
    """Make the repository of a workspace whose working files are there already.

    Args:
        folder: the workspace.
        bundle: file with the history; None before the first commit.
        about: what `collect` returned.

    Raises:
        ServiceUnavailable: git is missing or fails.
    """
    if shutil.which("git") is None:
        raise ServiceUnavailable(
            "git is not installed, and this backup has the history of a repository.",
            fix="Install git, then run the same again.",
        )
    git_output(folder, "-c", "init.defaultBranch=main", "init", "--quiet")
    if bundle is not None:
        refs = ["refs/*:refs/*"] if about["head"] else ["refs/*:refs/*", "+HEAD:refs/clr/head"]
        git_output(folder, "fetch", "--quiet", "--update-head-ok", str(bundle), *refs)
    if about["head"]:
        git_output(folder, "symbolic-ref", "HEAD", about["head"])
    elif bundle is not None:
        commit = git_output(folder, "rev-parse", "refs/clr/head").strip()
        git_output(folder, "update-ref", "--no-deref", "HEAD", commit)
        git_output(folder, "update-ref", "-d", "refs/clr/head")
    if bundle is not None:
        git_output(folder, "reset", "--quiet", "--mixed")
