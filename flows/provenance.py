"""Digests of what made a result besides its data: the code and the environment."""

from __future__ import annotations

import getpass
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import clr
from clr.core.files import canonical_json, sha256_bytes, sha256_file
from clr.registry.acts import AUTHENTICATED, LOCAL

if TYPE_CHECKING:
    from clr.registry.store import Registry


@cache
def code_digest() -> str:
    """Return the sha256 over (path, digest) of every Python file of this project."""
    root = Path(clr.__file__).parents[1]
    files = sorted(path for package in ("clr", "flows") for path in (root / package).rglob("*.py"))
    return sha256_bytes(
        canonical_json([[str(path.relative_to(root)), sha256_file(path)] for path in files])
    )


@cache
def environment() -> dict[str, str]:
    """Return Python, platform and the version of every installed distribution."""
    # each access to a distribution's metadata parses its file anew
    found = [dist.metadata for dist in metadata.distributions()]
    installed = {(one["Name"] or "").lower(): one["Version"] for one in found}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        **dict(sorted(installed.items())),
    }


@cache
def environment_digest() -> str:
    """Return the sha256 of `environment`."""
    return sha256_bytes(canonical_json(environment()))


def numeric_environment(device: str, threads: int) -> str:
    """Return what bit-equality of logits may depend on, as one line.

    Canary logits are compared bit by bit only between equal lines; elsewhere the
    gate replays the test set.
    """
    versions = environment()
    parts = [
        f"{name}={versions.get(name, '')}" for name in ("torch", "torchvision", "timm", "pillow")
    ]
    return " ".join(
        [*parts, versions["platform"], f"cpu={_processor()}", device, f"threads={threads}"]
    )


def hardware(device: str) -> str:
    """Return the name of what computes: the accelerator, or the processor; empty if unknown."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return _processor()


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
    )


def local_user() -> str:
    """Return the name of the operating-system user, for acts done without a server.

    One who has none, as in a container that runs as a number alone, is ``uid-<number>``.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return f"uid-{os.getuid()}"


def identity(registry: Registry) -> tuple[str, str]:
    """Return who acts here and how that is known, for the ledger.

    A guarded server has checked the password of the user that this process signs in as;
    without one there is only the name of the operating-system user, which is weaker.
    """
    if registry.guarded:
        from mlflow.utils.credentials import read_mlflow_creds

        return read_mlflow_creds().username or "-", AUTHENTICATED
    return local_user(), LOCAL
