"""The main job: three folders of images become three champions behind one gate."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

TASKS = ("red-caps", "green-caps", "blue-caps")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

SHAPE = {
    "task": str,
    "version": int,
    "verdict": str,
    "accuracy": float,
    "accuracy_ci": [float, float],
    "baseline": {"majority": float, "linear_probe": float},
    "gate": {
        "verdict": str,
        "earlier_tasks": int,
        "how": {"identical": int, "replayed": int, "paired_test": int},
        "failed": list,
    },
    "adapter": {"digest": str, "bytes": int, "params": int, "params_pct": float},
    "data": {"digest": str, "train": int, "test": int, "classes": list},
    "seconds": dict.fromkeys(
        ("validate", "version", "baseline", "train", "gate", "register", "total"), float
    ),
    "mlflow": {"run_id": str, "model": str, "version": int},
    "roi": dict,
    "reports": {"gate": str, "data_docs": str, "card": str},
}
MORE = {  # fields beyond the contract, each on purpose
    "": {"already"},
    "gate": {"overlaps"},
    "adapter": {"epoch"},
    "seconds": {"measure"},
}


def assert_shape(value, shape, where=""):
    if isinstance(shape, dict):
        assert shape.keys() <= value.keys(), where
        assert value.keys() - shape.keys() <= MORE.get(where, set()), where
        for name, part in shape.items():
            assert_shape(value[name], part, f"{where}.{name}".lstrip("."))
    elif isinstance(shape, list):
        assert [type(one) for one in value] == shape, where
    else:
        assert type(value) is shape, where


@pytest.mark.parametrize("name", TASKS)
def test_onboard_prints_one_document_with_the_fields_of_the_contract(template, name):
    document = template.onboarded[name].json
    assert_shape(document, SHAPE)
    assert (document["task"], document["version"], document["verdict"]) == (name, 1, "passed")
    assert DIGEST.fullmatch(document["adapter"]["digest"])
    assert re.fullmatch(r"md5:[0-9a-f]{32}\.dir", document["data"]["digest"])
    assert document["data"]["classes"] == ["dark", "light"]
    assert (document["data"]["train"], document["data"]["test"]) == (24, 24)
    low, high = document["accuracy_ci"]
    assert 0 <= low <= document["accuracy"] <= high <= 1
    assert document["mlflow"]["model"] == f"clr-{name}"


def test_the_gate_looks_at_every_earlier_task(template):
    seen = [template.onboarded[name].json["gate"] for name in TASKS]
    assert [one["earlier_tasks"] for one in seen] == [0, 1, 2]
    assert [sum(one["how"].values()) for one in seen] == [0, 1, 2]
    assert [one["how"]["identical"] for one in seen] == [0, 1, 2]


def test_what_was_measured_and_is_registered_is_the_compressed_file(template):
    from clr.core.recipe import Recipe

    for name in TASKS:
        told = template.onboarded[name].json["adapter"]
        folder = template.plant.state / "artifacts" / f"clr-{name}"
        (file,) = folder.rglob("artifacts/adapter.safetensors")
        data = file.read_bytes()
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (
            told["digest"],
            told["bytes"],
        )
        spec = json.loads(metadata(data)["spec"])
        assert (spec["schema"], spec["storage"]) == ("clr.adapter/2", Recipe().storage)
        (evidence,) = (template.plant.state / "tasks" / name).rglob("evidence.safetensors")
        about = json.loads(metadata(evidence.read_bytes())["about"])
        assert (about["adapter"], about["adapter_bytes"]) == (told["digest"], len(data))


def metadata(data: bytes) -> dict[str, str]:
    """Return what a safetensors file says of itself."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_logs_are_on_stderr_and_say_at_every_stage_what_goes_on(template):
    lines = template.onboarded["blue-caps"].err
    for stage in ("validate", "version", "baseline", "train", "measure", "gate", "register"):
        assert f"  {stage}" in lines
    assert "Traceback" not in lines


def test_a_review_makes_a_release(template):
    documents = [template.reviewed[name].json for name in TASKS]
    assert [one["release"] for one in documents] == [1, 2, 3]
    assert [one["decision"] for one in documents] == ["approve"] * 3
    assert documents[0]["reason"] == "red-caps seen"


def test_reports_are_files_that_a_browser_opens(template):
    from pathlib import Path

    reports = template.onboarded["blue-caps"].json["reports"]
    assert "red-caps" in Path(reports["gate"]).read_text(encoding="utf-8")
    assert Path(reports["data_docs"]).is_file()
    card = Path(reports["card"]).read_text(encoding="utf-8")
    assert "blue-caps" in card
    assert len(card) <= 5000


