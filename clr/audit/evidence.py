"""Where each digest of an audit is explained on its page, and how to compute it anew (pure).

The commands are those of sha256sum, md5sum, jq, openssl and MLflow wherever a digest is of a
file's bytes, so that nobody has to trust this project to check them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DIGEST = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}\.dir")

_NAMED = {
    "actual": "Bytes as the server received them",
    "adapter": "An adapter's file",
    "backbone": "A backbone's state",
    "code": "The code of a registration",
    "data": "A task's folder",
    "digest": "An answer that was given",
    "gate": "A gate report",
    "policy": "The review policy that held",
    "previous": "The release before it",
    "release": "A release",
    "router": "The router of a release",
}
"""What a field of a ledger entry names, in words."""

_SIGNED = "The public key that signed"
KEYS = (
    "for key in .clr/keys/*.pub; do "
    'openssl pkey -pubin -in "$key" -outform DER | tail -c 32 | sha256sum; done'
)
VERIFY = "clr verify"


@dataclass(frozen=True)
class Evidence:
    """What one digest is of.

    Attributes:
        digest: as written in the document.
        what: the thing, in a few words.
        anchor: id of the place on the page that explains it.
        command: what computes it anew.
    """

    digest: str
    what: str
    anchor: str
    command: str


def evidence(document: Mapping[str, Any]) -> dict[str, Evidence]:
    """Return what each digest of a document is of, images aside, by digest.

    What this version was made of comes first, then what its ledger entries say of others; of
    several explanations the first stands.
    """
    found: dict[str, Evidence] = {}
    for digest, what, anchor, command in (*_chain(document), *_service(document)):
        if digest:
            found.setdefault(digest, Evidence(digest, what, anchor, command))
    for digest, what, anchor, command in (*_entries(document), *_told(document)):
        place = anchor or f"digest-{len(found) + 1}"
        found.setdefault(digest, Evidence(digest, what, place, command))
    return found


def audited(document: Mapping[str, Any]) -> str:
    """Return the command that computes the whole chain of the version anew."""
    return f"clr audit {shlex.quote(document['task'])}@{document['version']}"


def every_image(document: Mapping[str, Any]) -> str:
    """Return the command that hashes every image of the version, in a workspace that has it."""
    folder = shlex.quote(f"data/{document['task']}")
    lines = """jq -r '.data.images[] | "\\(.sha256[7:])  \\(.path)"'"""
    return f"{audited(document)} --json | {lines} | (cd {folder} && sha256sum --check)"


def registry(document: Mapping[str, Any]) -> str:
    """Return the command that tells MLflow's own command line where the registry is."""
    address = document["registry"]["address"] or "sqlite:///.clr/mlflow.db"
    return f"export MLFLOW_TRACKING_URI={shlex.quote(address)}"


_Row = tuple[str | None, str, str, str]


def _chain(document: Mapping[str, Any]) -> Iterator[_Row]:
    data, environment = document["data"], document["environment"]
    backbone, gate = document["backbone"], document["gate"]
    whole = audited(document)

    def kept(path: str) -> str:
        return _fetched(f"-r {_run(document)} -a {path}")

    yield data["manifest"], "Path, split, class and bytes of all images", "images", whole
    yield data["digest"], "The task's folder, as DVC pins it", "data", _listing(data["digest"])
    dvc_file = f"sha256sum {kept('data/data.dvc')}"
    yield data["dvc_file"], "The file data.dvc as it was", "data", dvc_file
    path = "validation/validation.json"
    yield from _row(document, "validation", "The report on the images", f"sha256sum {kept(path)}")
    code = 'python -c "from flows.provenance import code_digest; print(code_digest())"'
    yield from _row(document, "code", "Every Python file of this project", code)
    packages = f"jq -cSj . {kept('environment.json')} | sha256sum"
    said = "Python, platform and every installed package"
    yield environment["digest"], said, "environment", packages
    yield backbone["digest"], "The backbone's state, tensor by tensor", "backbone", VERIFY
    file = str(backbone["name"] or "").removeprefix("file:")
    yield backbone["sha256"], "The backbone's file", "backbone", f"sha256sum {shlex.quote(file)}"
    model = shlex.quote(f"models:/{document['registry']['model']}/{document['version']}")
    adapter = _fetched(f"-u {model}/artifacts/adapter.safetensors")
    yield from _row(document, "adapter", "The adapter's file", f"sha256sum {adapter}")
    report = kept("gate/gate.json")
    yield gate["digest"], "The gate's report", "gate", f"sha256sum {report}"
    measured = f"sha256sum {kept('evidence/evidence.safetensors')}"
    yield gate["evidence"], "What was measured on the test images", "gate", measured
    for place, one in enumerate(gate["checks"] or ()):
        what = f"What the check {one['name']} of {one['task']} was shown"
        record = f"jq -r '.checks[{place}].evidence' {report}"
        yield one["evidence"], what, f"check-{place + 1}", record


