"""What Prefect's server is told may run, and what it lets whoever asks choose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests
import yaml

from clr.settings import Settings
from flows import arrivals, deployments
from flows.automations import content, trigger
from flows.deployments import JOB_TEMPLATE, POOLS, apply, schedules
from tests.conftest import make_task
from tests.waiting import until

ROOT = Path(__file__).parents[2]
NAMES = (
    "onboard/onboard",
    "promote/promote",
    "reconcile/reconcile",
    "replay-retention/replay-retention",
    "drift-check/drift-check",
)
CPU = Settings(device="cpu")


@pytest.fixture
def server(factory):
    """The factory's Prefect server, for Prefect's client in this process."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    auth = factory.secret("prefect.auth")
    with temporary_settings({PREFECT_API_URL: factory.prefect, PREFECT_API_AUTH_STRING: auth}):
        yield factory


def everything(factory):
    automations = factory.api("POST", "/automations/filter", {})
    known = [factory.api("GET", f"/deployments/name/{name}") for name in NAMES]
    return {one["name"]: one["id"] for one in automations}, {one["id"] for one in known}


def test_all_is_told_once_however_often(server):
    before = everything(server)
    apply(CPU)
    assert everything(server) == before
    assert {"onboard-arrivals", "clr-lost-runs"} <= before[0].keys()


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_leaves_nothing_but_a_name_to_who_starts_a_run(factory, pool):
    known = factory.api("GET", f"/work_pools/{pool}")
    assert (known["type"], known["base_job_template"]) == ("process", JOB_TEMPLATE)


@pytest.mark.parametrize("variable", ["command", "env", "working_dir", "image"])
def test_who_starts_a_run_cannot_choose_what_is_executed(factory, variable):
    known = factory.api("GET", "/deployments/name/onboard/onboard")
    body = {"parameters": {"path": "incoming/x"}, "job_variables": {variable: "touch x"}}
    answer = requests.post(
        f"{factory.prefect}/deployments/{known['id']}/create_flow_run",
        json=body, auth=factory.prefect_auth, proxies={"http": ""}, timeout=30,
    )  # fmt: skip
    assert answer.status_code == 422
    assert variable in answer.json()["detail"]


def test_forms_have_a_sentence_for_every_field(factory):
    for name in NAMES:
        schema = factory.api("GET", f"/deployments/name/{name}")["parameter_openapi_schema"]
        assert all(len(one["description"]) > 10 for one in schema["properties"].values()), name


def test_prefect_yaml_says_the_same():
    """`prefect deploy --all` reads it with these models and functions."""
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.cli.deploy._triggers import _initialize_deployment_triggers

    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    known = PrefectYamlModel.model_validate(written)
    assert known.pull == []
    wanted = deployments.deployments(CPU)
    assert [one.name for one in known.deployments] == [one.name for one in wanted]
    for yes, one in zip(known.deployments, wanted, strict=True):
        assert (yes.entrypoint, yes.description) == (one.entrypoint, one.description)
        assert (tuple(yes.tags), yes.work_pool.name) == (one.tags, one.pool)
        assert not yes.work_pool.job_variables
        crons = [(each["cron"], each["timezone"]) for each in _schedules(written, one.name)]
        assert crons == [(each.schedule.cron, each.schedule.timezone) for each in schedules(one)]
        limit = yes.concurrency_limit
        assert (limit.limit if limit else 0) == one.limit
        assert not limit or limit.collision_strategy == one.collision
        made = _initialize_deployment_triggers(yes.name, yes.triggers or [])
        own = [trigger(one)] if one.trigger else []
        assert [content(each.as_automation()) for each in _for_one(made)] == [
            content(each.as_automation()) for each in _for_one(own)
        ]


def _schedules(written, name):
    (one,) = (each for each in written["deployments"] if each["name"] == name)
    return one.get("schedules", [])


def _for_one(triggers):
    import uuid

    for each in triggers:
        each.set_deployment_id(uuid.UUID(int=1))
    return triggers


def test_a_cron_that_is_none_is_told_as_the_setting():
    from clr.errors import UsageError

    (replay,) = (
        one
        for one in deployments.deployments(Settings(device="cpu", replay_cron="on sundays"))
        if one.name == "replay-retention"
    )
    with pytest.raises(UsageError, match="on sundays"):
        schedules(replay)


def test_what_arrives_is_onboarded_once(factory, tmp_path):
    factory.drop(make_task(tmp_path / "mallows", 1))
    factory.until_version("mallows")
    settings = Settings(workspace=factory.plant.root, home=factory.plant.state)

    def record():
        found = [one for one in arrivals.read_all(settings) if one.task == "mallows"]
        return found[0] if found and found[0].finished else None

    done = until(record, 30)
    assert (done.state, done.result["verdict"]) == ("done", "passed")
    assert until(lambda: time.sleep(0.3) or _ended(factory, done.flow_run), 60)
    run = factory.api("GET", f"/flow_runs/{done.flow_run}")
    assert (run["state_type"], run["parameters"]["arrival"]) == ("COMPLETED", done.digest)
    shown = factory.api("POST", "/artifacts/filter", {"limit": 200})
    keys = {one["key"] for one in shown if one["flow_run_id"] == done.flow_run}
    assert keys == {"gate-mallows", "training-mallows", "mallows-mlflow-run"}

    known = factory.api("GET", "/deployments/name/onboard/onboard")["id"]
    again = factory.api(
        "POST", f"/deployments/{known}/create_flow_run", {"parameters": run["parameters"]}
    )["id"]
    state = until(lambda: time.sleep(0.3) or _ended(factory, again), 90)
    assert (state["name"], "done" in state["message"]) == ("Duplicate", True)
    assert factory.mlflow("model-versions/get", name="clr-mallows", version=2) is None


def test_a_run_reads_nothing_outside_the_workspace(factory, tmp_path):
    task = make_task(tmp_path / "elsewhere", 2)
    known = factory.api("GET", "/deployments/name/onboard/onboard")["id"]
    body = {"parameters": {"path": str(task)}}
    run = factory.api("POST", f"/deployments/{known}/create_flow_run", body)["id"]
    state = until(lambda: time.sleep(0.3) or _ended(factory, run), 90)
    assert state["type"] == "FAILED"
    assert "outside the folders" in state["message"]


def _ended(factory, run):
    state = factory.api("GET", f"/flow_runs/{run}")["state"]
    return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None
