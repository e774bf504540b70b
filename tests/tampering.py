"""Ways to tamper with a workspace behind the back of `clr`: files, SQL, and a stolen key.

Each function takes a workspace (tests/conftest.py::Plant) and changes it as somebody would who
has its disk, its databases and its git repository, but not the commands' consent.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from clr.audit.chain import GENESIS, digest
from clr.audit.signing import PRIVATE_NAME, Head, Signer, load_signer
from clr.core.files import canonical_json, sha256_bytes

MODEL = "clr-red-caps"
RELEASE = "clr-release"


def overwrite(path: Path, data: bytes) -> None:
    """Put other bytes in the place of a file; links and write protection do not stop it."""
    assert path.read_bytes() != data, f"changes nothing: {path}"
    path.unlink()
    path.write_bytes(data)


def edit(path: Path, was: str, becomes: str) -> None:
    """Replace text in a file."""
    overwrite(path, path.read_bytes().replace(was.encode(), becomes.encode(), 1))


# --- the ledger ----------------------------------------------------------------------------


@contextmanager
def unprotected(plant: Any) -> Iterator[sqlite3.Connection]:
    """Open the ledger's table with its triggers off; they are put back."""
    with closing(sqlite3.connect(plant.state / "ledger/ledger.db")) as database, database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        for name, _ in (kept := triggers.fetchall()):
            database.execute(f"DROP TRIGGER {name}")
        yield database
        for _, sql in kept:
            database.execute(sql)


def in_ledger(statements: str) -> Callable[[Any], None]:
    """Run SQL on the ledger's table."""

    def run(plant: Any) -> None:
        with unprotected(plant) as database:
            before = database.total_changes
            for statement in statements.split(";"):
                database.execute(statement)
            assert database.total_changes > before, f"changes nothing: {statements}"

    return run


def rows(plant: Any) -> list[dict[str, Any]]:
    """All rows of the ledger, in order."""
    with closing(sqlite3.connect(plant.state / "ledger/ledger.db")) as database:
        database.row_factory = sqlite3.Row
        found = database.execute("SELECT * FROM clr_ledger ORDER BY seq").fetchall()
    return [dict(row) for row in found]


def write_anew(plant: Any, kept: list[dict[str, Any]], signer: Signer) -> Head:
    """Put rows in the place of all, hashed and signed anew; return the head they make."""
    previous, head = GENESIS, signer.sign(0, GENESIS)
    with unprotected(plant) as database:
        database.execute("DELETE FROM clr_ledger")
        for seq, row in enumerate(kept, 1):
            row |= {"seq": seq, "previous": previous, "key_id": signer.key_id}
            row["hash"] = previous = digest(row)
            head = signer.sign(seq, row["hash"])
            row["signature"] = head.signature
            marks = ", ".join(f":{name}" for name in row)
            database.execute(f"INSERT INTO clr_ledger ({', '.join(row)}) VALUES ({marks})", row)
    return head


def keep_head(plant: Any, head: Head) -> None:
    """Put a head in the place of the one that the machine has kept."""
    overwrite(plant.state / "ledger/head.json", head.to_json())


def foreign(plant: Any) -> Signer:
    """A key of somebody else."""
    return load_signer(plant.root.parent / "foreign keys")


def own(plant: Any) -> Signer:
    """The machine's own key."""
    return load_signer(plant.state / "keys")


def trust(plant: Any, signer: Signer) -> None:
    """Put the public key of somebody else beside the ledger's own."""
    (public,) = (plant.root.parent / "foreign keys").glob("*.pub")
    assert signer.key_id.removeprefix("sha256:").startswith(public.stem)
    (plant.state / "keys" / public.name).write_bytes(public.read_bytes())


def signed_anew_by_somebody(plant: Any) -> None:
    """Write the whole chain anew with a foreign key, which is not placed beside."""
    keep_head(plant, write_anew(plant, rows(plant), foreign(plant)))


def signed_anew_and_trusted(plant: Any) -> None:
    """Write the whole chain anew with a foreign key, and make it trusted."""
    signed_anew_by_somebody(plant)
    trust(plant, foreign(plant))


def keys_replaced(plant: Any) -> None:
    """Write the whole chain anew with another key, and replace the machine's own by it."""
    signed_anew_by_somebody(plant)
    for file in (plant.state / "keys").iterdir():
        file.unlink()
    for file in (plant.root.parent / "foreign keys").iterdir():
        target = plant.state / "keys" / file.name
        target.write_bytes(file.read_bytes())
        target.chmod(0o600)
    assert (plant.state / "keys" / PRIVATE_NAME).exists()


def rewritten_with_the_own_key(plant: Any) -> None:
    """Somebody with the machine's key makes himself the actor of an entry, and signs all anew."""
    kept = rows(plant)
    kept[1]["time"] = kept[0]["time"]
    keep_head(plant, write_anew(plant, kept, own(plant)))


