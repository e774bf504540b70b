"""Which act each of MLflow's Flask endpoints is, and how to read it from the request.

Keys are the names of MLflow's handlers (``request.endpoint``), which are the same for
``/api`` and ``/ajax-api``, for every API version, and behind a static prefix. Bodies are
read with the handlers' own parser, so that what is decided about is what the handler does.

Three tables: `ACTS` (how to read the act), `READS` (endpoints that only read although they
take POST), `PUBLIC` (served without a user). Whatever is in none of them and is not GET, HEAD
or OPTIONS is `Kind.OTHER`, which the policy refuses: an endpoint that a later MLflow adds is
closed until somebody puts it here. ``tests/server/test_endpoints.py`` names what changed.
"""

from __future__ import annotations

from typing import Any

from flask import request
from mlflow.protos import model_registry_pb2 as proto

from clr.registry.acts import Act, Kind
from clr.registry.server import ledger
from clr.registry.server import readers as read
from clr.registry.server import tracking as track
from clr.registry.server.asked import Asked, Reader

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

PUBLIC = frozenset({"health", "version", "static", "serve_static_file", "_get_server_info"})
"""Endpoints that MLflow may serve without a user; any other one needs an authenticated user."""

READS = frozenset(
    {
        "_batch_get_trace_infos",
        "_calculate_trace_filter_correlation",
        "_create_presigned_download_url",
        "_get_latest_versions",
        "_query_trace_metrics",
        "_search_evaluation_datasets_handler",
        "_search_experiments",
        "_search_issues",
        "_search_logged_models",
        "_search_prompt_optimization_jobs",
        "_search_runs",
        "_search_traces_v3",
        "serve_post_ui_telemetry",
        "serve_search_datasets",
    }
)
"""Endpoints that take a body by POST and change nothing."""

NOT_SAFE = frozenset({"_graphql", "signup"})
"""Endpoints that are decided about even when they are asked by GET."""

ACTS: dict[str, Reader] = {
    # registered models
    "_create_registered_model": read.new_model,
    "_update_registered_model": read.model_text,
    "_rename_registered_model": read.new_name,
    "_delete_registered_model": read.registry(Kind.DELETE_MODEL, proto.DeleteRegisteredModel),
    "_set_registered_model_tag": read.registry(Kind.SET_MODEL_TAG, proto.SetRegisteredModelTag),
    "_delete_registered_model_tag": read.registry(
        Kind.DELETE_MODEL_TAG, proto.DeleteRegisteredModelTag
    ),
    # versions
    "_create_model_version": read.new_version,
    "_update_model_version": read.registry(Kind.UPDATE_VERSION, proto.UpdateModelVersion),
    "_transition_stage": read.registry(Kind.STAGE_VERSION, proto.TransitionModelVersionStage),
    "_delete_model_version": read.registry(Kind.DELETE_VERSION, proto.DeleteModelVersion),
    "_set_model_version_tag": read.registry(Kind.SET_VERSION_TAG, proto.SetModelVersionTag),
    "_delete_model_version_tag": read.registry(
        Kind.DELETE_VERSION_TAG, proto.DeleteModelVersionTag
    ),
    "_set_registered_model_alias": read.registry(Kind.SET_ALIAS, proto.SetRegisteredModelAlias),
    "_delete_registered_model_alias": read.registry(
        Kind.DELETE_ALIAS, proto.DeleteRegisteredModelAlias
    ),
    # runs, experiments, logged models
    "_create_experiment": track.new_experiment,
    "_update_experiment": track.experiment(Kind.TRACK),
    "_delete_experiment": track.experiment(Kind.DELETE_TRACKED),
    "_restore_experiment": track.tracked(Kind.TRACK),
    "_set_experiment_tag": track.tracked(Kind.TRACK),
    "_delete_experiment_tag": track.tracked(Kind.TRACK),
    "_create_run": track.tracked(Kind.TRACK),
    "_update_run": track.run_update,
    "_delete_run": track.tracked(Kind.DELETE_TRACKED),
    "_restore_run": track.tracked(Kind.TRACK),
    "_log_batch": track.tracked(Kind.TRACK),
    "_log_inputs": track.tracked(Kind.TRACK),
    "_log_metric": track.tracked(Kind.TRACK),
    "_log_model": track.tracked(Kind.TRACK),
    "_log_outputs": track.tracked(Kind.TRACK),
    "_log_param": track.tracked(Kind.TRACK),
    "_set_tag": track.tracked(Kind.TRACK),
    "_delete_tag": track.tracked(Kind.TRACK),
    "_create_logged_model": track.tracked(Kind.TRACK),
    "_finalize_logged_model": track.tracked(Kind.TRACK),
    "_log_logged_model_params": track.tracked(Kind.TRACK),
    "_set_logged_model_tags": track.tracked(Kind.TRACK),
    "_delete_logged_model_tag": track.tracked(Kind.TRACK),
    "_delete_logged_model": track.tracked(Kind.DELETE_TRACKED),
    # files
    "_upload_artifact": track.file(Kind.WRITE_FILE),
    "_delete_artifact_mlflow_artifacts": track.file(Kind.DELETE_FILE),
    "_create_multipart_upload_artifact": track.multipart,
    "_complete_multipart_upload_artifact": track.multipart,
    "_abort_multipart_upload_artifact": track.multipart,
    "_create_presigned_upload_url": track.presigned,
    "serve_upload_artifact": track.run_file,
    # webhooks
    "_create_webhook": read.webhook,
    "_update_webhook": read.webhook,
    "_delete_webhook": read.webhook,
    "_test_webhook": read.webhook,
    # users; MLflow registers the form's handler, a lambda, under just that name
    "signup": read.user_form,
    "<lambda>": read.user_form,
    "create_user": read.user(Kind.MANAGE_USER),
    "delete_user": read.user(Kind.MANAGE_USER),
    "update_user_admin": read.user(Kind.MANAGE_USER),
    "update_user_password": read.user(Kind.SET_PASSWORD),
    "grant_user_permission": read.user(Kind.MANAGE_USER),
    "revoke_user_permission": read.user(Kind.MANAGE_USER),
    "create_role": read.user(Kind.MANAGE_USER),
    "update_role": read.user(Kind.MANAGE_USER),
    "delete_role": read.user(Kind.MANAGE_USER),
    "add_role_permission": read.user(Kind.MANAGE_USER),
    "update_role_permission": read.user(Kind.MANAGE_USER),
    "remove_role_permission": read.user(Kind.MANAGE_USER),
    "assign_role": read.user(Kind.MANAGE_USER),
    "unassign_role": read.user(Kind.MANAGE_USER),
    # queries
    "_graphql": read.graphql,
    # ours: clr/registry/server/ledger.py
    ledger.EXPORT_ENDPOINT: ledger.export,
}


def asked(endpoint: str) -> Asked:
    """Return what the present Flask request to `endpoint` asks.

    Raises:
        Malformed: the request cannot be read.
        Refusal: it is refused whatever else holds.
        MlflowException: MLflow's own parser refuses it.
    """
    reading = request.method in SAFE_METHODS and endpoint not in NOT_SAFE
    if reading or endpoint in READS:
        return Asked(Act(Kind.READ, endpoint=endpoint))
    reader = ACTS.get(endpoint)
    return reader(endpoint) if reader else other(endpoint)


def other(endpoint: str, **about: Any) -> Asked:
    """Return the act of an endpoint that nobody has thought about."""
    return Asked(Act(Kind.OTHER, endpoint=endpoint, **about))
