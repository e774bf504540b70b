"""kill -9 at every boundary: the same command finishes the job, and there is one of each.

One onboarding (and one review) is killed again and again, each time a little later, by a
real SIGKILL in a real process; what the last run leaves must look as if nothing had happened.
Kills inside one stage (swapping data, each call of a registration) are in tests/data and
tests/registry.
"""

from __future__ import annotations

import json
import signal

import pytest

from flows.verify import run_verify

pytestmark = pytest.mark.timeout(900)  # whichever test comes first sits through the ordeal

REGISTRY = "mlflow.tracking.client:MlflowClient"
RECORDING = (REGISTRY, "clr.audit", "clr.data.objects", "clr.registry", "flows.promote")
"""Where those points are between which registry, ledger and data do not tell the same yet."""
ONBOARDING = [
    ("flows.register:require_writable", 1, "before"),  # validated
    ("clr.data.versioning:version_task", 1, "before"),
    ("clr.data.objects:add", 1, "after"),
    ("clr.data.versioning:version_task", 1, "after"),  # versioned
    (f"{REGISTRY}.create_run", 1, "after"),
    ("flows.steps:write_atomic", 1, "after"),  # written down
    ("clr.core.train:save_checkpoint", 1, "after"),  # epoch 0
    ("clr.core.train:save_checkpoint", 1, "after"),  # epoch 1
    ("clr.core.train:save_checkpoint", 1, "before"),
    ("clr.core.train:save_checkpoint", 1, "after"),  # epoch 2
    ("clr.core.adapter:save_adapter", 1, "after"),
    ("clr.core.files:os.fsync", 3, "before"),  # in the middle of a file
    ("flows.steps:write_atomic", 1, "after"),  # trained
    ("flows.measure:measure", 1, "after"),
    ("flows.steps:write_atomic", 1, "after"),  # measured
    ("flows.stages:judge", 1, "after"),
    ("flows.register:keep_report", 1, "after"),  # judged
    ("clr.registry.runs:log_bytes", 1, "after"),
    ("clr.registry.versions:register_adapter", 1, "before"),
    (f"{REGISTRY}.log_model_artifacts", 1, "after"),
    (f"{REGISTRY}.create_model_version", 1, "before"),
    (f"{REGISTRY}.create_model_version", 1, "after"),
    ("clr.registry.versions:set_candidate", 1, "after"),
    ("clr.audit.ledger:Ledger.append", 2, "after"),  # the first tells of the data again
    ("clr.registry.runs:finish", 1, "after"),
    ("flows.register:write_atomic", 1, "before"),
]
REVIEW = [
    ("clr.audit.ledger:Ledger.append", 1, "before"),
    ("clr.audit.ledger:Ledger.append", 1, "after"),  # decided
    (f"{REGISTRY}.set_model_version_tag", 2, "after"),
    (f"{REGISTRY}.create_model_version", 1, "before"),
    ("clr.registry.releases:write_release", 1, "after"),
    (f"{REGISTRY}.set_registered_model_alias", 1, "before"),
    (f"{REGISTRY}.set_registered_model_alias", 1, "after"),  # it serves
    ("clr.registry.releases:settle", 1, "after"),
    ("flows.promote:record", 1, "before"),
    ("flows.promote:record", 1, "after"),
]


@pytest.fixture(scope="module")
def ordeal(processes, new_plant, new_caps, tmp_path_factory):
    """Kill one onboarding and its review at every point, then let both finish."""
    folder = tmp_path_factory.mktemp("ordeal")
    plant = new_plant(folder / "plant")
    task = new_caps(folder / "red-caps", epochs=2)
    onboard = ("onboard", task, "--json")
    review = ("review", "red-caps", 1, "approve", "--reason", "survived", "--json")
    ends = {}
    for command, points in ((onboard, ONBOARDING), (review, REVIEW)):
        for number, point in enumerate(points):
            (end,) = processes((plant, command, point))
            ends[command[0], number, *point] = end
            if point[0].startswith(RECORDING):
                end["named"] = run_verify(plant.session())["problems"]
        (ends[command[0], "done"],) = processes((plant, command))
    return plant, ends


def test_each_run_dies_where_it_should(ordeal):
    _, ends = ordeal
    alive = {
        point: (end["code"], end["err"][-500:])
        for point, end in ends.items()
        if point[1] != "done" and end["code"] != -signal.SIGKILL
    }
    assert alive == {}


def test_nothing_that_was_cut_off_looks_like_tampering(ordeal):
    _, ends = ordeal
    looked_at = {point: end["named"] for point, end in ends.items() if "named" in end}
    assert len(looked_at) > 15
    assert {point: named for point, named in looked_at.items() if named} == {}


def test_the_same_command_finishes_the_job(ordeal):
    _, ends = ordeal
    for command in ("onboard", "review"):
        assert ends[command, "done"]["code"] == 0, ends[command, "done"]["err"]
    document = json.loads(ends["onboard", "done"]["out"])
    assert (document["verdict"], document["version"]) == ("passed", 1)
    assert json.loads(ends["review", "done"]["out"])["release"] == 1


def test_there_is_one_of_each(ordeal):
    plant, _ = ordeal
    assert plant.ledger() == [
        ("data.versioned", "clr-red-caps"),
        ("gate.judged", "clr-red-caps"),
        ("adapter.registered", "clr-red-caps/1"),
        ("review.approved", "clr-red-caps/1"),
        ("release.activated", "clr-release/1"),
    ]
    session = plant.session()
    client = session.registry.client
    for experiment, model in (("clr/red-caps", "clr-red-caps"), ("clr/release", "clr-release")):
        identifier = client.get_experiment_by_name(experiment).experiment_id
        (run,) = client.search_runs([identifier])
        assert run.info.status == "FINISHED"
        assert len(client.search_logged_models([identifier])) == 1
        (version,) = client.search_model_versions(f"name = '{model}'")
        assert version.run_id == run.info.run_id


def test_every_epoch_is_logged_once(ordeal):
    plant, ends = ordeal
    run = json.loads(ends["onboard", "done"]["out"])["mlflow"]["run_id"]
    history = plant.session().registry.client.get_metric_history(run, "val_loss")
    assert [one.step for one in history] == [0, 1, 2]


def test_no_temporary_file_is_left(ordeal):
    plant, _ = ordeal
    assert plant.leftovers() == []


def test_everything_verifies_and_serves(ordeal):
    plant, _ = ordeal
    assert plant.clr("verify").code == 0
    image = plant.root / "data/red-caps/test/light/00.png"
    (labelled,) = plant.clr("predict", "--json", image).json["predictions"]
    assert labelled["label"] == "light"
    again = plant.clr("onboard", plant.root.parent / "red-caps", "--json").json
    assert (again["version"], again["already"]) == (1, True)


def test_a_training_that_was_killed_goes_on_at_its_epoch(ordeal):
    """What is told again is what was kept; each run adds one epoch to it."""
    _, ends = ordeal
    saved = "clr.core.train:save_checkpoint"
    told = [
        end["err"].count("epoch ")
        for point, end in ends.items()
        if point[0] == "onboard" and saved in point
    ]
    assert told == [0, 1, 2, 2]
