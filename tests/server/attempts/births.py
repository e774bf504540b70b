"""Registering, copying, renaming, editing and deleting models and versions."""

from __future__ import annotations

from typing import Any

import requests

from tests.candidate import Prepared, born, creation, ok, prepare
from tests.house import House
from tests.server.attempts.model import (
    BAD,
    PLAIN,
    VERSION,
    Attempt,
    How,
    Stage,
    post,
    send,
    shared,
)
from tests.server.attempts.reviewing import approved_before, champion


def files(house: House) -> Prepared:
    """Files that tess has uploaded, which no version names yet."""
    if "files" not in house.made:
        house.made["files"] = prepare(house.call, "tess", "plain")
    return house.made["files"]


def born_with(**tags: str) -> How:
    """Register the uploaded files with further tags; ``__`` stands for a dot."""

    def register(stage: Stage) -> requests.Response:
        body = creation(stage.on, "plain", tags=born(stage.on, **tags))
        return stage.call("POST", "model-versions/create", body)

    return register


def born_as(task: str = "plain", **changes: Any) -> How:
    """Register the uploaded files with a changed request."""
    return lambda stage: stage.call(
        "POST", "model-versions/create", creation(stage.on, task, **changes)
    )


def twice(stage: Stage) -> requests.Response:
    """Give the tag ``review`` twice, the second time as approved."""
    tags = [*born(stage.on), {"key": "review", "value": "approved"}]
    return stage.call("POST", "model-versions/create", creation(stage.on, "plain", tags=tags))


def is_pending(stage: Stage) -> None:
    """The server has written who registered it, and that nobody has decided."""
    house = stage.house
    found = house.get("registered-models/get", name="clr-newborn")["registered_model"]
    tags = house.tags("clr-newborn", int(found["latest_versions"][0]["version"]))
    assert (tags["clr.created_by"], tags["review"]) == (stage.who, "pending")


def newborn(house: House) -> Prepared:
    """Files for a model of their own."""
    house.call("tess", "POST", "registered-models/create", {"name": "clr-newborn"})
    return prepare(house.call, "tess", "newborn")


def promoted(house: House):
    """What the page's button does first: make the other model."""
    return house.version("plain")


def gone(name: str):
    """Given: a model with one version, which nobody has reviewed."""
    return shared(name)


def once_more(stage: Stage) -> None:
    """A model of the same name begins anew: its version 1 was approved by nobody."""
    house = stage.house
    task = stage.on.model.removeprefix("clr-")
    del house.made[task]
    again = house.version(task)
    assert again.number == 1
    assert house.tags(again.model, 1)["review"] == "pending"


def twin(house: House):
    """A second version with the idempotency key of tess's first, by tess."""
    first = house.version("plain")
    if "twin" not in house.made:
        house.version("twin", task="plain", data=first.data)
    return house.made["twin"]


def born_again(stage: Stage) -> requests.Response:
    """Register files that a version has already."""
    first = stage.on
    made = Prepared(first.experiment, first.run, first.model_id, first.digest, first.data)
    return stage.call("POST", "model-versions/create", creation(made, "patient"))


def nobody_approved(stage: Stage) -> None:
    """The approval of the first version is none of the second."""
    house, model = stage.house, stage.on.model
    found = house.get("registered-models/get", name=model)["registered_model"]
    number = int(found["latest_versions"][0]["version"])
    assert number > stage.on.number
    assert house.tags(model, number)["review"] == "pending"
    assert "clr.approvals" not in house.tags(model, number)


LOST = (BAD, 403, 409)
COPY = {"name": "clr-elsewhere", "source": "models:/{model}/{number}", "tags": []}
BUTTON = {**COPY, "name": "production"}

