"""The last release that was verified, kept on this machine for a start without the registry.

Nothing in it is believed: the release is compared with its digest, and each file with its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from clr.core.files import canonical_json, write_atomic
from clr.errors import IntegrityBroken

if TYPE_CHECKING:
    from clr.registry.release import Release


def _path(state: Path) -> Path:
    return state / "serving" / "release.json"


def remember(state: Path, release: Release) -> None:
    """Keep a release under ``CLR_HOME``."""
    kept = {"version": release.version, "digest": release.digest, "release": release.to_dict()}
    write_atomic(_path(state), canonical_json(kept))


def remembered(state: Path) -> Release | None:
    """Return the release that was kept last; None: none was.

    Raises:
        IntegrityBroken: it is not what was kept.
    """
    from clr.registry.release import parse_release

    try:
        kept = json.loads(_path(state).read_bytes())
        data = canonical_json(kept["release"])
        return parse_release(data, version=int(kept["version"]), expected_digest=kept["digest"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityBroken(
            f"{_path(state)} cannot be read: {error}.",
            fix="Remove it; it is written again when the registry answers.",
        ) from error
