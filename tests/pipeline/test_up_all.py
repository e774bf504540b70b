"""`clr up`: everything of one machine, started by one command, and ended with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import requests

from tests.factory import _get
from tests.waiting import until


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)


def samples(factory) -> dict[str, float]:
    """The metrics as Prometheus reads them: value by name with labels."""
    text = _get(f"{factory.metrics}/metrics", ("", ""), {}).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return {name: float(value) for name, value in lines}


def parts(factory) -> dict[str, dict]:
    """What `clr up` wrote about its processes."""
    return json.loads((factory.plant.state / "server" / "parts.json").read_text())


def heard(factory, pool: str) -> str:
    """When Prefect's server last heard of the worker of a pool."""
    (worker,) = factory.api("POST", f"/work_pools/{pool}/workers/filter", {})
    return worker["last_heartbeat_time"]


def test_all_answer_once_it_says_so(factory):
    assert factory.ready["pid"] == factory.process.pid
    assert factory.mlflow("registered-models/search", max_results=1)
    assert factory.api("GET", "/health") is True
    pools = {one["name"] for one in factory.api("POST", "/work_pools/filter", {})}
    assert pools >= {"cpu", "registry"}
    for pool in ("cpu", "registry"):
        (worker,) = factory.api("POST", f"/work_pools/{pool}/workers/filter", {})
        assert worker["status"] == "ONLINE"
    assert _get(f"{factory.metrics}/health", ("", ""), {}).status_code == 200


def test_the_prediction_server_runs_and_signs_in_as_itself(factory):
    assert _get(f"{factory.ready['serving']}/v2/health/live", ("", ""), {}).status_code == 200
    known = environment(parts(factory)["serving"]["pid"])
    assert not [name for name in known if "PASSWORD" in name or name.startswith("PREFECT_API")]
    password = factory.secret("server.password")
    found = _get(
        f"{factory.registry}/api/2.0/mlflow/registered-models/search",
        ("clr-server", password), {"max_results": 1},
    )  # fmt: skip
    assert found.status_code == 200
    refused = requests.post(
        f"{factory.registry}/api/2.0/mlflow/registered-models/create",
        json={"name": "clr-mine"}, auth=("clr-server", password), timeout=30,
    )  # fmt: skip
    assert refused.status_code == 403


def test_prefects_server_answers_nobody_without_its_password_and_no_other_page(factory):
    url = f"{factory.prefect}/admin/version"
    assert _get(url, ("clr", "wrong"), {}).status_code == 401
    other = {"Origin": "http://127.0.0.1:1"}
    answer = requests.get(url, auth=factory.prefect_auth, headers=other, timeout=30)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_each_process_knows_only_the_secrets_that_it_needs(factory):
    known = {name: environment(one["pid"]) for name, one in parts(factory).items()}
    release, login = factory.secret("release.password"), factory.secret("prefect.auth")
    holders = {name for name, one in known.items() if release in one.values()}
    assert holders == {"release-service"}
    assert {name for name, one in known.items() if login in one.values()} == {
        *("prefect", "release-service", "warm", "watcher", "worker-cpu", "worker-registry")
    }
    flask = factory.secret("flask.key")
    assert [name for name, one in known.items() if flask in one.values()] == ["registry"]


def test_status_tells_everything_at_a_glance(factory):
    began = time.monotonic()
    answer = factory.clr("status", "--json").json
    assert time.monotonic() - began < 30  # alone: under 3 s, most of it MLflow's import
    assert answer["services"]["registry"] == factory.registry
    states = {name: one["state"] for name, one in answer["health"].items()}
    assert states == dict.fromkeys(parts(factory), "up")
    assert set(states) >= {"registry", "prefect", "release-service", "watcher", "worker-cpu"}
    assert answer["queue"]["scheduled"] is not None
    assert isinstance(answer["warnings"], list)
    # what another test started may take a moment to end
    assert until(lambda: not factory.clr("status", "--json").json["runs"], 60)
    shown = factory.clr("status").out
    assert "Services" in shown
    assert "worker-cpu" in shown


def test_metrics_are_what_prometheus_reads(factory):
    found = until(lambda: samples(factory), 30)
    assert found['clr_up{service="registry"}'] == 1
    assert found["clr_tasks"] >= 0
    assert found["clr_release_version"] >= 0
    assert found['clr_arrivals{state="done"}'] >= 0
    assert found['clr_service_restarts_total{service="prefect"}'] == 0
    ages = [age for name, age in found.items() if name.startswith("clr_worker_heartbeat_age")]
    assert len(ages) == 2
    assert max(ages) < 120


def test_a_second_one_in_the_same_workspace_is_refused_and_names_the_first(factory):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up", "--free-ports"],
        cwd=factory.plant.root, env={**os.environ, **factory.plant.settings},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7
    assert f"process {factory.process.pid}" in done.stderr


def test_a_worker_that_dies_is_started_again(factory):
    before = parts(factory)["worker-cpu"]
    os.kill(before["pid"], signal.SIGKILL)
    assert until(lambda: parts(factory)["worker-cpu"]["restarts"] == before["restarts"] + 1, 60)
    again = parts(factory)["worker-cpu"]
    assert again["pid"] != before["pid"]
    assert until(lambda: heard(factory, "cpu") > again["since"], 120)


def test_the_common_log_is_one_object_a_line(factory):
    lines = [json.loads(line) for line in factory.said().splitlines()]
    assert {"registry", "watcher", "worker-cpu"} <= {one.get("service") for one in lines}
    assert {"time", "level", "message"} <= set.intersection(*(set(one) for one in lines))
    assert (factory.plant.state / "logs" / "worker-cpu.log").stat().st_size