ROWS = [
    Attempt("tess", "registers a version", born_as("newborn"), given=newborn, then=is_pending,
            shows="done; the server writes `review: pending` and `clr.created_by`"),
    *(
        Attempt("tess", f"registers a version that says `{key}: {value}`",
                born_with(**{key.replace(".", "__"): value}), "review|clr\\.", given=files)
        for key, value in [
            ("review", "approved"),
            ("review", " Approved "),
            ("review", "承認"),
            ("review.reason", "seen, good"),
            ("Review", "approved"),
            ("clr.created_by", "bob"),
            ("clr.reviewed_by", "alice"),
            ("clr.approvals", "1 of 1: alice"),
        ]
    ),
    Attempt("tess", "registers a version with the tag `review` twice", twice, "twice",
            BAD, given=files),
    Attempt("tess", "registers a version whose digest is not that of the file",
            born_with(clr__adapter_digest="sha256:" + "0" * 64), "bytes|file|digest", given=files),
    Attempt("tess", "registers a version without a digest", born_as(tags=[]), "digest",
            given=files),
    Attempt("tess", "registers a folder of a run instead of a logged model",
            born_as(source="runs:/{run}/model", model_id=""), "models:/m-", given=files),
    Attempt("tess", "registers a folder of the server's disk", born_as(source="file:///etc"),
            "models:/m-", given=files),
    Attempt("tess", "registers an address on the web",
            born_as(source="https://example.org/model"), "models:/m-", given=files),
    Attempt("tess", "registers files with the run of another version as their origin",
            lambda stage: born_as(run_id=stage.house.version("plain").run)(stage), "made by run",
            given=files),
    Attempt("tess", "registers files with another run as their origin, and no logged model named",
            lambda stage: born_as(run_id=stage.house.version("plain").run, model_id="")(stage),
            ".", LOST, given=files),
    Attempt("tess", "registers it as a prompt, whose source MLflow does not check",
            born_as(source="dummy", tags=[{"key": "mlflow.prompt.is_prompt", "value": "true"}]),
            "models:/m-|prompt|digest", given=files),
    Attempt("alice", "registers a version", born_as(), "trainer", given=files),
    Attempt("otto", "registers a version", born_as(), "reads", given=files),
    Attempt("ruth", "registers an adapter's version", born_as(), "trainer", given=files),
    Attempt("admin", "registers a version", born_as(), "trainer", given=files),
    Attempt("tess", "makes a model of another name",
            post("registered-models/create", name="production"), "clr-"),
    Attempt("tess", "makes a model `CLR-plain`",
            post("registered-models/create", name="CLR-plain"), "clr-"),
    Attempt("tess", "makes a model `clr-<script>`",
            post("registered-models/create", name="clr-<script>alert(1)</script>"), "clr-"),
    Attempt("tess", "makes a model that is born with the tag `review`",
            post("registered-models/create", name="clr-born",
                 tags=[{"key": "review", "value": "approved"}]), "review"),
    Attempt("alice", "makes a model", post("registered-models/create", name="clr-mine"),
            "trainer"),
    Attempt("alice", "presses **Promote model** (which makes the model `production` first)",
            post("registered-models/create", name="production"), "`review` to `approved`"),
    Attempt("alice", "presses **Promote model** (which then copies the version)",
            post("model-versions/create", **BUTTON), "review"),
    Attempt("tess", "copies a version into another model of hers",
            post("model-versions/create", **COPY), "review"),
    Attempt("tess", "copies the champion over her own model, by alias",
            post("model-versions/create", name="clr-plain",
                 source="models:/clr-red-caps@champion"), "review"),
    Attempt("tess", "registers approved files once more, as another version", born_again,
            given=approved_before, then=nobody_approved,
            shows="done; the new version is `pending`"),
    Attempt("admin", "renames a model",
            post("registered-models/rename", name="{model}", new_name="clr-other"), "rename|name"),
    Attempt("tess", "renames a model to the name of one that serves",
            post("registered-models/rename", name="{model}", new_name="clr-red-caps"),
            "rename|name"),
    Attempt("tess", "deletes a model", send("DELETE", "registered-models/delete",
            {"name": "{model}"}), "admin"),
    Attempt("admin", "deletes a model that serves", send("DELETE", "registered-models/delete",
            {"name": "{model}"}), "champion|serve", given=champion),
    Attempt("admin", "deletes a model whose version was reviewed, to make it anew",
            send("DELETE", "registered-models/delete", {"name": "{model}"}), "review",
            given=approved_before),
    Attempt("admin", "deletes a model that nobody has reviewed; tess makes it anew",
            send("DELETE", "registered-models/delete", {"name": "{model}"}), given=gone("anew"),
            then=once_more, shows="done; version 1 of the new one is `pending`"),
    *(
        Attempt(who, "edits the model card of a version",
                send("PATCH", "model-versions/update", {**VERSION, "description": "All is well."}),
                "review.reason")
        for who in ("tess", "alice", "admin")
    ),
    Attempt("alice", "moves a version to the stage Production",
            post("model-versions/transition-stage", **VERSION, stage="Production",
                 archive_existing_versions=False), "stage"),
    Attempt("admin", "moves a version to the stage Production",
            post("model-versions/transition-stage", **VERSION, stage="Production",
                 archive_existing_versions=True), "stage"),
    *(
        Attempt(who, f"deletes {what}", send("DELETE", "model-versions/delete", VERSION), sentence,
                given=on)
        for who, what, sentence, on in [
            ("tess", "her own version", "admin|twin|twice", PLAIN),
            ("alice", "a version", "admin", PLAIN),
            ("otto", "a version", "reads", PLAIN),
            ("admin", "the champion", "served", champion),
            ("admin", "a reviewed version", "review", approved_before),
            ("ruth", "a release that served", "admin|served|champion",
             lambda house: {"model": "clr-release", "number": "1"}),
            ("admin", "a release that served", "served|champion",
             lambda house: {"model": "clr-release", "number": "1"}),
            ("tom", "a double of a colleague's version", "own|admin", twin),
        ]
    ),
    Attempt("tess", "deletes the double that two machines registered at once",
            send("DELETE", "model-versions/delete", VERSION), given=twin, shows="done"),
    Attempt("alice", "edits a model's description",
            send("PATCH", "registered-models/update", {"name": "{model}", "description": "Caps."}),
            shows="done"),
    Attempt("otto", "edits a model's description",
            send("PATCH", "registered-models/update", {"name": "{model}", "description": "Caps."}),
            "reads"),
    Attempt("tess", "tags a model with `review`",
            post("registered-models/set-tag", name="{model}", key="review", value="approved"),
            "review"),
    Attempt("tess", "tags a version with words of her own", post("model-versions/set-tag",
            **VERSION, key="note", value="second camera"), shows="done"),
    Attempt("otto", "tags a version with words of his own", post("model-versions/set-tag",
            **VERSION, key="note", value="second camera"), "reads"),
]  # fmt: skip
_ = ok
