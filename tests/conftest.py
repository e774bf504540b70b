"""A real plant: a workspace, small real tasks, a small real backbone, one Prefect server.

Nothing is replaced by a stand-in. What is small is small on purpose: a network of half a
million seeded weights as a pinned file, and tasks of 48 pictures of coloured caps, dark
and light, that anybody can tell apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import memory

memory.keep_files_in_memory()
# before any of these libraries is first imported
os.environ.update(
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="1",
    GX_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    OMP_NUM_THREADS="1",
    PREFECT_HOME=tempfile.mkdtemp(prefix="clr-tests-prefect-"),
    PREFECT_LOGGING_EXTRA_LOGGERS="clr",
    PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL",
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW="ignore",
    PREFECT_RESULTS_DEFAULT_SERIALIZER="json",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
)
FOR_TESTS = {"CLR_WRITE_DOCS", "CLR_REQUIRE_BROWSER"}
for _name in [name for name in os.environ if name.startswith("CLR_")]:
    if _name not in FOR_TESTS:
        del os.environ[_name]  # a developer's own settings are none of the tests'

# dozens of processes load the same five thousand modules: none compiles them again
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from PIL import Image  # noqa: E402

from tests import templates  # noqa: E402

# how fast examples are drawn and tried says something of the machine, nothing of the code
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")
templates.compile_once()
os.environ["SSL_CERT_FILE"] = templates.one_authority(os.environ["PREFECT_HOME"])
pytest_plugins = [
    "tests.workers", "tests.watchdog", "tests.house", "tests.postgres", "tests.factory",
    "tests.web",
]  # fmt: skip

ARCHITECTURE = "test_resnet"
WEIGHTS = f"{ARCHITECTURE}.safetensors"
COLOURS = {"red-caps": 0, "green-caps": 1, "blue-caps": 2}
TINTS = (  # red, green, blue, yellow, violet
    (1.0, 0.35, 0.35), (0.35, 1.0, 0.35), (0.35, 0.35, 1.0), (1.0, 1.0, 0.1), (0.9, 0.1, 0.9),
)  # fmt: skip
UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP", "EVENT_LOGGER", "FOREMAN", "LATE_RUNS", "PAUSE_EXPIRATIONS",
    "SCHEDULER", "TASK_RUN_RECORDER", "TRIGGERS",
)  # fmt: skip
"""Of Prefect's server in tests that only run flows; `factory` has a server with all of them."""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say what stays of the files of tests."""
    memory.keep_nothing(config)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


