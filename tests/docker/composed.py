"""What ``docker/compose.yaml`` says, read as Compose reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}``."""
    return _VARIABLE.sub(lambda found: given.get(found[1]) or found[2] or "", text)


def project(**given: str) -> dict[str, Any]:
    """The project with these variables set, without the anchors' own entries."""
    document = yaml.safe_load(interpolated(FILE.read_text(encoding="utf-8"), given))
    return {name: part for name, part in document.items() if not name.startswith("x-")}


def services(**given: str) -> dict[str, Any]:
    """The services of every profile, by name."""
    return dict(project(**given)["services"])


def image_environment(target: str) -> dict[str, str]:
    """What the Dockerfile sets in the image `target`, its base's settings included."""
    stages: dict[str, tuple[str, dict[str, str]]] = {}
    stage = ""
    for line in DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            stage = words[3]
            stages[stage] = (words[1], {})
        elif words[:1] == ["ENV"]:
            stages[stage][1].update(word.split("=", 1) for word in words[1:])
    found: dict[str, str] = {}
    while target in stages:
        parent, own = stages[target]
        found = {**own, **found}
        target = parent
    return found


def state_volume(service: Mapping[str, Any]) -> str:
    """The volume at ``/state``; empty where it is none that others could mount."""
    for volume in service.get("volumes", ()):
        if isinstance(volume, str) and volume.endswith(":/state"):
            return volume.partition(":")[0]
    return ""


def plugin() -> bool:
    """Say whether the client of Docker has Compose."""
    import subprocess

    if not any((Path(one) / "docker").exists() for one in os.environ["PATH"].split(os.pathsep)):
        return False
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30)
    return done.returncode == 0
