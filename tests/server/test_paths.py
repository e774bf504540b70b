"""A path is one thing for MLflow and for us, whatever is written in it."""

from __future__ import annotations

import pytest

from clr.registry.names import unsafe_path
from clr.registry.server.paths import artifact_path, ids_in, logical

RUN, MODEL = "a1" * 16, "m-" + "b2" * 16
FILE = f"1/models/{MODEL}/artifacts/artifacts/adapter.safetensors"


@pytest.mark.parametrize(
    "written",
    [
        FILE,
        FILE.replace("m-", "m%2d"),
        FILE.replace("m-", "m%252d"),
        FILE.replace("models", "%25%36%64odels"),
        FILE.replace("/", "%2f"),
        FILE + "?x=1",
    ],
)
def test_percent_signs_hide_nothing(written: str) -> None:
    assert ids_in(logical(written)) == (MODEL,)


@pytest.mark.parametrize(
    "written",
    [
        f"x/../{FILE}",
        f"x/%2e%2e/{FILE}",
        f"x/%252e%252e/{FILE}",
        f"./{FILE}",
        f"/{FILE}",
        f"%2f{FILE}",
        FILE.replace("/", "//"),
        FILE.replace("/", "\\"),
        FILE.replace("/", "%5c"),
        f"file:///{FILE}",
        FILE + "%00",
        FILE + "#x",
        FILE + "/",
        "C:\\" + FILE,
        "%25" * 40 + FILE,
    ],
)
def test_what_mlflow_or_a_file_system_may_read_otherwise_is_unsafe(written: str) -> None:
    place = logical(written)
    assert unsafe_path(place) or MODEL in ids_in(place)


def test_runs_and_models_are_seen_wherever_they_stand() -> None:
    assert ids_in(f"clr-animals/{RUN}/artifacts/x/{MODEL}") == (RUN, MODEL)
    assert ids_in(f"1/{RUN[:-1]}/artifacts") == ()
    assert ids_in(f"1/{RUN.upper()}/artifacts") == ()


def test_an_address_of_the_artifact_store_is_known_under_any_prefix() -> None:
    assert artifact_path(f"/api/2.0/mlflow-artifacts/artifacts/{FILE}") == FILE
    assert artifact_path(f"/reg/ajax-api/2.0/mlflow-artifacts/artifacts/{FILE}") == FILE
    assert artifact_path("/api/2.0/mlflow/runs/create") is None
