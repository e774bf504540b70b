"""Real registries: SQLite files copied from one template, and one running MLflow server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.supervise import free_port
from tests import templates

HERE = Path(__file__).parent
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="session")
def shop(starting_server) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Run jobs in other processes (see workshop.py); all jobs of one call at once."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "workshop.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert process.stdin
    assert process.stdout

    def run(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
        print(json.dumps(jobs), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def template(shop, network, tmp_path_factory) -> Path:
    """An empty registry's database: building the schema takes seconds, copying it nothing."""
    templates.sync_never()
    state = tmp_path_factory.mktemp("template")
    empty = state / "empty.db"
    shop({"do": "look", "args": {"state": str(state)}, "here": True})
    shutil.copyfile(state / "mlflow.db", empty)
    arguments = {"state": str(state), "task": "warm", "adapter": str(network.one.path)}
    arguments["backbone"] = vars(network.reference)
    shop({"do": "register", "args": arguments, "here": True})
    return empty


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    """State folder of an embedded registry."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copyfile(template, folder / "mlflow.db")
    return folder


@pytest.fixture
def open_state(template: Path) -> Iterator[Path]:
    """The same where other users can reach it, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copyfile(template, folder / "mlflow.db")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def somebody_else() -> Callable[[], AbstractContextManager[None]]:
    """Act without the rights of root, whom file modes do not bind."""

    @contextmanager
    def acting() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return acting


@pytest.fixture(scope="session")
def starting_server(tmp_path_factory) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """Start ``mlflow server`` on a free port, without waiting for it."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **QUIET}, start_new_session=True
        )
    yield f"http://127.0.0.1:{port}", process, folder / "log"
    os.killpg(process.pid, 9)  # its database is thrown away
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def server(template, starting_server) -> str:
    """Address of the running server."""
    url, process, log = starting_server
    _wait_for(f"{url}/health", process, log)
    return url


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(log.read_text()[-2000:])


@pytest.fixture(params=["embedded", "server"])
def place(request, tmp_path) -> dict[str, str]:
    """Where the registry is: both kinds in turn."""
    if request.param == "embedded":
        return {"state": str(request.getfixturevalue("state")), "url": ""}
    return {"state": str(tmp_path / "state"), "url": request.getfixturevalue("server")}


@pytest.fixture(scope="module", params=["embedded", "server"])
def lasting(request, template, tmp_path_factory):
    """An opened registry of both kinds in turn that a module's tests share to read from."""
    state = tmp_path_factory.mktemp("lasting")
    shutil.copyfile(template, state / "mlflow.db")
    url = request.getfixturevalue("server") if request.param == "server" else ""
    return open_at(str(state), url)


@pytest.fixture
def registry(place):
    """An opened registry of both kinds in turn."""
    return open_at(**place)


@pytest.fixture
def embedded(state: Path):
    """An opened embedded registry."""
    return open_at(str(state))


def open_at(state: str, url: str = ""):
    """Open the registry of a state folder or of a server."""
    from clr.registry.store import open_registry
    from clr.settings import Settings

    settings = Settings(workspace=Path(state), home=Path(state), registry_url=url)
    return open_registry(settings)


@pytest.fixture
def task() -> str:
    """A task's name that no other test uses: the server is shared."""
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> SimpleNamespace:
    """A small real network with seeded weights, and two adapters of it as files."""
    import torch

    from clr.core.adapter import AdapterSpec, new_adapter, save_adapter
    from clr.core.backbone import load_backbone
    from clr.core.images import Preprocessing
    from clr.registry.package import BackboneReference

    backbone = load_backbone("resnet10t", pretrained=False)
    folder = tmp_path_factory.mktemp("adapters")
    made = {}
    for number, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(number)
        spec = AdapterSpec(
            task=f"task-{name}",
            labels=("cat", "dog", "emu"),
            backbone=backbone.name,
            backbone_digest=backbone.digest,
            preprocessing=Preprocessing(size=32, mean=backbone.mean, std=backbone.std),
        )
        head = torch.randn(3, backbone.channels, generator=generator), torch.zeros(3)
        adapter = new_adapter(spec, backbone, head)
        digest = save_adapter(adapter, folder / f"{name}.safetensors")
        made[name] = SimpleNamespace(
            adapter=adapter, path=folder / f"{name}.safetensors", digest=digest
        )
    reference = BackboneReference(backbone.name, backbone.digest, pretrained=False)
    return SimpleNamespace(backbone=backbone, reference=reference, **made)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Four encoded images, PNG and JPEG."""
    import io

    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    files = []
    for kind in ("PNG", "JPEG", "PNG", "JPEG"):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, kind)
        files.append(file.getvalue())
    return files
