"""Job templates of a Kubernetes and of a Docker work pool, read by Prefect's own workers."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.docker.composed import ROOT, services

FOLDER = ROOT / "docker" / "pools"
SECRETS = set(services()["worker-cpu"]["secrets"])


def template(kind: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8")))


def job(kind: str, **values: Any) -> Any:
    """What the worker of a pool makes of the template for one flow run."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.utilities.schema_tools.validation import validate

    if kind == "kubernetes":
        from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration
    else:
        from prefect_docker.worker import DockerWorkerJobConfiguration as Configuration
    text = template(kind)
    validate(values, text["variables"], raise_on_error=True)
    made = asyncio.run(Configuration.from_template_and_values(text, values))
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="quick-run"))
    return made


@pytest.mark.parametrize("kind", ["kubernetes", "docker"])
def test_prefect_takes_it_as_the_template_of_a_pool(kind):
    from prefect.client.schemas.actions import WorkPoolCreate

    pool = WorkPoolCreate(name="gpu", type=kind, base_job_template=template(kind))
    assert pool.base_job_template == template(kind)


@pytest.mark.parametrize("kind", ["kubernetes", "docker"])
@pytest.mark.parametrize(
    "values",
    [
        {"command": "sh -c 'curl evil'"},
        {"image": "evil:1"},
        {"env": {"PYTHONPATH": "/tmp"}},
        {"volumes": ["/:/host"]},
        {"privileged": True},
        {"memory": "8Gi; rm"},
        {"gpus": 99},
        {"devices": [{"Driver": "cdi", "Count": 1, "Capabilities": [["gpu"]]}]},
    ],
    ids=lambda values: next(iter(values)),
)
def test_who_starts_a_run_chooses_nothing_that_runs(kind, values):
    from prefect.utilities.schema_tools.validation import ValidationError

    with pytest.raises(ValidationError):
        job(kind, **values)


def test_a_pod_is_confined_and_takes_secrets_by_reference():
    made = job("kubernetes", gpus=1, memory="16Gi")
    pod = made.job_manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"] == {
        "cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 1,
    }  # fmt: skip
    assert container["args"] == ["python", "-m", "prefect.engine"]
    referred = {one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]
                if "valueFrom" in one}  # fmt: skip
    assert referred == SECRETS
    plain = {one["name"] for one in container["env"] if "value" in one}
    assert not [name for name in plain if "SECRET" in name or "PASSWORD" in name]
    assert "PREFECT__FLOW_RUN_ID" in plain
    guarded = {one["mountPath"] for one in container["volumeMounts"] if one.get("readOnly")}
    assert guarded == {"/workspace/mlflow", "/workspace/clr.env", "/workspace/.git"}


def test_a_container_of_the_docker_pool_is_confined():
    gpu = {"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}
    made = job("docker", devices=[gpu])
    kwargs = made.container_create_kwargs
    assert kwargs["device_requests"] == [gpu]
    assert job("docker").container_create_kwargs["device_requests"] == []
    assert (kwargs["user"], kwargs["read_only"], kwargs["cap_drop"]) == (
        "10001:10001",
        True,
        ["ALL"],
    )
    assert kwargs["security_opt"] == ["no-new-privileges:true"]
    assert made.privileged is False
    assert made.command == "run python -m prefect.engine"
    files = {value.removeprefix("/run/secrets/") for key, value in made.env.items()
             if key.endswith("_FILE")}  # fmt: skip
    assert files == SECRETS
    assert "PREFECT__FLOW_RUN_ID" in made.env
