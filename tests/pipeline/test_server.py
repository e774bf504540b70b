"""The same job where a running MLflow server keeps the registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from clr.errors import ServiceUnavailable
from flows.supervise import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a running ``mlflow server``."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def test_the_whole_job_against_a_server(server, plant, template):
    there = {"CLR_REGISTRY_URL": server}
    for number, name in enumerate(("red-caps", "green-caps")):
        answer = plant.clr("onboard", template.tasks / name, "--json", **there)
        assert answer.code == 0, answer.err
        document = answer.json
        assert (document["verdict"], document["version"]) == ("passed", 1)
        assert document["gate"]["earlier_tasks"] == number
        assert plant.clr("review", name, 1, "approve", **there).code == 0
    again = plant.clr("onboard", template.tasks / "red-caps", "--json", **there).json
    assert (again["version"], again["already"]) == (1, True)
    status = plant.clr("status", "--json", **there).json
    assert [(one["name"], one["champion"]) for one in status["tasks"]] == [
        ("green-caps", 1),
        ("red-caps", 1),
    ]
    assert status["services"]["registry"] == server
    image = template.tasks / "green-caps/test/light/00.png"
    (labelled,) = plant.clr("predict", "--json", image, **there).json["predictions"]
    assert (labelled["task"], labelled["label"]) == ("green-caps", "light")
    assert plant.clr("roi", "--json", **there).json["tasks"].keys() == {"red-caps", "green-caps"}
    verified = plant.clr("verify", "--json", **there)
    assert (verified.code, verified.json["problems"]) == (0, [])
    assert not (plant.state / "mlflow.db").exists()
    assert plant.leftovers() == []


@pytest.mark.parametrize("command", [("roi",), ("verify",), ("review", "a", 1, "approve")])
def test_a_server_that_is_gone_is_named(plant, command):
    answer = plant.clr(*command, CLR_REGISTRY_URL="http://127.0.0.1:9")
    assert answer.code == ServiceUnavailable.exit_code
    assert "127.0.0.1:9" in answer.err
    assert "Traceback" not in answer.err
