"""A version that can be reviewed, without the minute of training before it.

What the registry's policy looks at is real: a run, a logged model with files that were
uploaded through the server, and a version whose tags say what the files are. Only the
adapter's bytes would load as no network.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

Call = Callable[..., requests.Response]
ADAPTER = "artifacts/adapter.safetensors"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class Candidate:
    """A registered version.

    Attributes:
        model: ``clr-<task>``.
        number: of the version.
        by: user who registered it.
        experiment: id of its experiment.
        run: id of its run.
        model_id: of the logged model that holds its files.
        digest: of its adapter file.
        data: bytes of that file.
    """

    model: str
    number: int
    by: str
    experiment: str
    run: str
    model_id: str
    digest: str
    data: bytes = field(repr=False)

    @property
    def source(self) -> str:
        """The address of its files."""
        return f"models:/{self.model_id}"

    @property
    def folder(self) -> str:
        """Its files' folder among the server's artifacts."""
        return f"{self.experiment}/models/{self.model_id}/artifacts"

    @property
    def run_folder(self) -> str:
        """Its run's folder among the server's artifacts."""
        return f"{self.experiment}/{self.run}/artifacts"


@dataclass(frozen=True)
class Prepared:
    """Run and logged model with files, which no version names yet; see `Candidate`."""

    experiment: str
    run: str
    model_id: str
    digest: str
    data: bytes = field(repr=False)

    @property
    def folder(self) -> str:
        """Its files' folder among the server's artifacts."""
        return f"{self.experiment}/models/{self.model_id}/artifacts"


def prepare(
    call: Call,
    by: str,
    task: str,
    data: bytes | None = None,
    file: str = ADAPTER,
    files_in: str = "",
) -> Prepared:
    """Make a run and a logged model with a file in it: the adapter, as a rule.

    Args:
        call: `tests.house.House.call`.
        by: user.
        task: names the experiment of the run.
        data: bytes of the file; some of its own where None.
        file: its name.
        files_in: id of another experiment for the logged model.
    """
    experiment = experiment_of(call, by, f"clr/{task}")
    run = ok(call(by, "POST", "runs/create", {"experiment_id": experiment}))["run"]["info"]
    body = {"name": f"clr-{task}", "source_run_id": run["run_id"]}
    body["experiment_id"] = files_in or experiment
    model = ok(call(by, "POST", "logged-models", body))["model"]["info"]
    model_id, content = model["model_id"], data or secrets.token_bytes(256)
    folder = model["artifact_uri"].removeprefix("mlflow-artifacts:/")
    upload = call(by, "PUT", f"{ARTIFACTS}/{folder}/{file}", data=content)
    assert upload.status_code == 200, upload.text
    ready = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
    ok(call(by, "PATCH", f"logged-models/{model_id}", ready))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Prepared(experiment, run["run_id"], model_id, digest, content)


def experiment_of(call: Call, by: str, name: str) -> str:
    """Return the id of an experiment, made if it is not there."""
    made = call(by, "POST", "experiments/create", {"name": name})
    if made.status_code == 200:
        return str(made.json()["experiment_id"])
    found = call(by, "GET", "experiments/get-by-name", params={"experiment_name": name})
    return str(ok(found)["experiment"]["experiment_id"])


def born(made: Prepared, verdict: str = "passed", **tags: str) -> list[dict[str, str]]:
    """Return the tags that a version is registered with."""
    values = {
        "clr.key": made.digest,
        "clr.adapter_digest": made.digest,
        "clr.verdict": verdict,
        "clr.gate_release": "",
        "review": "pending",
        **{name.replace("__", "."): value for name, value in tags.items()},
    }
    return [{"key": key, "value": value} for key, value in values.items()]


def creation(made: Prepared, task: str, **changes: Any) -> dict[str, Any]:
    """Return the body of the request that registers `made`."""
    body = {
        "name": f"clr-{task}",
        "source": f"models:/{made.model_id}",
        "run_id": made.run,
        "model_id": made.model_id,
        "description": f"A card of {task}.",
        "tags": born(made),
    }
    return {**body, **changes}


def make_candidate(
    call: Call,
    *,
    task: str,
    by: str = "tess",
    verdict: str = "passed",
    data: bytes | None = None,
    tags: dict[str, str] | None = None,
    files_in: str = "",
) -> Candidate:
    """Register a version of ``clr-<task>`` as the user `by`.

    Args:
        call: `tests.house.House.call`.
        task: task name; its model is made if it is not there.
        by: a trainer.
        verdict: what the tag ``clr.verdict`` shall say.
        data: bytes of the adapter file; some of its own where None.
        tags: further tags.
        files_in: see `prepare`.
    """
    made = prepare(call, by, task, data, files_in=files_in)
    call(by, "POST", "registered-models/create", {"name": f"clr-{task}"})
    asked = creation(made, task, tags=born(made, verdict, **(tags or {})))
    found = ok(call(by, "POST", "model-versions/create", asked))["model_version"]
    return Candidate(
        found["name"], int(found["version"]), by,
        made.experiment, made.run, made.model_id, made.digest, made.data,
    )  # fmt: skip


def ok(answer: requests.Response) -> Any:
    """Return the document of an answer that must be a yes."""
    assert answer.status_code == 200, f"{answer.request.url}: {answer.status_code} {answer.text}"
    return answer.json()
