"""New commits that change ``data.dvc``: the tasks that they change arrive."""

from __future__ import annotations

from clr.settings import Settings


def poll(settings: Settings) -> bool:
    """Look for a new commit; return whether something arrived."""
    return False
