"""The workspace's git repository, if it is in one: where it begins and at which commit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from clr.errors import ServiceUnavailable
from clr.settings import absolute


def git_root(folder: Path) -> Path | None:
    """Return the root of the git repository around `folder`, or None."""
    here = absolute(folder)
    for place in (here, *here.parents):
        if (place / ".git").exists():
            return place
    return None


def git_state(workspace: Path) -> tuple[str, bool]:
    """Return the commit that the workspace is at, and whether tracked files differ from it.

    Returns:
        (40 hex, dirty); ("", True) before the first commit, and ("", False) where
        there is no repository or no git.
    """
    if git_root(workspace) is None or shutil.which("git") is None:
        return "", False
    commit = run_git(workspace, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit.returncode:
        return "", True
    status = run_git(workspace, "status", "--porcelain", "--untracked-files=no")
    return commit.stdout.strip(), bool(status.returncode or status.stdout.strip())


def git_output(
    folder: Path,
    *arguments: str,
    answers: Collection[int] = (0,),
    stdin: str = "",
    seconds: float | None = None,
) -> str:
    """Return what git says. One that refuses has not said that there is nothing.

    A repository of another user is refused with an empty output ("dubious ownership").

    Args:
        folder: where.
        arguments: of git.
        answers: exit codes that are an answer; some commands end with 1 where there is none yet.
        stdin: what git reads.
        seconds: how long it may take, where another machine has to answer.

    Raises:
        ServiceUnavailable: git ends with another code, takes too long, or is not installed.
    """
    done = run_git(folder, *arguments, stdin=stdin, seconds=seconds)
    if done.returncode not in answers:
        doing = next(one for one in arguments if one[0] != "-" and "=" not in one)
        raise ServiceUnavailable(
            f"git {doing} failed in {folder}: {' '.join(done.stderr.split())[:300]}",
            fix="Put that right, or run this as the user whose repository it is.",
        )
    return done.stdout


def run_git(
    folder: Path, *arguments: str, stdin: str = "", seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git in `folder`, whatever repository the environment points at; it asks no person.

    Raises:
        ServiceUnavailable: git is not installed, or takes longer than `seconds`.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name[:4] != "GIT_" or name == "GIT_SSH_COMMAND"
    }
    # status writes nothing
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=folder,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:  # its text is the command, with the password in an address
        raise ServiceUnavailable(
            f"git {arguments[0]}: no answer in {seconds:.0f} s.", fix="See that the remote is up."
        ) from None
    except FileNotFoundError as error:
        if error.filename != "git":  # the folder
            raise
        raise ServiceUnavailable(
            "git is not installed.", fix="Install it, then run the same command again."
        ) from error
