"""Releases: one alias decides what serves; before and after it moves, a release is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.core.files import canonical_json
from clr.errors import GateRefused, IntegrityBroken, UsageError
from clr.registry import fetch, releases, runs, versions
from clr.registry.release import ChampionRef, Release, parse_release

DATA = "md5:" + "d" * 32 + ".dir"
BACKBONE = "sha256:" + "b" * 64


@pytest.fixture
def candidate(registry, network, task):
    """Register a version of a task (a new one each) and return it as a champion to be."""

    def act(name, which="one"):
        name, key = f"{task}-{name}", f"sha256:{which}"
        run = runs.find_or_start_run(registry, name, key)
        made = versions.register_adapter(
            registry, run, getattr(network, which).path, key=key, backbone=network.reference,
            data_digest=DATA, card="", tags={},
        )  # fmt: skip
        versions.set_candidate(registry, made)
        return ChampionRef(name, made.version, made.adapter_digest, DATA, made.run_id)

    return act


@pytest.fixture
def promote(registry):
    def act(champion, gate=None):
        now = releases.current_release(registry)
        digest = gate if gate is not None else (now.digest if now else "")
        return releases.promote(registry, champion, gate_release=digest, backbone=BACKBONE)

    return act


def aliases(registry, *champions):
    found = versions.tasks(registry)
    return [found[one.task] for one in champions]


champion_refs = st.builds(
    ChampionRef,
    task=st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True).filter(lambda t: t != "release"),
    version=st.integers(1, 10**6),
    adapter_digest=st.just(BACKBONE),
    data_digest=st.just(DATA),
    run_id=st.text(max_size=32),
)


@given(st.lists(champion_refs, max_size=4))
def test_a_release_is_read_as_it_was_written(champions):
    release = Release(BACKBONE, {one.task: one for one in champions}, "r", "g", "p")
    data = canonical_json(release.to_dict())
    assert parse_release(data, version=3, expected_digest=release.digest) == release
    assert parse_release(data, version=3).version == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema":"clr.release/2"}',
        canonical_json({**Release(BACKBONE, {}).to_dict(), "extra": 1}),
        canonical_json({**Release(BACKBONE, {}).to_dict(), "tasks": {"../x": {}}}),
    ],
)
def test_what_is_not_a_release_is_refused(data):
    with pytest.raises(IntegrityBroken, match=r"clr\.release/1"):
        parse_release(data)


@pytest.mark.parametrize("change", [{"version": 0}, {"adapter_digest": "md5:1"}, {"task": "A"}])
def test_a_champion_has_a_name_a_number_and_a_digest(change):
    good = ChampionRef("a", 1, BACKBONE, DATA, "run")
    with pytest.raises(UsageError):
        replace(good, **change)


def test_at_the_start_nothing_serves(embedded):
    assert releases.current_release(embedded) is None
    for number in (1, 10**30):
        with pytest.raises(UsageError, match=f"no release {number}"):
            releases.get_release(embedded, number)


def test_promotions_follow_one_another(registry, candidate, promote):
    before = releases.current_release(registry)
    one, two = candidate("one"), candidate("two")
    first, second = promote(one), promote(two)
    now = releases.current_release(registry)
    assert now == second
    assert {one.task: one, two.task: two}.items() <= now.tasks.items()
    assert second.previous == first.digest
    assert first.previous == (before.digest if before else "")
    assert releases.get_release(registry, first.version) == first
    assert aliases(registry, one, two) == [{"champion": 1}, {"champion": 1}]


def test_a_new_version_leaves_the_old_champion_as_previous(registry, candidate, promote):
    promote(candidate("one"))
    better = candidate("one", "two")
    promote(better)
    assert aliases(registry, better) == [{"champion": 2, "previous": 1}]


def test_promoting_the_same_again_changes_nothing(registry, candidate, promote):
    one = candidate("one")
    first = promote(one)
    assert promote(one, gate="sha256:whatever") == first


def test_a_gate_that_saw_another_release_is_stale_and_changes_nothing(registry, candidate, promote):
    one, two = candidate("one"), candidate("two")
    now = releases.current_release(registry)
    seen = now.digest if now else ""
    serving = promote(one, gate=seen)
    with pytest.raises(releases.StaleGate, match="another release") as caught:
        promote(two, gate=seen)
    assert isinstance(caught.value, GateRefused)
    assert caught.value.exit_code == 4
    assert releases.current_release(registry) == serving
    assert aliases(registry, two) == [{"candidate": 1}]


def test_writing_a_release_serves_nothing_yet(registry, candidate, promote):
    serving = promote(candidate("one"))
    tasks = {**serving.tasks, (two := candidate("two")).task: two}
    fresh = Release(BACKBONE, tasks, previous=serving.digest)
    written = releases.write_release(registry, fresh)
    assert releases.write_release(registry, fresh).version == written.version > serving.version
    assert releases.current_release(registry) == serving
    with pytest.raises(UsageError, match="written"):
        releases.activate(registry, fresh)


def test_what_a_release_was_admitted_by_is_kept_beside_it(registry, candidate, tmp_path):
    now = releases.current_release(registry)
    made = releases.promote(
        registry, candidate("one"), gate_release=now.digest if now else "", backbone=BACKBONE,
        files={"gate.json": b"{}"},
    )  # fmt: skip
    path = fetch.fetch_file(registry, "clr-release", made.version, "gate.json", tmp_path)
    assert path.read_bytes() == b"{}"


def test_rolling_back_takes_the_newcomer_out_again(registry, candidate, promote):
    one, two = candidate("one"), candidate("two")
    first, second = promote(one), promote(two)
    releases.activate(registry, releases.get_release(registry, first.version))
    assert releases.current_release(registry) == first
    assert aliases(registry, one, two) == [{"champion": 1}, {"previous": 1}]
    releases.activate(registry, second)
    assert aliases(registry, one, two) == [{"champion": 1}, {"champion": 1, "previous": 1}]


def test_a_changed_release_file_is_refused_and_can_be_left(state, network):
    from clr.registry.store import open_registry
    from clr.settings import Settings

    registry = open_registry(Settings(workspace=state, home=state))
    champions = []
    for name in ("a", "b"):
        run = runs.find_or_start_run(registry, name, "sha256:1")
        made = versions.register_adapter(
            registry, run, network.one.path, key="sha256:1", backbone=network.reference,
            data_digest=DATA, card="", tags={},
        )  # fmt: skip
        champions.append(ChampionRef(name, made.version, made.adapter_digest, DATA, run.id))
    first = releases.promote(registry, champions[0], gate_release="", backbone=BACKBONE)
    second = releases.promote(registry, champions[1], gate_release=first.digest, backbone=BACKBONE)
    path = fetch.fetch_file(registry, "clr-release", second.version, "release.json", Path(state))
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2', 1))
    with pytest.raises(IntegrityBroken, match="roll back"):
        releases.current_release(registry)
    releases.activate(registry, releases.get_release(registry, first.version))
    assert releases.current_release(registry) == first
    assert versions.tasks(registry) == {"a": {"champion": 1}, "b": {"previous": 1}}
    path.unlink()
    with pytest.raises(IntegrityBroken, match="missing"):
        releases.get_release(registry, second.version)


def test_aliases_that_somebody_moved_are_put_right(registry, candidate, promote):
    one = candidate("one")
    release = promote(one)
    registry.client.delete_registered_model_alias(f"clr-{one.task}", "champion")
    assert releases.settle(registry, release, everything=True) == [one.task]
    assert aliases(registry, one) == [{"champion": 1}]
    assert releases.settle(registry, release, everything=True) == []


def test_a_release_of_hundreds_of_tasks_is_one_small_version(embedded):
    import time

    tasks = {f"t{n}": ChampionRef(f"t{n}", 1, BACKBONE, DATA, "r" * 32) for n in range(300)}
    release = releases.write_release(embedded, Release(BACKBONE, tasks))
    stored = embedded.client.get_model_version("clr-release", str(release.version))
    assert len(stored.description) <= versions.DESCRIPTION_LIMIT
    assert "260 more" in stored.description
    start = time.process_time()
    assert len(releases.get_release(embedded, release.version).tasks) == 300
    assert time.process_time() - start < 1