def cut_off_with_its_head(plant: Any) -> None:
    """Take the last entry away, and sign the head before it."""
    last = rows(plant)[-1]["seq"]
    in_ledger(f"DELETE FROM clr_ledger WHERE seq = {last}")(plant)
    before = rows(plant)[-1]
    keep_head(plant, own(plant).sign(before["seq"], before["hash"]))


def appended_without_key(plant: Any) -> None:
    """Add an entry that follows the last one, signed with a foreign key in the own one's name."""
    last = rows(plant)[-1]
    row = {**last, "seq": last["seq"] + 1, "previous": last["hash"], "key": "forged"}
    row["hash"] = digest(row)
    row["signature"] = foreign(plant).sign(row["seq"], row["hash"]).signature
    with unprotected(plant) as database:
        marks = ", ".join(f":{name}" for name in row)
        database.execute(f"INSERT INTO clr_ledger ({', '.join(row)}) VALUES ({marks})", row)


def entry_without_predecessor(plant: Any) -> None:
    """Let entry 3 follow no entry, hashed and signed anew with the own key."""
    row = rows(plant)[2] | {"previous": "sha256:" + "0" * 63 + "1"}
    row["hash"] = digest(row)
    row["signature"] = own(plant).sign(3, row["hash"]).signature
    names = ("previous", "hash", "signature")
    with unprotected(plant) as database:
        marks = ", ".join(f"{name} = :{name}" for name in names)
        database.execute(f"UPDATE clr_ledger SET {marks} WHERE seq = 3", row)


def triggers_dropped(plant: Any) -> None:
    """Make the table one that takes any change."""
    with closing(sqlite3.connect(plant.state / "ledger/ledger.db")) as database, database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {name}")


def ledger_overwritten(plant: Any) -> None:
    """Put something else in the place of the database and of its log."""
    overwrite(plant.state / "ledger/ledger.db", b"gone" * 4096)
    for log in (plant.state / "ledger").glob("ledger.db-*"):
        log.unlink()


def two_rows_swapped(plant: Any) -> None:
    """Exchange the numbers of entries 2 and 3."""
    in_ledger(
        "UPDATE clr_ledger SET seq = -2 WHERE seq = 2; UPDATE clr_ledger SET seq = 2 WHERE seq = 3;"
        "UPDATE clr_ledger SET seq = 3 WHERE seq = -2"
    )(plant)


# --- the registry --------------------------------------------------------------------------


def sql(*statements: str) -> Callable[[Any], None]:
    """Change the registry's database directly."""

    def run(plant: Any) -> None:
        with closing(sqlite3.connect(plant.state / "mlflow.db")) as database, database:
            for statement in statements:
                assert database.execute(statement).rowcount, f"changes nothing: {statement}"

    return run


def alias(model: str, name: str, version: int | None) -> Callable[[Any], None]:
    """Move an alias, or take it away."""
    if version is None:
        return sql(
            f"DELETE FROM registered_model_aliases WHERE name = '{model}' AND alias = '{name}'"
        )
    return sql(
        "INSERT OR REPLACE INTO registered_model_aliases (name, alias, version) "
        f"VALUES ('{model}', '{name}', {version})"
    )


def tag(key: str, value: str, model: str = MODEL, version: int = 1) -> Callable[[Any], None]:
    """Write a tag of a version."""
    return sql(
        "INSERT OR REPLACE INTO model_version_tags (name, version, key, value) "
        f"VALUES ('{model}', {version}, '{key}', '{value}')"
    )


def column(name: str, value: str) -> Callable[[Any], None]:
    """Write a column of the row of version 1; `value` is an SQL expression."""
    return sql(f"UPDATE model_versions SET {name} = {value} WHERE name = '{MODEL}' AND version = 1")


def param(name: str, value: str) -> Callable[[Any], None]:
    """Write a parameter of the run that made version 1."""
    return sql(
        f"UPDATE params SET value = '{value}' WHERE key = '{name}' AND run_uuid = "
        f"(SELECT run_id FROM model_versions WHERE name = '{MODEL}' AND version = 1)"
    )


def without_version(model: str, version: int) -> Callable[[Any], None]:
    """Delete the row of a version, with its tags and aliases."""
    return sql(
        f"DELETE FROM model_version_tags WHERE name = '{model}' AND version = {version}",
        f"DELETE FROM model_versions WHERE name = '{model}' AND version = {version}",
    )


