"""Adapter versions: once per key, linked to run, data and metrics, found again by digest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clr.core.files import sha256_file
from clr.errors import IntegrityBroken, UsageError
from clr.registry import fetch, runs, versions

DATA = "md5:" + "d" * 32 + ".dir"


@pytest.fixture
def register(registry, task, network):
    """Register adapter `one` or `two` under a key; returns the version."""

    def act(key="sha256:1", which="one", card="# Card", candidate=True):
        run = runs.find_or_start_run(registry, task, key)
        version = versions.register_adapter(
            registry,
            run,
            getattr(network, which).path,
            key=key,
            backbone=network.reference,
            data_digest=DATA,
            card=card,
            tags={"clr.verdict": "pass"},
            metrics={"accuracy": 0.75},
            title="Cats, dogs and emus",
        )
        if candidate:
            versions.set_candidate(registry, version)
        return version

    return act


embedded_only = pytest.mark.parametrize("place", ["embedded"], indirect=True)


def approve(registry, version, word="approved"):
    versions.set_version_tags(registry, version, {"review": word})


@pytest.mark.parametrize(
    ("written", "accuracy"),
    [
        ("0.75", 0.75), ("0.75 (12 images)", 0.75), ("n/a", None), ("", None), (" ", None),
        ("nan", None), ("inf", None),
    ],
)  # fmt: skip
def test_an_accuracy_is_a_number_or_none(written, accuracy):
    tags = {"clr.accuracy": written}
    found = versions.Version("cats", 1, "run", "m-1", "sha256:1", DATA, (), tags)
    assert found.accuracy == accuracy


def test_a_version_says_what_it_is(registry, task, register, network):
    made = register()
    found = versions.get_version(registry, task, 1)
    assert (found.version, found.aliases, found.review) == (1, ("candidate",), "pending")
    assert found.adapter_digest == network.one.digest == made.adapter_digest
    assert (found.data_digest, found.run_id, found.model_id) == (DATA, made.run_id, made.model_id)
    assert found.tags["clr.backbone_digest"] == network.backbone.digest
    assert found.uri == f"models:/clr-{task}/1"
    stored = registry.client.get_model_version(f"clr-{task}", "1")
    assert stored.description == "# Card"
    assert registry.client.get_registered_model(f"clr-{task}").description == "Cats, dogs and emus"


def test_run_model_and_metrics_point_at_each_other(registry, register):
    made = register()
    (output,) = registry.client.get_run(made.run_id).outputs.model_outputs
    model = registry.client.get_logged_model(made.model_id)
    assert (output.model_id, model.source_run_id) == (made.model_id, made.run_id)
    assert [(one.key, one.value) for one in model.metrics] == [("accuracy", 0.75)]


def test_the_same_key_is_the_same_version(registry, task, register):
    first = register()
    again = register(card="# Another card")
    assert (again.version, again.model_id) == (first.version, first.model_id)
    assert [one.version for one in versions.versions(registry, task)] == [1]


def test_another_key_is_the_next_version_and_the_candidate_moves_on(registry, task, register):
    register()
    second = register("sha256:2", "two")
    assert second.version == 2
    assert versions.tasks(registry)[task] == {"candidate": 2}
    assert versions.get_version(registry, task, "candidate").version == 2


@embedded_only
def test_the_candidate_never_moves_back(registry, task, register):
    first = register()
    register("sha256:2", "two")
    versions.set_candidate(registry, first)
    assert versions.tasks(registry)[task] == {"candidate": 2}


@embedded_only
def test_a_rejected_candidate_is_taken_back_and_no_other(registry, task, register):
    first = register()
    second = register("sha256:2", "two")
    versions.drop_candidate(registry, first)
    assert versions.tasks(registry)[task] == {"candidate": 2}
    versions.drop_candidate(registry, second)
    versions.drop_candidate(registry, second)
    assert versions.tasks(registry)[task] == {}


@embedded_only
@pytest.mark.parametrize("word", ["approved", "rejected", " Approved"])
def test_a_decided_version_is_no_candidate_any_more(registry, task, register, word):
    version = register(candidate=False)
    approve(registry, version, word)
    versions.set_candidate(registry, version)
    assert versions.tasks(registry)[task] == {}


@embedded_only
def test_what_is_not_there_is_named_with_what_is(registry, task, register):
    register()
    for wrong in (7, 10**30, "champion"):
        with pytest.raises(UsageError, match="Registered versions: 1"):
            versions.get_version(registry, task, wrong)
    assert versions.find_version(registry, task, "sha256:other") is None


@embedded_only
def test_a_card_beyond_the_limit_is_refused_before_anything_is_made(registry, task, register):
    with pytest.raises(UsageError, match="5001"):
        register(card="x" * 5001)
    assert task not in versions.tasks(registry)


def test_the_registered_bytes_come_back_checked(registry, task, register, network):
    register()
    path = fetch.adapter_path(registry, task, 1, network.one.digest)
    assert sha256_file(path) == network.one.digest
    assert fetch.adapter_path(registry, task, 1, network.one.digest).samefile(path)


@embedded_only
def test_other_bytes_than_the_digest_says_are_refused(registry, task, register, network):
    register()
    with pytest.raises(IntegrityBroken, match="version 1 should have"):
        fetch.adapter_path(registry, task, 1, network.two.digest)


def test_a_missing_file_is_broken_integrity_and_names_the_version(registry, task, register):
    register()
    with pytest.raises(IntegrityBroken, match="version 1 is missing"):
        fetch.fetch_file(registry, f"clr-{task}", 1, "artifacts/none.bin", registry.cache / "x")


def test_where_a_remembered_adapter_lies_is_not_asked_again(embedded, network, task):
    run = runs.find_or_start_run(embedded, task, "sha256:1")
    versions.register_adapter(
        embedded, run, network.one.path, key="sha256:1", backbone=network.reference,
        data_digest=DATA, card="", tags={},
    )  # fmt: skip
    path = fetch.fetch_adapter(embedded, task, 1, embedded.cache / "scratch")
    assert fetch.remember_adapter(embedded, path, network.one.digest)
    nobody_to_ask = replace(embedded, client=None)
    assert fetch.adapter_path(nobody_to_ask, task, 1, network.one.digest).samefile(path)


def test_one_flipped_bit_in_the_registered_file_is_found(embedded, network, task):
    run = runs.find_or_start_run(embedded, task, "sha256:1")
    versions.register_adapter(
        embedded, run, network.one.path, key="sha256:1", backbone=network.reference,
        data_digest=DATA, card="", tags={},
    )  # fmt: skip
    path = fetch.adapter_path(embedded, task, 1, network.one.digest)
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityBroken, match=str(path)):
        fetch.adapter_path(embedded, task, 1, network.one.digest)
