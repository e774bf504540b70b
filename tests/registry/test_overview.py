"""One look at the whole registry, embedded or a server, takes two calls however large it is."""

from __future__ import annotations

import functools

import pytest
from mlflow import MlflowClient

from clr.registry.overview import overview


def fill(registry, task, versions=1):
    registry.client.create_registered_model(f"clr-{task}")
    for _ in range(versions):
        registry.client.create_model_version(f"clr-{task}", "s3://nowhere/adapter")


def count(monkeypatch, name, calls):
    real = getattr(MlflowClient, name)

    @functools.wraps(real)
    def counted(*arguments, **options):
        calls.append(name)
        return real(*arguments, **options)

    monkeypatch.setattr(MlflowClient, name, counted)


def test_many_tasks_take_as_many_calls_as_few(embedded, monkeypatch):
    for number in range(20):
        fill(embedded, f"task-{number}")
    embedded.client.create_registered_model("somebody-elses")
    calls = []
    for name in ("search_registered_models", "search_model_versions", "get_registered_model"):
        count(monkeypatch, name, calls)
    found = overview(embedded)
    assert sum(task.startswith("task-") for task in found.aliases) == 20
    assert "somebody-elses" not in found.versions
    assert calls == ["search_registered_models", "search_model_versions"]


def test_aliases_are_on_the_versions_they_point_at(registry, task):
    fill(registry, task, versions=3)
    registry.client.set_registered_model_alias(f"clr-{task}", "candidate", "3")
    found = overview(registry)
    assert found.aliases[task] == {"candidate": 3}
    assert [one.aliases for one in found.versions[task]] == [(), (), ("candidate",)]


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_versions_come_page_by_page_without_gap(registry, task, monkeypatch, page):
    fill(registry, task, versions=3)
    fill(registry, f"{task}-b", versions=0)
    monkeypatch.setattr("clr.registry.overview._PAGE", page)
    found = overview(registry)
    assert [one.version for one in found.versions[task]] == [1, 2, 3]
    assert found.versions[f"{task}-b"] == ()