def version_added(plant: Any) -> None:
    """Copy the row of version 1, with its tags, as version 9."""
    with closing(sqlite3.connect(plant.state / "mlflow.db")) as database, database:
        for table in ("model_versions", "model_version_tags"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            copied = ", ".join("9" if name == "version" else f'"{name}"' for name in names)
            database.execute(
                f"INSERT INTO {table} SELECT {copied} FROM {table} "
                f"WHERE name = '{MODEL}' AND version = 1"
            )


# --- files of the registry -----------------------------------------------------------------


def run_file(plant: Any, path: str, model: str = MODEL, version: int = 1) -> Path:
    """A file of the run that made a version."""
    with closing(sqlite3.connect(plant.state / "mlflow.db")) as database:
        query = (
            "SELECT artifact_uri FROM runs JOIN model_versions ON run_uuid = run_id "
            "WHERE model_versions.name = ? AND version = ?"
        )
        ((address,),) = database.execute(query, (model, version)).fetchall()
    return Path(address.removeprefix("file://"), path)


def model_file(plant: Any, path: str, model: str = MODEL, version: int = 1) -> Path:
    """A file that is registered as part of a version."""
    with closing(sqlite3.connect(plant.state / "mlflow.db")) as database:
        query = "SELECT storage_location FROM model_versions WHERE name = ? AND version = ?"
        ((address,),) = database.execute(query, (model, version)).fetchall()
    return Path(address.removeprefix("file://"), path)


def edited(path: str, was: str = "", becomes: str = "") -> Callable[[Any], None]:
    """Change text in a file of the run that made version 1; by default its last byte."""

    def run(plant: Any) -> None:
        file = run_file(plant, path)
        if was:
            edit(file, was, becomes)
        else:
            overwrite(file, file.read_bytes()[:-1] + b"?")

    return run


ADAPTER = "artifacts/adapter.safetensors"


def adapter_swapped(plant: Any) -> str:
    """Put the adapter of another task, whole and valid, in the place of version 1's."""
    other = model_file(plant, ADAPTER, "clr-green-caps").read_bytes()
    overwrite(model_file(plant, ADAPTER), other)
    return sha256_bytes(other)


def adapter_swapped_with_its_tag(plant: Any) -> None:
    """The same, and its tag says so."""
    tag("clr.adapter_digest", adapter_swapped(plant))(plant)


def evidence_swapped_with_its_tag(plant: Any) -> None:
    """Put the evidence of another task in the place of version 1's, tag and local copy too."""
    other = run_file(plant, "evidence/evidence.safetensors", "clr-green-caps").read_bytes()
    overwrite(run_file(plant, "evidence/evidence.safetensors"), other)
    tag("clr.evidence_digest", sha256_bytes(other))(plant)


def sealed_anew(plant: Any) -> None:
    """Edit the model card of a run, its digest in ``files.json``, and the tag that names that."""
    card, files = run_file(plant, "card.md"), run_file(plant, "files.json")
    overwrite(card, card.read_bytes() + b"Seen by everybody.\n")
    listed = json.loads(files.read_bytes())
    listed["files"]["card.md"] = sha256_bytes(card.read_bytes())
    overwrite(files, canonical_json(listed))
    tag("clr.files_digest", sha256_bytes(files.read_bytes()))(plant)


def release_rewritten(version: int, name: str, value: Any) -> Callable[[Any], None]:
    """Edit a field of a release, and every tag that names its digest."""

    def run(plant: Any) -> None:
        file = model_file(plant, "release.json", RELEASE, version)
        document = json.loads(file.read_bytes())
        document[name] = value
        overwrite(file, canonical_json(document))
        made = sha256_bytes(canonical_json(document))
        tag("clr.release_digest", made, RELEASE, version)(plant)
        tag("clr.key", made, RELEASE, version)(plant)
        if name == "previous":
            tag("clr.previous_release", value, RELEASE, version)(plant)

    return run


# --- data ----------------------------------------------------------------------------------

IMAGE = "red-caps/train/dark/00.png"


def image_changed(plant: Any) -> None:
    """Put another picture in the place of one of ``data/``."""
    other = plant.root / "data/green-caps/train/dark/00.png"
    overwrite(plant.root / "data" / IMAGE, other.read_bytes())


def image_changed_and_pinned(plant: Any) -> None:
    """The same, and ``data.dvc`` is made anew by DVC itself."""
    from clr.data import dvc, objects

    image_changed(plant)
    with dvc.open_repo(plant.session().settings) as repo:
        objects.add(repo)


def image_object(plant: Any, store: str) -> Path:
    """DVC's copy of a picture."""
    from clr.data.listing import md5_file

    md5 = md5_file(plant.root / "data" / IMAGE)
    return Path(plant.root / store, "files/md5", md5[:2], md5[2:])


def object_changed(store: str) -> Callable[[Any], None]:
    """Change the last byte of DVC's copy of a picture."""

    def run(plant: Any) -> None:
        file = image_object(plant, store)
        overwrite(file, file.read_bytes()[:-1] + b"?")

    return run
