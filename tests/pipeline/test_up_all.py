"""`clr up`: everything of one machine, started by one command, and ended with it."""

from __future__ import annotations

from tests.factory import _get


def test_all_answer_once_it_says_so(factory):
    assert factory.ready["pid"] == factory.process.pid
    assert factory.mlflow("registered-models/search", max_results=1)
    assert factory.api("GET", "/health") is True
    assert {one["name"] for one in factory.api("POST", "/work_pools/filter", {})} >= {"cpu"}
    assert _get(f"{factory.metrics}/health", ("", ""), {}).status_code == 200


def test_prefects_server_answers_nobody_without_its_password(factory):
    answer = _get(f"{factory.prefect}/work_pools/filter", ("clr", "wrong"), {})
    assert answer.status_code == 401


def test_status_tells_where_all_are(factory):
    services = factory.clr("status", "--json").json["services"]
    assert services["registry"] == factory.registry
