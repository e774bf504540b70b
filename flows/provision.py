"""The secrets of a first start with containers: each in a file of its own, made at random.

A folder that has them already is completed, and nothing in it is replaced. The files can be read
by every user, since a container's user is not the one who made them; the folder by its owner
alone.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from clr.audit.signing import new_key
from clr.core.files import write_atomic
from clr.errors import ServiceUnavailable, UsageError
from clr.registry.server.secrets import ALL, PREFECT_AUTH
from clr.serving.keys import new_written_key

ARTIFACTS, DATA = "clr-artifacts", "clr-data"
"""Buckets of registered files and of DVC."""

WRITERS = ("registry", "release", "trainer")
"""Who writes to the ledger, each with a key of its own."""

DATABASE = "postgres:5432"
_ROLES = {"registry": "clr", "ledger": "clr", "append": "clr", "prefect": "prefect"}
"""Roles of PostgreSQL, ``clr_…``, and the database of each; see docker/postgres/init.sh."""

_LOGINS = tuple(
    f"s3.{user}.{part}" for user in ("admin", "registry", "data") for part in ("id", "key")
)
_HELD = {
    "ledger.trusted": tuple(f"ledger.{who}.key" for who in WRITERS),
    "s3.json": _LOGINS,
    **{f"postgres.{role}.url": (f"postgres.{role}",) for role in _ROLES},
}
"""Files that hold what other files hold, too, or its public part."""


def provision(folder: str) -> None:
    """Write what is missing into `folder`.

    Raises:
        UsageError: no folder is named, or what is lost is still in another file of it.
        ServiceUnavailable: it cannot be written.
    """
    if not folder:
        raise UsageError("Name the folder of the secrets.", fix="python -m flows.entry secrets DIR")
    place = Path(folder)
    _require_whole(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)
        made = [name for name, text in _all(place).items() if _write(place / name, text)]
    except OSError as error:
        raise ServiceUnavailable(
            f"{place} cannot be written: {error.strerror}.", fix="Name a folder of yours."
        ) from error
    print(f"secrets   {len(made)} made in {place}")


def _require_whole(place: Path) -> None:
    """See that nothing is made anew that another file says otherwise: neither would be taken."""
    for holder, names in _HELD.items():
        lost = [name for name in names if not (place / name).is_file()]
        if lost and (place / holder).is_file():
            raise UsageError(
                f"{place} has {holder}, but not {lost[0]}, which it was made from.",
                fix=f"Put {lost[0]} back from your copy of the secrets. Without one, and before "
                f"anything was started with them, remove {holder}: then both are made anew.",
            )


def _all(place: Path) -> dict[str, str]:
    """Return content by file name; what refers to another file takes what that one holds."""
    found = {one.file: one.make() for one in (*ALL, PREFECT_AUTH)}
    found["serve.metrics.key"] = _metrics_key()
    found |= {f"postgres.{role}": _random() for role in ("admin", *_ROLES)}
    found |= {name: _random() for name in _LOGINS}
    public = []
    for who in WRITERS:
        private, pem = new_key(_kept(place / f"ledger.{who}.key"))
        found[f"ledger.{who}.key"] = private
        public.append(pem)
    known = {name: _kept(place / name) or text for name, text in found.items()}
    for role, database in _ROLES.items():
        login = f"clr_{role}:{known[f'postgres.{role}']}"
        found[f"postgres.{role}.url"] = f"postgresql://{login}@{DATABASE}/{database}"
    return {**found, "ledger.trusted": "".join(public), "s3.json": _s3(known)}


def _s3(known: dict[str, str]) -> str:
    """Return who may do what in SeaweedFS, see its wiki page "Amazon S3 API"."""
    rights = {
        "admin": ["Admin"],
        "registry": [f"{act}:{ARTIFACTS}" for act in ("Read", "Write", "List")],
        "data": [f"{act}:{DATA}" for act in ("Read", "Write", "List")],
    }
    identities = [
        {
            "name": name,
            "credentials": [
                {"accessKey": known[f"s3.{name}.id"], "secretKey": known[f"s3.{name}.key"]}
            ],
            "actions": actions,
        }
        for name, actions in rights.items()
    ]
    return json.dumps({"identities": identities}, indent=1)


def _metrics_key() -> str:
    """Return the API key with which Prometheus asks the prediction server."""
    return new_written_key()[1]


def _random() -> str:
    return secrets.token_hex(20)


def _kept(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _write(path: Path, text: str) -> bool:
    """Write a file whole, unless it is there; every user may read it, whatever the umask."""
    if path.exists():
        return False
    fresh = path.with_name(f".{path.name}.tmp")
    write_atomic(fresh, (text.rstrip("\n") + "\n").encode())
    fresh.chmod(0o444)
    fresh.replace(path)
    return True
