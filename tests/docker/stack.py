"""The containers' own entry points and environments as plain processes, without containers.

Command, environment and secrets come out of ``docker/compose.yaml``; only addresses and paths
are those of this machine: a real PostgreSQL, made by ``docker/postgres/init.sh``, and a real S3
server (moto) in place of the two images that nobody here builds. What runs from the image
`server` cannot import PyTorch, which that image lacks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.entry import _answers
from flows.provision import provision
from flows.supervise import free_port
from tests.docker.composed import ROOT, image_environment, services, state_volume

SERVICES = services(CLR_REGISTRY_WORKERS="1")
"""One process of the registry is enough here; the second takes as long to start."""

START_SECONDS = 300
WITHOUT_TORCH = "import sys\nsys.modules.update(torch=None, torchvision=None, timm=None)\n"
PORTS = {
    "registry": 5000, "release-service": 5001, "prefect": 4200, "watcher": 9108,
    "worker-cpu": 8081,
}  # fmt: skip
"""Where services listen in their containers."""


@dataclass(eq=False)
class Stack:
    """Some of the services, running.

    Attributes:
        root: of everything.
        workspace: mounted at ``/workspace``.
        ports: here, by service.
        replaced: text in commands and environments, and what stands for it here.
        running: processes by service.
    """

    root: Path
    workspace: Path
    ports: dict[str, int]
    replaced: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        """The folder that is mounted at ``/run/secrets``, file by file."""
        return self.root / "secrets"

    def secret(self, name: str) -> str:
        """The content of a secret."""
        return (self.secrets / name).read_text().strip()

    def state(self, name: str) -> Path:
        """The folder of a service's volume at ``/state``."""
        return self.root / "volumes" / (state_volume(SERVICES[name]) or name)

    def url(self, name: str) -> str:
        """Where a service is here."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def here(self, text: str, name: str) -> str:
        """Return `text` with this machine's addresses and paths."""
        if name in self.ports:
            text = re.sub(rf"(127\.0\.0\.1|0\.0\.0\.0):{PORTS[name]}\b",
                          f"127.0.0.1:{self.ports[name]}", text)  # fmt: skip
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/state", str(self.state(name)))
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return all of the environment that a service's container has."""
        service = SERVICES[name]
        target = service["build"]["target"]
        inside = {**image_environment(target), **service["environment"]}
        inside |= {key: self.here(str(value), name) for key, value in inside.items()}
        for key, value in inside.items():
            if key.endswith("_PORT") and value == str(PORTS.get(name)):
                inside[key] = str(self.ports[name])
        if name.startswith("worker-"):
            inside["PREFECT_WORKER_WEBSERVER_PORT"] = str(self.ports[name])
        if target == "server":
            inside["PYTHONPATH"] = str(self.root / "without-torch")
        return {
            **inside,
            # as in the image, where the environment's programs come first
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "",
        }

    def command(self, name: str) -> list[str]:
        """Return what a service's container runs."""
        return [sys.executable, "-m", "flows.entry", *SERVICES[name]["command"]]

    def start(self, name: str) -> None:
        """Start a service, after those that it waits for are healthy; do what is done once."""
        self.state(name).mkdir(parents=True, exist_ok=True)
        log = (self.root / f"{name}.log").open("ab")
        process = subprocess.Popen(
            self.command(name), env=self.environment(name), cwd="/", stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        log.close()
        if SERVICES[name]["restart"] == "no":
            assert process.wait(timeout=START_SECONDS) == 0, self.log(name)
        else:
            self.running[name] = process

    def wait(self, *names: str) -> None:
        """Wait until services are healthy, as their containers are asked."""
        end = time.monotonic() + START_SECONDS
        for name in names:
            url = self.here(SERVICES[name]["healthcheck"]["test"][-1], name)
            while not _answers(url):
                assert self.running[name].poll() is None, self.log(name)
                assert time.monotonic() < end, f"{name} is not healthy: {self.log(name)}"
                time.sleep(0.3)

    def execute(self, name: str, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours as `docker compose exec` does in the container of a service."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command],
            env={**self.environment(name), **changes}, cwd=self.workspace,
            capture_output=True, text=True, timeout=START_SECONDS,
        )  # fmt: skip
        return done

    def log(self, name: str) -> str:
        """The end of what a service wrote."""
        return (self.root / f"{name}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End everything as Docker does: SIGTERM, then SIGKILL."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def prepare(
    root: Path, workspace: Path, postgres: str, s3: str, programs: Path, settings: Mapping[str, str]
) -> Stack:
    """Do what the first start does: secrets, databases; start nothing.

    Args:
        root: an empty folder.
        workspace: a workspace.
        postgres: address of a PostgreSQL server's own database, as its superuser.
        s3: address of an S3 server.
        programs: folder with ``psql``.
        settings: ``clr.env`` of the workspace.
    """
    lines = "".join(f"{key}={value}\n" for key, value in settings.items())
    (workspace / "clr.env").write_text(lines, encoding="utf-8")
    (root / "without-torch").mkdir()
    (root / "without-torch" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    (root / "home").mkdir()
    ports = {name: free_port() for name in PORTS}
    where = urlsplit(postgres)
    replaced = {
        "postgres:5432": f"{where.hostname}:{where.port}",
        "http://s3:8333": s3,
        "/run/secrets": str(root / "secrets"),
        "/workspace": str(workspace),
        **{f"//{name}:{PORTS[name]}": f"//127.0.0.1:{port}" for name, port in ports.items()},
    }
    stack = Stack(root, workspace, ports, replaced)
    provision(str(stack.secrets))
    for file in stack.secrets.glob("*.url"):
        text = file.read_text()
        file.unlink()
        file.write_text(text.replace("postgres:5432", replaced["postgres:5432"]))
    script = root / "init.sh"
    text = (ROOT / "docker" / "postgres" / "init.sh").read_text()
    script.write_text(text.replace("/run/secrets", str(stack.secrets)))
    login: dict[str, Any] = {
        "PGHOST": where.hostname, "PGPORT": str(where.port), "PGPASSWORD": where.password,
        "POSTGRES_USER": where.username, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(["sh", script], env=login, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return stack