def picture(random: np.random.Generator, colour: int, light: bool, side: int = 32) -> Image.Image:
    """A cap of one colour, dark or light, with patches that no other picture has."""
    patches = random.integers(0, 90, (5, 5, 1)).repeat(3, 2) + (130 if light else 20)
    soft = Image.fromarray(patches.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(soft) * np.array(TINTS[colour]) + random.normal(0, 3, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_task(
    folder: Path,
    colour: int = 0,
    *,
    seed: int = 0,
    train: int = 12,
    test: int = 12,
    labels: tuple[str, str] = ("dark", "light"),
    epochs: int = 1,
) -> Path:
    """Write a good task folder; ``epochs=0`` leaves ``task.yaml`` out."""
    random = np.random.default_rng([colour, seed])
    for split, count in (("train", train), ("test", test)):
        for label in labels if count else ():
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(count):
                picture(random, colour, label == labels[1]).save(place / f"{number:02d}.png")
    if epochs:
        recipe = f"recipe: {{epochs: {epochs}, image_size: 32}}\n"
        (folder / "task.yaml").write_text(recipe, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def new_caps() -> Callable[..., Path]:
    """Function (folder, colour, …) -> a good task folder, see `make_task`."""
    return make_task


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Address of the one Prefect server of this test session; in force in this process.

    It keeps flow runs, their states and events; it does not act on them.
    """
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # other servers have them
            for name in UNUSED_SERVICES:
                patch.setenv(f"PREFECT_SERVER_SERVICES_{name}_ENABLED", "false")
            stack.enter_context(prefect_test_harness(server_startup_timeout=600))
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def backbone_settings(once: Callable[..., Any]) -> dict[str, str]:
    """Settings of a small backbone with seeded weights, and of limits that fit its size."""
    folder, digest = once("weights", _make_weights)
    return {
        "CLR_BACKBONE": f"file:{folder / WEIGHTS}",
        "CLR_BACKBONE_ARCHITECTURE": ARCHITECTURE,
        "CLR_BACKBONE_SHA256": digest,
        "CLR_DEVICE": "cpu",
        "CLR_THREADS": "1",
        # a forward pass of 2 ms says nothing about latency on a busy machine
        "CLR_GATE_MAX_LATENCY_RATIO": "1000",
    }


def _make_weights(folder: Path) -> str:
    import safetensors.torch
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    path = folder / WEIGHTS
    safetensors.torch.save_file({name: t.contiguous() for name, t in state.items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document


@dataclass(frozen=True)
class Plant:
    """A workspace and the settings that its commands run with."""

    root: Path
    settings: dict[str, str]

    def clr(self, *arguments: object, at: Path | None = None, **settings: str) -> Answer:
        """Run a command here in this process, with nothing kept from the one before."""
        from click.testing import CliRunner

        from flows import session
        from flows.cli import main

        session._session.cache_clear()
        with chdir(at or self.root):
            done = CliRunner().invoke(
                main, [str(one) for one in arguments], env={**self.settings, **settings}
            )
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Answer(done.exit_code, done.stdout, done.stderr)

    def session(self) -> Any:
        """A fresh session of this workspace."""
        from flows import session

        session._session.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.settings.items():
                patch.setenv(name, value)
            return session.open_session(self.root)

    @property
    def state(self) -> Path:
        """``CLR_HOME``."""
        return Path(self.settings.get("CLR_HOME", self.root / ".clr"))

    def rows(self, table: str) -> int:
        """Number of rows of a table of the embedded registry; 0 before there is one."""
        if not (self.state / "mlflow.db").exists():
            return 0
        with closing(sqlite3.connect(self.state / "mlflow.db")) as database:
            (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)

    def ledger(self) -> list[tuple[str, str]]:
        """(action, subject) of every ledger entry."""
        from clr.audit.ledger import open_ledger

        return [(one.action, one.subject) for one in open_ledger(self.state).entries()]

    def photograph(self) -> dict[str, Any]:
        """All that must not change when something is refused."""
        files = [self.root / "data.dvc", *sorted((self.root / "data").rglob("*"))]
        tree = {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file()
        }
        return {
            "files": tree,
            "runs": self.rows("runs"),
            "versions": self.rows("model_versions"),
            "aliases": self.rows("registered_model_aliases"),
            "ledger": self.ledger(),
        }

    def leftovers(self) -> list[str]:
        """Temporary files and folders that no finished command may leave."""
        found = [*self.root.rglob(".*.tmp"), *self.root.rglob(".partial-*")]
        found += self.root.glob(".clr/.mlflow-*")
        for scratch in self.root.rglob("scratch"):
            found += scratch.iterdir() if scratch.is_dir() else ()
        return sorted(str(path) for path in found)


@pytest.fixture(scope="session")
def plant_settings(prefect_api: str, backbone_settings: dict[str, str]) -> dict[str, str]:
    """What all commands of a plant run with."""
    return {**backbone_settings, "PREFECT_API_URL": prefect_api}


@pytest.fixture(scope="session")
def new_plant(plant_settings: dict[str, str]) -> Callable[[Path], Plant]:
    """Function (folder) -> an empty workspace."""
    from clr.data.workspace import init_workspace

    templates.migrate_once()
    templates.draw_once()
    templates.measure_briefly()
    templates.sync_never()
    templates.beat_never()

    def make(root: Path) -> Plant:
        init_workspace(root)
        return Plant(root, plant_settings)

    return make


@pytest.fixture
def plant(tmp_path: Path, new_plant: Callable[[Path], Plant]) -> Plant:
    """An empty workspace."""
    return new_plant(tmp_path / "plant")


@pytest.fixture
def git_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on git refuses every repository, as it does one of another user."""
    fake = tmp_path / "refusing" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership' >&2\nexit 128\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True)
class Working:
    """A plant with three approved tasks, and what the commands that made it said."""

    plant: Plant
    tasks: Path
    onboarded: dict[str, Answer]
    reviewed: dict[str, Answer]


@pytest.fixture(scope="session")
def template(
    once: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    new_plant: Callable[[Path], Plant],
    plant_settings: dict[str, str],
) -> Working:
    """Three tasks, onboarded and approved one after another. Do not change it: see `working`."""

    def make(folder: Path) -> dict[str, Any]:
        plant, said = new_plant(folder / "plant"), {"onboard": {}, "review": {}}
        for name, colour in COLOURS.items():
            task = make_task(folder / "tasks" / name, colour)
            reason = ("--reason", f"{name} seen")
            for command in (("onboard", task), ("review", name, 1, "approve", *reason)):
                answer = plant.clr(*command, "--json")
                assert answer.code == 0, answer
                said[str(command[0])][name] = asdict(answer)
        return said

    made, said = once("template", make)
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(made / "tasks", folder / "tasks")
    plant = copy_plant(Plant(made / "plant", plant_settings), folder / "plant")
    onboarded, reviewed = (
        {name: Answer(**answer) for name, answer in said[command].items()}
        for command in ("onboard", "review")
    )
    return Working(plant, folder / "tasks", onboarded, reviewed)


@pytest.fixture(scope="session")
def copy_of() -> Callable[[Plant, Path], Plant]:
    """Function (plant, folder) -> a copy of a workspace with its registry."""
    return copy_plant


@pytest.fixture(scope="session")
def moved() -> Callable[[Plant, Path], Plant]:
    """Function (plant, folder) -> the copy of a workspace that somebody put there."""
    return moved_plant


@pytest.fixture
def working(template: Working, tmp_path: Path) -> Plant:
    """A copy of a plant with three approved tasks, to be changed and broken at will."""
    return copy_plant(template.plant, tmp_path / "plant")


def copy_plant(plant: Plant, root: Path) -> Plant:
    """Copy a workspace whole."""
    shutil.copytree(plant.root, root, symlinks=True)
    return moved_plant(plant, root)


def moved_plant(plant: Plant, root: Path) -> Plant:
    """Return the copy at `root`; the registry's database knows its artifacts by absolute path."""
    with closing(sqlite3.connect(root / ".clr" / "mlflow.db")) as database, database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                (str(plant.root), str(root)),
            )
    return Plant(root, plant.settings)
