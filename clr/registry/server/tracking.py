"""Read acts on runs, logged models, experiments and files from the present Flask request.

Ids are taken from wherever they stand in a request: more than the handler uses, never fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import request

from clr.registry.acts import Act, Kind
from clr.registry.server.asked import Asked, Malformed, Reader, Refusal
from clr.registry.server.paths import ids_in, logical
from clr.registry.server.readers import body

_IDS = frozenset({
    "run_id", "runId", "run_uuid", "runUuid",
    "model_id", "modelId", "source_run_id", "sourceRunId",
})  # fmt: skip
_MOST_IDS = 100


def tracked(kind: Kind) -> Reader:
    """Return the reader of a write to runs or logged models, wherever their ids stand in it."""

    def reader(endpoint: str) -> Asked:
        raw = body() if request.data or request.is_json else {}
        ids = {*_ids(raw), *_view_ids()}
        if len(ids) > _MOST_IDS:
            raise Malformed(f"The request names more than {_MOST_IDS} runs and models at once.")
        return Asked(Act(kind, endpoint=endpoint, name=min(ids, default="")), tuple(sorted(ids)))

    return reader


def _view_ids() -> Iterator[str]:
    for name, value in (request.view_args or {}).items():
        if name in _IDS:
            yield str(value)


def _ids(raw: Any) -> Iterator[str]:
    """Yield every id in a body: more than the handler uses, never fewer."""
    pending = [raw]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            for name, value in one.items():
                if name in _IDS and isinstance(value, str) and value:
                    yield value
                elif isinstance(value, Mapping | list):
                    pending.append(value)
        elif isinstance(one, list):
            pending.extend(one)


def run_update(endpoint: str) -> Asked:
    """Read the update of a run: ending it is one thing, renaming it another."""
    renames = bool({"run_name", "runName"} & body().keys())
    return tracked(Kind.TRACK if renames else Kind.FINISH_RUN)(endpoint)


def experiment(kind: Kind) -> Reader:
    """Return the reader of an act on a whole experiment."""

    def reader(endpoint: str) -> Asked:
        raw = body()
        identifier = str(raw.get("experiment_id", raw.get("experimentId", "")))
        return Asked(Act(kind, endpoint=endpoint, name=identifier), experiment=identifier)

    return reader


def new_experiment(endpoint: str) -> Asked:
    """Read the creation of an experiment; where its files lie is the server's to say."""
    raw = body()
    found = Asked(Act(Kind.TRACK, endpoint=endpoint, name=str(raw.get("name", ""))))
    if raw.get("artifact_location") or raw.get("artifactLocation"):
        raise Refusal(
            "The server keeps all files in its own store. Create the experiment without an "
            "artifact location.",
            found,
        )
    return found


def file(kind: Kind) -> Reader:
    """Return the reader of an act on a file of the artifact store, named in the address."""

    def reader(endpoint: str) -> Asked:
        return file_act(kind, endpoint, str((request.view_args or {}).get("artifact_path", "")))

    return reader


def file_act(kind: Kind, endpoint: str, path: str) -> Asked:
    """Return the act on the file at `path` of the artifact store, once decoded by HTTP."""
    place = logical(path)
    return Asked(Act(kind, endpoint=endpoint, path=place), ids_in(place))


def multipart(endpoint: str) -> Asked:
    """Read a step of an upload in parts: file in the body, folder in the address."""
    folder = str((request.view_args or {}).get("artifact_path", ""))
    return _inside(endpoint, folder, str(body().get("path", "")))


def presigned(endpoint: str) -> Asked:
    """Read the request for an address to upload to, which goes around the server."""
    raw = body()
    found = tracked(Kind.WRITE_FILE)(endpoint)
    place = logical(str(raw.get("path", "")))
    act = Act(Kind.WRITE_FILE, endpoint=endpoint, path=place, name=found.act.name)
    return Asked(act, (*found.ids, *ids_in(place)))


def run_file(endpoint: str) -> Asked:
    """Read the UI's own upload into a run, ``?run_uuid=…&path=…``."""
    run, path = request.args.get("run_uuid", ""), request.args.get("path", "")
    found = _inside(endpoint, run, path)
    return Asked(found.act, (run, *found.ids))


def _inside(endpoint: str, folder: str, path: str) -> Asked:
    """Return the act of writing `path`, which must be safe by itself, into `folder`."""
    inner, outer = logical(path), logical(folder)
    place = f"{outer}/{inner}"
    return Asked(Act(Kind.WRITE_FILE, endpoint=endpoint, path=place), ids_in(place))
