"""The compose file: valid, every container confined, every secret only where it is needed."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from flows.provision import provision
from tests.docker.composed import (
    DOCKERFILE,
    FILE,
    ROOT,
    image_environment,
    plugin,
    project,
    services,
)

SERVICES = services()
ONCE = {"buckets", "deployments", "secrets", "clr"}
OF_RELEASE = {"registry", "release-service", "clr"}
OF_DATA = {"release-service", "worker-cpu", "worker-gpu", "worker-registry", "watcher", "clr"}
"""Who opens the DVC repository: to version, to replay, to read a commit, to back up."""

ALLOWED = {
    "admin.password": {"registry", "clr"},
    "flask.key": {"registry", "clr"},
    "ledger.registry.key": {"registry", "clr"},
    "ledger.release.key": {"release-service"},
    "ledger.trusted": {  # public keys
        "registry", "clr", "release-service", "worker-cpu", "worker-gpu", "worker-registry",
        "watcher",
    },
    "ledger.trainer.key": {"worker-cpu", "worker-gpu", "worker-registry", "watcher"},
    "postgres.admin": {"postgres"},
    "postgres.append": {"postgres"},
    "postgres.append.url": {
        "release-service", "worker-cpu", "worker-gpu", "worker-registry", "watcher",
    },
    "postgres.ledger": {"postgres"},
    "postgres.ledger.url": {"registry", "clr"},
    "postgres.prefect": {"postgres"},
    "postgres.prefect.url": {"prefect"},
    "postgres.registry": {"postgres"},
    "postgres.registry.url": {"registry", "clr"},
    "prefect.auth": {
        "prefect", "deployments", "release-service", "worker-cpu", "worker-gpu",
        "worker-registry", "watcher",
    },
    "release.password": OF_RELEASE,
    "s3.admin.id": {"buckets"},
    "s3.admin.key": {"buckets"},
    "s3.data.id": OF_DATA,
    "s3.data.key": OF_DATA,
    "s3.json": {"s3"},
    "s3.registry.id": {"registry"},
    "s3.registry.key": {"registry"},
    "server.password": {"registry", "clr", "serving"},
    "serve.metrics.key": {"serving", "prometheus"},
    "trainer.password": {
        "registry", "clr", "worker-cpu", "worker-gpu", "worker-registry", "watcher",
    },
    "webhook.key": {"registry", "clr"},
    "webhook.secret": {"registry", "clr", "release-service", "worker-registry"},
}  # fmt: skip
"""Who may hold a secret; ``clr`` is the tool by which the operator manages users."""

each_service = pytest.mark.parametrize("name", SERVICES)


def test_it_is_a_compose_project():
    compose_spec = pytest.importorskip("compose_spec")
    # the parser takes a tag or a digest, Compose takes both
    text = re.sub(r"(image\": \"[^\"@]+)@sha256:[0-9a-f]{64}", r"\1", json.dumps(project()))
    parsed = compose_spec.PyCompose.from_json(text)
    parsed.validate()
    assert set(parsed.service_names()) == set(SERVICES)


@pytest.mark.parametrize("profile", ["cpu", "gpu", "tools"])
def test_docker_compose_takes_it(profile, tmp_path):
    if not plugin():
        pytest.skip("no Docker client with Compose on this machine")
    command = ["docker", "compose", "-f", FILE, "--profile", profile, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@each_service
def test_a_container_is_confined(name):
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0, "root"
    assert int(group) > 0, "group root"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "devices", "userns_mode", "volumes_from"} & set(service)
    assert service.get("network_mode", "none") == "none"
    assert "/var/run/docker.sock" not in json.dumps(service)


@each_service
def test_a_container_has_limits(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert 0 < float(limits["cpus"]) <= 4
    assert re.fullmatch(r"\d+[mg]", limits["memory"])
    assert 0 < limits["pids"] <= 1024
    assert SERVICES[name]["logging"]["options"]["max-size"]


@each_service
def test_a_container_says_how_it_is(name):
    check = SERVICES[name]["healthcheck"]
    if name in ONCE:
        assert check == {"disable": True}
        assert SERVICES[name]["restart"] == "no"
        return
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} < set(check)
    assert SERVICES[name]["restart"] == "unless-stopped"


@each_service
def test_an_image_is_pinned(name):
    image = SERVICES[name]["image"]
    if "build" in SERVICES[name]:
        assert re.fullmatch(r"clr-(server|worker):\d+\.\d+\.\d+", image)
        return
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", image)


def test_images_of_a_build_start_from_pinned_ones():
    text = DOCKERFILE.read_text(encoding="utf-8")
    own = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.M))
    foreign = set(re.findall(r"^FROM (\S+)", text, re.M)) - own
    assert foreign
    assert all(re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", one) for one in foreign)
    assert {one["build"]["target"] for one in SERVICES.values() if "build" in one} <= own


def test_nothing_listens_beyond_loopback():
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert set(published) == {"registry", "prefect", "prometheus", "serving"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", one) for one in ports)
    networks = project()["networks"]
    closed = {name for name, one in networks.items() if one.get("internal")}
    assert set(networks) - closed == {"outside"}


def test_the_database_and_the_files_are_out_of_reach_of_who_needs_them_not():
    on = {net: {n for n, one in SERVICES.items() if net in one.get("networks", ())}
          for net in project()["networks"]}  # fmt: skip
    assert on["files"] == {"s3", "buckets", "registry", *OF_DATA}
    assert {"s3", "prometheus", "buckets", "deployments", "serving"}.isdisjoint(on["database"])
    assert "serving" not in on["files"] | on["prefect"]
    assert {"postgres", "s3"}.isdisjoint(on["outside"])
    assert {"worker-cpu", "worker-gpu", "release-service"}.isdisjoint(on["outside"])


def test_secrets_are_where_they_are_needed_and_nowhere_else(tmp_path):
    held = {secret: set() for secret in project()["secrets"]}
    for name, service in SERVICES.items():
        for secret in service.get("secrets", ()):
            held[secret].add(name)
    assert held == ALLOWED
    provision(str(tmp_path))
    made = {path.name for path in tmp_path.iterdir()}
    assert made == set(ALLOWED)


@each_service
def test_environments_name_files_and_hold_no_secret(name):
    service = SERVICES[name]
    environment = service.get("environment", {})
    named = {value.removeprefix("/run/secrets/") for key, value in environment.items()
             if key.endswith("_FILE")}  # fmt: skip
    given = set(service.get("secrets", ()))
    if "build" in service:
        assert named == given, "every secret is used, and every file that is named is given"
    else:
        assert named <= given
    words = re.compile(r"PASSWORD|SECRET|_KEY$|TOKEN|AUTH_STRING|DATABASE$|LEDGER_URL")
    assert not [key for key in environment if words.search(key.removesuffix("_KEY_ID"))
                and not key.endswith("_FILE")]  # fmt: skip


@pytest.mark.parametrize("name", sorted(OF_DATA))
def test_who_opens_the_data_finds_it_where_the_workers_put_it(name):
    service, worker = SERVICES[name], SERVICES["worker-cpu"]["environment"]
    settings = {"CLR_DVC_REMOTE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION",
                "AWS_ACCESS_KEY_ID_FILE", "AWS_SECRET_ACCESS_KEY_FILE"}  # fmt: skip
    own = service["environment"]
    assert {one: own.get(one) for one in settings} == {one: worker[one] for one in settings}
    assert "files" in service["networks"]


def test_who_runs_flows_cannot_change_the_policy():
    for name in ("worker-cpu", "worker-gpu", "worker-registry", "watcher", "release-service"):
        mounts = {one["target"]: one for one in SERVICES[name]["volumes"] if isinstance(one, dict)}
        for guarded in ("mlflow", "clr.env", ".git"):
            assert mounts[f"/workspace/{guarded}"]["read_only"] is True
    assert all(one["read_only"] for one in SERVICES["registry"]["volumes"] if isinstance(one, dict))


def test_the_images_are_seen_by_who_works_on_them_alone():
    """The whole workspace holds ``data/`` and ``incoming/``."""
    sees = {
        name for name, service in SERVICES.items() for one in service.get("volumes", ())
        if isinstance(one, dict) and one["target"] == "/workspace"
    }  # fmt: skip
    assert sees == OF_DATA
    parts = {one["target"] for one in SERVICES["registry"]["volumes"] if isinstance(one, dict)}
    assert parts == {"/workspace/mlflow", "/workspace/clr.env", "/workspace/data.dvc"}


def test_state_is_shared_only_by_those_who_trust_each_other():
    from tests.docker.composed import state_volume

    users: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        users.setdefault(state_volume(service), set()).add(name)
    assert users["registry-state"] == {"registry", "clr"}
    assert users["release-state"] == {"release-service"}
    assert users["prefect-state"] == {"prefect"}
    assert users["serving-cache"] == {"serving"}


def test_who_acts_on_what_the_server_found_sees_it_and_changes_nothing():
    def mounted(name: str) -> Any:
        for one in SERVICES[name]["volumes"]:
            if isinstance(one, str) and one.endswith(":/state/serving"):
                return one.partition(":")[0], True
            if isinstance(one, dict) and one["target"] == "/state/serving":
                return one["source"], not one.get("read_only", False)
        return None

    assert {name: mounted(name) for name in ("serving", "clr")} == {
        "serving": ("serving", True), "clr": ("serving", True),
    }  # fmt: skip
    for name in ("worker-cpu", "worker-gpu", "release-service"):  # drift; trials that were stopped
        assert mounted(name) == ("serving", False)


@pytest.mark.parametrize("folder", ["/state", "/state/serving"])
def test_whoever_a_container_runs_as_can_write_its_state(folder):
    ours = [one for one in services(CLR_UID="4711", CLR_GID="815").values() if "build" in one]
    assert {one["user"] for one in ours} == {"4711:815"}
    # a new volume takes owner and mode from the image's folder; no container may change them
    (made,) = re.findall(r"install -d (.*?) \\", DOCKERFILE.read_text(encoding="utf-8"))
    assert folder in made.split()
    mode = int(re.search(r"-m (\d+)", made)[1], 8)
    assert mode & 0o007 == 0o007, "only its owner could write"
    assert mode & 0o1000, "anybody could delete what is another's"


@pytest.mark.parametrize("target", ["server", "worker"])
def test_who_has_no_name_in_the_image_is_given_one(target):
    assert image_environment(target)["LOGNAME"]


def test_what_a_service_needs_is_waited_for():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how["condition"] == wanted, (name, other)


def test_prometheus_asks_who_tells():
    jobs = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    port = SERVICES["watcher"]["environment"]["CLR_METRICS_PORT"]
    assert targets["clr"] == [f"watcher:{port}"]
    port = SERVICES["serving"]["environment"]["CLR_SERVE_PORT"]
    assert targets["serving"] == [f"serving:{port}"]


def test_hadolint_finds_nothing():
    hadolint = ROOT / ".venv" / "bin" / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_build_gets_nothing_but_the_code():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert allowed == {"pyproject.toml", "uv.lock", "README.md", "clr", "flows"}
