"""Steps that finish once: a result is kept beside digests of its inputs and its files.

A crash is repaired by running the same command again. A step whose record has
the same inputs, and whose files still have the digests written down, is not
run again; any doubt, and it is. Code and packages are among the inputs: what is
recorded about a result names those that made it, so that after an upgrade all is
done anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clr.core.files import canonical_json, sha256_bytes, sha256_file, write_atomic
from flows import provenance

Result = dict[str, Any]


def digest_of(value: Any) -> str:
    """Return the sha256 of `value` in canonical JSON."""
    return sha256_bytes(canonical_json(value))


def made_by() -> str:
    """Return the digest of the code and the packages that a result comes from."""
    return digest_of([provenance.code_digest(), provenance.environment_digest()])


def once(folder: Path, name: str, inputs: Result, compute: Callable[[], Result]) -> Result:
    """Return the kept result of step `name`, or compute, keep and return it.

    Args:
        folder: where the step's files and its record ``<name>.step.json`` live.
        name: the step.
        inputs: JSON-serialisable values that determine the result.
        compute: does the work; its result may name files it wrote, relative to
            `folder`, under the key ``files``.
    """
    record = folder / f"{name}.step.json"
    wanted = digest_of([inputs, made_by()])
    kept = _read(record)
    if kept and kept["inputs"] == wanted and _intact(folder, kept["files"]):
        result: Result = kept["result"]
        return result
    folder.mkdir(parents=True, exist_ok=True)
    result = compute()
    files = {file: sha256_file(folder / file) for file in result.get("files", [])}
    write_atomic(record, canonical_json({"inputs": wanted, "files": files, "result": result}))
    return result


def _read(record: Path) -> Result | None:
    try:
        kept: Result = json.loads(record.read_bytes())
        return kept if {"inputs", "files", "result"} <= kept.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all(
        (folder / file).is_file() and sha256_file(folder / file) == digest
        for file, digest in files.items()
    )
