"""Every address of MLflow is known: guarded, reading, or refused by default.

A golden file lists all of them. An MLflow that adds, drops or renames one fails here, before
it opens a hole or silently takes a guarded act away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden" / "endpoints.json").read_text())
SAFE = {"GET", "HEAD", "OPTIONS"}

Listing = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """What the server of the installed MLflow answers."""
    folder = tmp_path_factory.mktemp("listing")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(HERE / "listing.py"), str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", ["flask", "native"])
def test_mlflow_answers_the_addresses_that_were_looked_at(found: Listing, part: str) -> None:
    now, known = found[part], GOLDEN[part]
    new = {name: methods for name, methods in now.items() if known.get(name) != methods}
    gone = sorted(known.keys() - now.keys())
    assert (new, gone) == ({}, []), "put each into clr/registry/server/endpoints.py, or leave it"


def test_every_guarded_endpoint_is_there(found: Listing) -> None:
    tables = found["tables"]
    named = {*tables["acts"], *tables["reads"]}
    assert named <= found["flask"].keys()
    assert set(tables["public"]) <= found["flask"].keys()


def test_every_endpoint_that_changes_something_is_decided_about(found: Listing) -> None:
    tables = found["tables"]
    for name, methods in found["flask"].items():
        if set(methods) <= SAFE or name in tables["reads"]:
            continue
        decided = name in tables["acts"] or name in REFUSED_BY_DEFAULT
        assert decided, f"{name} {methods} is not in a table, nor listed here as closed"
    assert not set(tables["acts"]) & REFUSED_BY_DEFAULT


def test_no_endpoint_is_in_two_tables(found: Listing) -> None:
    tables = found["tables"]
    assert not set(tables["acts"]) & set(tables["reads"])
    assert not (set(tables["acts"]) | set(tables["reads"])) & set(tables["public"])


def test_beside_flask_only_files_are_written(found: Listing) -> None:
    kinds = found["native_kinds"]
    artifacts = "2.0/mlflow-artifacts/artifacts/{artifact_path:path}"
    files = {f"PUT /api/{artifacts}", f"PUT /ajax-api/{artifacts}"}
    assert {name for name, kind in kinds.items() if kind == "file.write"} == files
    assert {kind for name, kind in kinds.items() if name not in files} == {"other"}


def test_the_guard_is_outermost_and_our_hooks_come_after_mlflows(found: Listing) -> None:
    assert found["tables"]["middleware"] == ["Guard"]
    before, after = found["tables"]["hooks"]
    assert before[-2:] == ["_before_request", "Hooks.decide"]
    assert after.index("_after_request") < after.index("Hooks.follow")


# Closed on purpose: nothing here needs traces, prompts, judges, the gateway or workspaces.
REFUSED_BY_DEFAULT = {
    "_add_dataset_to_experiments_handler",
    "_add_guardrail_to_endpoint",
    "_add_items_to_review_queue",
    "_attach_model_to_gateway_endpoint",
    "_cancel_job",
    "_cancel_prompt_optimization_job",
    "_create_assessment",
    "_create_budget_policy",
    "_create_dataset_handler",
    "_create_gateway_endpoint",
    "_create_gateway_endpoint_binding",
    "_create_gateway_guardrail",
    "_create_gateway_model_definition",
    "_create_gateway_secret",
    "_create_issue",
    "_create_label_schema",
    "_create_prompt_optimization_job",
    "_create_review_queue",
    "_create_workspace_handler",
    "_delete_assessment",
    "_delete_budget_policy",
    "_delete_dataset_handler",
    "_delete_dataset_records_handler",
    "_delete_dataset_tag_handler",
    "_delete_demo",
    "_delete_gateway_endpoint",
    "_delete_gateway_endpoint_binding",
    "_delete_gateway_endpoint_tag",
    "_delete_gateway_guardrail",
    "_delete_gateway_model_definition",
    "_delete_gateway_secret",
    "_delete_label_schema",
    "_delete_prompt_optimization_job",
    "_delete_review_queue",
    "_delete_scorer",
    "_delete_trace_tag",
    "_delete_trace_tag_v3",
    "_delete_traces",
    "_delete_workspace_handler",
    "_deprecated_end_trace_v2",
    "_deprecated_start_trace_v2",
    "_detach_model_from_gateway_endpoint",
    "_generate_demo",
    "_get_or_create_user_queue",
    "_invoke_genai_evaluate_handler",
    "_invoke_issue_detection_handler",
    "_invoke_scorer_handler",
    "_link_prompts_to_trace",
    "_link_traces_to_run",
    "_not_implemented",
    "_register_scorer",
    "_remove_dataset_from_experiments_handler",
    "_remove_guardrail_from_endpoint",
    "_remove_items_from_review_queue",
    "_set_dataset_tags_handler",
    "_set_gateway_endpoint_tag",
    "_set_review_queue_item_status",
    "_set_trace_tag",
    "_set_trace_tag_v3",
    "_start_trace_v3",
    "_update_assessment",
    "_update_budget_policy",
    "_update_endpoint_guardrail_config",
    "_update_gateway_endpoint",
    "_update_gateway_model_definition",
    "_update_gateway_secret",
    "_update_issue",
    "_update_label_schema",
    "_update_review_queue",
    "_update_workspace_handler",
    "_upsert_dataset_records_handler",
    "_upsert_online_scoring_config",
    "serve_create_promptlab_run",
    "serve_gateway_proxy",
}
