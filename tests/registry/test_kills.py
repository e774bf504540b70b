"""kill -9 before any call that changes the registry: the same command then completes it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from clr.registry import releases, runs, versions

DATA = "md5:" + "d" * 32 + ".dir"
CALLS_OF_A_REGISTRATION = [
    "create_experiment",
    "create_run",
    "log_inputs",
    "log_batch",
    "log_batch",
    "log_batch",
    "log_artifacts",
    "create_registered_model",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "log_batch",
    "create_model_version",
    "set_registered_model_alias",
    "set_terminated",
]
CALLS_OF_A_PROMOTION = [
    "create_run",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_model_version",
    "set_terminated",
    "set_registered_model_alias",  # previous of clr-release
    "set_registered_model_alias",  # champion of clr-release: here the new one begins to serve
    "set_registered_model_alias",  # champion of the task
    "delete_registered_model_alias",  # candidate of the task
]
SERVING_FROM = 10


def job(do, arguments, **how):
    return {"do": do, "args": arguments, **how}


@pytest.fixture
def registration(place, network, task):
    def act(name="", **how):
        arguments = {
            **place,
            "task": f"{task}{name}",
            "adapter": str(network.one.path),
            "backbone": vars(network.reference),
        }
        return job("register", arguments, **how)

    return act


def everything_of(registry, task):
    """Return runs, versions and logged models of a task, the deleted ones left out."""
    experiment = registry.client.get_experiment_by_name(f"clr/{task}").experiment_id
    models = registry.client.search_logged_models([experiment])
    return (
        registry.client.search_runs([experiment]),
        versions.versions(registry, task),
        list(models),
    )


def test_a_registration_makes_these_calls(shop, registration):
    (done,) = shop(registration())
    assert done["calls"] == CALLS_OF_A_REGISTRATION, done


@pytest.mark.parametrize("place", ["embedded"], indirect=True)
@pytest.mark.parametrize("at", range(1, len(CALLS_OF_A_REGISTRATION) + 1))
def test_killed_before_any_call_the_same_command_leaves_one_of_each(
    shop, registration, registry, task, network, at
):
    (killed,) = shop(registration(kill_at=at))
    assert killed["code"] == -signal.SIGKILL, killed
    (done,) = shop(registration())
    assert done["code"] == 0, done
    _assert_one_of_each(registry, task, network, done["result"])


@pytest.mark.parametrize("place", ["server"], indirect=True)
@pytest.mark.parametrize("at", [10, 15])
def test_killed_while_a_server_keeps_the_registry(shop, registration, registry, task, network, at):
    shop(registration(kill_at=at))
    (done,) = shop(registration())
    _assert_one_of_each(registry, task, network, done["result"])


def test_two_processes_that_register_at_once_make_one_version(
    shop, registration, registry, task, network
):
    first, second = shop(registration(), registration())
    assert first["code"] == second["code"] == 0, (first, second)
    assert first["result"] == second["result"]
    _assert_one_of_each(registry, task, network, first["result"])


def test_two_tasks_may_be_registered_at_once(shop, registration, registry, task):
    answers = shop(registration("-a"), registration("-b"))
    assert [one["code"] for one in answers] == [0, 0], answers
    assert {f"{task}-a", f"{task}-b"} <= versions.tasks(registry).keys()


def _assert_one_of_each(registry, task, network, result):
    from clr.registry.fetch import adapter_path

    (run,), (version,), (model,) = everything_of(registry, task)
    assert (run.info.run_id, version.version, model.model_id) == tuple(result.values())
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"accuracy": 0.75, "epoch": 1.0, "train_loss": 0.5}
    assert run.data.params == {"seed": "0"}
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    assert len(run.inputs.dataset_inputs) == 1
    assert (version.run_id, version.model_id) == (run.info.run_id, model.model_id)
    assert version.aliases == ("candidate",)
    assert adapter_path(registry, task, 1, network.one.digest).is_file()
    assert list((Path(registry.cache) / "locks").iterdir())  # taken, and free again


@pytest.mark.parametrize("at", range(1, len(CALLS_OF_A_PROMOTION) + 1))
def test_killed_during_a_promotion_a_whole_release_serves(shop, state, embedded, network, at):
    old, _ = (_registered(embedded, name, network) for name in ("old", "new"))
    before = releases.promote(embedded, old, gate_release="", backbone="sha256:b")
    arguments = {
        "state": str(state), "task": "new", "digest": network.one.digest, "gate": before.digest
    }  # fmt: skip
    (killed,) = shop(job("promote", arguments, kill_at=at))
    assert killed["code"] == -signal.SIGKILL, killed
    serving = releases.current_release(embedded)
    assert set(serving.tasks) == ({"old", "new"} if at >= SERVING_FROM else {"old"})

    (done,) = shop(job("promote", arguments))
    assert done["code"] == 0, done
    after = releases.current_release(embedded)
    assert (set(after.tasks), after.previous) == ({"old", "new"}, before.digest)
    assert after.version == done["result"]["version"] == 2
    assert releases.get_release(embedded, 1) == before
    assert versions.tasks(embedded) == {"new": {"champion": 1}, "old": {"champion": 1}}


def test_two_promotions_at_once_the_second_is_told_its_gate_is_stale(
    shop, state, embedded, network
):
    for name in ("a", "b"):
        _registered(embedded, name, network)
    jobs = [
        job(
            "promote", {"state": str(state), "task": name, "digest": network.one.digest, "gate": ""}
        )
        for name in ("a", "b")
    ]
    answers = sorted(shop(*jobs), key=lambda one: one["code"])
    assert [one["code"] for one in answers] == [0, 4], answers
    assert answers[1]["error"]["error"] == "StaleGate"
    assert len(releases.current_release(embedded).tasks) == 1


def _registered(registry, name, network):
    run = runs.find_or_start_run(registry, name, "sha256:1")
    made = versions.register_adapter(
        registry, run, network.one.path, key="sha256:1", backbone=network.reference,
        data_digest=DATA, card="", tags={},
    )  # fmt: skip
    versions.set_candidate(registry, made)
    return releases.ChampionRef(name, 1, network.one.digest, DATA, "run")