def _row(document: Mapping[str, Any], link: str, what: str, command: str) -> Iterator[_Row]:
    yield document[link]["digest"], what, link, command


def _fetched(what: str) -> str:
    """Return the path of a file of the registry, as a shell gets it; an empty line comes first."""
    return f'"$(mlflow artifacts download {what} | tail -1)"'


def _run(document: Mapping[str, Any]) -> str:
    return shlex.quote(document["training"]["run_id"] or "RUN")


def _listing(digest: str | None) -> str:
    """Return the command for DVC's list of a folder, whose own md5 the digest is."""
    if not DIGEST.fullmatch(digest or ""):  # anything else might do something of its own
        return VERIFY
    name = (digest or "").partition(":")[2]
    return f'md5sum "$(dvc cache dir)/files/md5/{name[:2]}/{name[2:]}"'


def _service(document: Mapping[str, Any]) -> Iterator[_Row]:
    for one in document["service"]:
        number, anchor = one["release"], f"release-{one['entry']}"
        yield one["digest"], f"Release {number}", anchor, _release(number)
        what = f"The gate report that admitted release {number}"
        yield one["gate"], what, anchor, _release(number, "gate.json")


def _release(number: int, file: str = "release.json") -> str:
    return f"sha256sum {_fetched(f'-u models:/clr-release/{number}/{file}')}"


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the hashes of entries, then what entries name; those have no place of their own."""
    ledger, judged = document["ledger"], document["gate"]["release"]
    for one in ledger["entries"]:
        yield one["hash"], f"Entry {one['seq']} of the ledger", f"entry-{one['seq']}", VERIFY
    if ledger["head"]:
        yield ledger["head"]["hash"], "The ledger's newest entry", "ledger", VERIFY
        yield ledger["head"]["key_id"], _SIGNED, "", KEYS
    if judged:
        yield judged, "The release that the gate judged it against", "", VERIFY
    for one in ledger["entries"]:
        yield one["previous"], f"The entry before entry {one['seq']}", "", VERIFY
        yield one["key_id"], _SIGNED, "", KEYS
        for field, digest in _digests(one["payload"]):
            what = _NAMED.get(field, f"What is called {field}")
            yield digest, f"{what}, named by entry {one['seq']}", "", VERIFY
        for _, digest in _digests(one["key"]):
            yield digest, f"In the key by which entry {one['seq']} is written once", "", VERIFY


def _digests(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Yield the digests in a JSON value, each with the name of the field that it is in."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _digests(one, str(name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _digests(one, field)
    elif isinstance(value, str):
        yield from ((field, found) for found in DIGEST.findall(value))


def _told(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the digests that problems and all other words name, and nothing else."""
    images = document["data"]["images"] or ()
    of_images = {one["sha256"] for one in images}
    for place, one in enumerate(document["verdict"]["problems"]):
        for _, digest in _digests(one):
            if digest not in of_images:
                yield digest, "Named by a problem", f"problem-{place + 1}", audited(document)
    rest = {**document, "data": {**document["data"], "images": None}}
    for field, digest in _digests(rest):
        yield digest, f"Named as {field}", "", audited(document)
