"""Releases written by hand, by somebody who holds the role of the release service."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from clr.core.files import canonical_json, sha256_bytes
from tests.candidate import Candidate, Prepared, creation, ok, prepare
from tests.house import House

RELEASE = "clr-release"


def serving(house: House) -> tuple[dict[str, Any], str]:
    """Return the release in force, ``release.json`` and its digest."""
    number = house.aliases(RELEASE)["champion"]
    query = {"name": RELEASE, "version": number, "path": "release.json"}
    answer = house.call("otto", "GET", "/model-versions/get-artifact", params=query)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content), house.tags(RELEASE, number)["clr.release_digest"]


def joined(version: Candidate) -> dict[str, Any]:
    """Return how a release names a champion."""
    return {
        "version": version.number,
        "adapter": version.digest,
        "data": "md5:" + "0" * 32 + ".dir",
        "run": version.run,
        "evidence": "",
    }


def draft(house: House, change: Callable[[dict[str, Any]], Any]) -> Prepared:
    """Return the files of a release that follows the one in force, with a change."""
    document, digest = serving(house)
    document["previous"] = digest
    change(document)
    return prepare(house.call, "ruth", "release", canonical_json(document), "release.json")


def request(made: Prepared, digest: str = "") -> dict[str, Any]:
    """Return the body of the request that registers a release."""
    digest = digest or sha256_bytes(made.data)
    tags = {"clr.key": digest, "clr.release_digest": digest, "clr.tasks": "4"}
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    return creation(made, "release", tags=listed)


def written(house: House, name: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, str]:
    """Return model and number of a release that ruth has registered, once per `name`."""
    if name not in house.made:
        made = draft(house, change)
        answer = house.call("ruth", "POST", "model-versions/create", request(made))
        number = int(ok(answer)["model_version"]["version"])
        house.made[name] = Candidate(
            RELEASE, number, "ruth", made.experiment, made.run, made.model_id, made.digest, b""
        )
    return {"model": RELEASE, "number": str(house.made[name].number)}


def naming(name: str, **about: Any):
    """Given for an attempt: a release that lets a version of `House.version` in."""

    def make(house: House) -> dict[str, str]:
        version = house.version(name, **about)
        task = version.model.removeprefix("clr-")
        return written(
            house, f"release-of-{name}", lambda r: r["tasks"].update({task: joined(version)})
        )

    return make


def swapped(house: House) -> dict[str, str]:
    """A release that gives a task that serves an adapter nobody has approved."""
    version = house.version("red-caps-2", task="red-caps")
    return written(house, "swapped", lambda r: r["tasks"].update({"red-caps": joined(version)}))


def forged(house: House) -> dict[str, str]:
    """A release that names a serving version with the digest of other bytes."""
    version = house.version("plain")
    return written(
        house, "forged", lambda r: r["tasks"]["red-caps"].update({"adapter": version.digest})
    )


def stale(house: House) -> dict[str, str]:
    """A release that follows one that does not serve."""
    return written(house, "stale", lambda r: r.update({"previous": "sha256:" + "1" * 64}))