def test_status_agrees(template):
    status = template.plant.clr("status", "--json").json
    assert [(one["name"], one["champion"], one["candidate"]) for one in status["tasks"]] == [
        (name, 1, None) for name in sorted(TASKS)
    ]
    for one in status["tasks"]:
        told = template.onboarded[one["name"]].json["accuracy"]
        assert one["accuracy"] == pytest.approx(told, abs=1e-3)
    assert status["release"]["version"] == 3
    assert status["release"]["digest"] == template.reviewed["blue-caps"].json["release_digest"]
    assert "mlflow.db" in status["services"]["registry"]


def test_a_named_task_labels_its_images(template):
    images = [template.tasks / "red-caps/test" / label / "00.png" for label in ("dark", "light")]
    answer = template.plant.clr("predict", "--task", "red-caps", *images, "--json").json
    assert [one["label"] for one in answer["predictions"]] == ["dark", "light"]
    assert [one["routed"] for one in answer["predictions"]] == [False, False]
    assert {one["adapter"] for one in answer["predictions"]} == {
        template.onboarded["red-caps"].json["adapter"]["digest"]
    }


def test_without_a_task_the_router_finds_it(template):
    images = [template.tasks / name / "test/light/01.png" for name in TASKS]
    answer = template.plant.clr("predict", *images, "--json").json
    assert [one["task"] for one in answer["predictions"]] == list(TASKS)
    assert [one["label"] for one in answer["predictions"]] == ["light"] * 3
    assert all(one["routed"] for one in answer["predictions"])


def test_roi_of_all_tasks_shows_nothing_assumed_as_measured(template):
    answer = template.plant.clr("roi", "--json").json
    assert sorted(answer["tasks"]) == sorted(TASKS)
    fields = answer["tasks"]["red-caps"]["roi"]
    assert fields == template.onboarded["red-caps"].json["roi"]
    assert {one["kind"] for one in fields.values()} == {"measured"}
    assert "npv" not in fields


def test_roi_is_derived_from_assumptions_and_says_so(plant, new_caps, tmp_path):
    task = new_caps(tmp_path / "red-caps")
    with (task / "task.yaml").open("a", encoding="utf-8") as file:
        file.write(
            "business: {currency: EUR, items_per_year: 100000, error_cost: 2, "
            "current_error_rate: 0.2, label_cost_per_image: 0.1, "
            "compute_cost_per_hour: 1, engineer_hours: 8, hourly_rate: 80, "
            "maintenance_hours_per_month: 1, horizon_years: 3, discount_rate: 0.08}\n"
        )
    fields = plant.clr("onboard", task, "--json").json["roi"]
    assert {one["kind"] for one in fields.values()} == {"measured", "assumed", "derived"}
    assert fields["npv"]["low"] <= fields["npv"]["middle"] <= fields["npv"]["high"]
    assert fields["npv"]["formula"]
    text = plant.clr("roi", "red-caps")
    assert text.code == 0
    assert "npv" in text.out


def test_verify_finds_everything_as_recorded(template):
    report = template.plant.clr("verify", "--json")
    assert (report.code, report.json["problems"]) == (0, [])
    assert report.json["checked"]["adapter files"] == 3


def test_the_ledger_holds_each_act_once(template):
    acts = template.plant.ledger()
    assert len(acts) == len(set(acts)) == 15
    for number, name in enumerate(TASKS, 1):
        assert ("data.versioned", f"clr-{name}") in acts
        assert ("gate.judged", f"clr-{name}") in acts
        assert ("adapter.registered", f"clr-{name}/1") in acts
        assert ("review.approved", f"clr-{name}/1") in acts
        assert ("release.activated", f"clr-release/{number}") in acts


def test_the_registered_candidate_loads_as_an_mlflow_model(template):
    import pandas as pd

    from clr.registry.model import load_version

    session = template.plant.session()
    model = load_version(session.registry, "red-caps", "champion")
    image = (template.tasks / "red-caps/test/light/02.png").read_bytes()
    assert list(model.predict(pd.DataFrame({"image": [image]}))["label"]) == ["light"]


def test_the_run_holds_what_a_reviewer_looks_at(template):
    client = template.plant.session().registry.client
    run_id = template.onboarded["blue-caps"].json["mlflow"]["run_id"]
    names = {one.path for one in client.list_artifacts(run_id)}
    assert {"gate", "plots", "card.md", "roi.json", "validation", "evidence", "data"} <= names
    plots = {one.path for one in client.list_artifacts(run_id, "plots")}
    assert {
        f"plots/{name}.png" for name in ("confusion", "learning-curves", "accuracy-matrix")
    } <= (plots)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert {"accuracy", "baseline.majority", "baseline.linear_probe"} <= run.data.metrics.keys()
    assert run.inputs.dataset_inputs[0].dataset.digest


def test_nothing_temporary_is_left(template):
    assert template.plant.leftovers() == []
