"""Trials on site: sticky and even assignment, both arms recorded, harm stopped, all of it told."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import chdir
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from clr.errors import ReviewRefused, UsageError
from clr.registry.trial import Trial
from clr.serving.challengers import Challengers
from clr.serving.engine import Engine
from clr.serving.journal import Journal, Told, Tried, answer, journal_path, labelled
from clr.serving.passes import Unavailable
from clr.serving.trials import figures, meets_challenger, unit_of
from clr.serving.values import Answer, Item
from flows import trial as flow
from flows.session import Session
from tests.serving.challengers import challenge
from tests.serving.journals import SAMPLE, write
from tests.serving.load import Server
from tests.serving.plants import Served
from tests.waiting import until as waited

TRIAL = Trial("0123456789abcdef" * 2, 0.1, "sha256:" + "a" * 64, "2026-01-01T00:00:00+00:00")


# --- a served workspace


def session_of(served: Served) -> Session:
    return Session(served.settings())


def using(served: Served, use: Callable[[Engine], Awaitable[Any]]) -> Any:
    """Run `use` with an engine that looks at the registry ten times a second."""

    async def run() -> Any:
        engine = Engine(served.settings(serve_poll_seconds=0.1))
        await engine.start()
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


async def ask(engine: Engine, served: Served, units: list[str], task: str = "red") -> list[Answer]:
    data = served.images(task)[0].read_bytes()
    return await engine.predict([Item(unit, data, task, unit) for unit in units])


async def label(engine: Engine, answers: list[Answer], right: str) -> None:
    """Say that the champion was right; `right` is its label."""
    for one in answers:
        await engine.feedback(one.request_id, right)


async def until(engine: Engine, words: str, seconds: float = 60.0) -> None:
    """Wait until the health of the engine says `words` about the trial of red."""
    for _ in range(int(seconds / 0.1)):
        if words in engine.health().trials.get("red", ""):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(engine.health().trials)


def pairs(trial: Trial, count: int, said: tuple[str, str]) -> tuple[list[Tried], list[Told]]:
    """Rows of items that were "good" and of which champion and challenger `said` something."""
    ids, now = [secrets.token_hex(16) for _ in range(count)], time.time()
    tried = [Tried(one, now, trial.id, one, trial.share, "champion", *said) for one in ids]
    return tried, [Told(one, now, "lab", "good") for one in ids]


def numbers(count: int, start: int = 0) -> list[str]:
    return [f"unit-{number}" for number in range(start, start + count)]


def test_in_shadow_nobody_gets_the_challenger_and_both_are_recorded(own):
    number = challenge(own)
    started = flow.start(session_of(own), "red", number, 0.0, "new lamps")
    assert (started["mode"], started["champion"]) == ("in shadow", 1)

    async def use(engine):
        await until(engine, "in shadow")
        answers = await ask(engine, own, numbers(6))
        others = await ask(engine, own, numbers(2), "green")
        await label(engine, answers[:3], answers[0].label)
        return answers, others

    answers, others = using(own, use)
    assert {(one.arm, one.version) for one in answers} == {("champion", 1)}
    assert {one.arm for one in others} == {"champion"}
    (told,) = flow.status(session_of(own), None)["trials"]
    champion, challenger = (told["figures"][name] for name in ("champion", "challenger"))
    assert (champion["served"], champion["labelled"], champion["right"]) == (6, 3, 3)
    assert (challenger["served"], challenger["labelled"], challenger["right"]) == (6, 3, 0)
    assert told["figures"]["discordant"] == (3, 0)
    assert told["outcome"].startswith("Nothing is decided yet: -100.0 points")


def test_with_a_share_units_are_sticky_also_after_a_restart(own):
    number = challenge(own)
    started = flow.start(session_of(own), "red", number, 0.1, "")
    units = numbers(60)

    async def use(engine):
        await until(engine, "share 10%")
        return [one.arm for one in await ask(engine, own, units)]

    first, again = using(own, use), using(own, use)
    assert first == again
    trial = replace(TRIAL, id=started["trial"])
    expected = [meets_challenger(trial, unit_of(trial, unit, "")) for unit in units]
    assert [arm == "challenger" for arm in first] == expected
    assert 0 < sum(expected) < 20


def test_harm_stops_the_trial_at_once_and_for_good(own):
    """The flipped challenger is always wrong; nine discordant pairs prove that."""
    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.0, "")

    async def harm(engine):
        await until(engine, "in shadow")
        answers = await ask(engine, own, numbers(12))
        await label(engine, answers, answers[0].label)
        await until(engine, "Stopped by this server")
        return await ask(engine, own, numbers(5, 100))

    assert {one.arm for one in using(own, harm)} == {"champion"}

    async def again(engine):
        await until(engine, "Stopped by this server")
        return await ask(engine, own, numbers(5, 200))

    assert {one.version for one in using(own, again)} == {1}
    session = session_of(own)
    (ended,) = flow.settle(session)
    assert ended["verdict"] == "harm"
    assert "does harm" in ended["outcome"]
    (entry,) = session.ledger.entries(action="trial.ended")
    assert entry.subject == f"clr-red/{number}"
    assert entry.payload["figures"]["gain"]["high"] < 0
    assert flow.status(session, None) == {"trials": []}
    assert flow.settle(session) == []


def test_a_registry_that_answers_late_delays_no_stop(own):
    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.0, "")

    async def use(engine):
        await until(engine, "in shadow")
        challengers, hung = engine._open()[0].challengers, threading.Event()
        answering = challengers.open_registry
        challengers.open_registry = lambda: (hung.wait(120), answering())[1]
        try:
            await asyncio.sleep(0.5)  # the next look hangs now
            answers = await ask(engine, own, numbers(12))
            await label(engine, answers, answers[0].label)
            await until(engine, "Stopped by this server")
        finally:
            hung.set()

    using(own, use)


def test_a_trial_whose_journal_cannot_be_read_pauses_and_goes_on_when_it_can(own):
    flow.start(session_of(own), "red", challenge(own), 0.0, "")
    path = journal_path(own.state)
    aside = path.with_suffix(".aside")

    async def use(engine):
        await until(engine, "in shadow")
        path.rename(aside)
        path.mkdir()
        await until(engine, "cannot be read")
        (answer,) = await ask(engine, own, ["unit"])
        path.rmdir()
        aside.rename(path)
        await until(engine, "in shadow")
        return answer

    assert using(own, use).arm == "champion"


def test_a_stop_while_the_registry_is_looked_at_is_a_stop(own):
    """A look takes as long as another task's challenger takes to come; a verdict does not wait."""
    first, second = "green", "red"
    started = flow.start(session_of(own), first, challenge(own, first), 0.0, "")
    trial = replace(TRIAL, id=started["trial"], share=0.0)

    def read(ref):
        if ref.task == second:
            write(own.state, *pairs(trial, 12, ("good", "bad")))
            challengers.judge()
            assert not challengers.running
        return own.second

    challengers = Challengers(own.state, own.registry, read, 0.1)
    challengers.look()
    assert set(challengers.running) == {first}
    flow.start(session_of(own), second, challenge(own, second), 0.0, "")
    challengers.look()
    assert set(challengers.running) == {second}
    assert challengers.told()[first].startswith("Stopped by this server")


@pytest.mark.parametrize(
    ("share", "mode", "error"),
    [
        (0.1, "share 10%", RuntimeError("out of memory")),
        (0.1, "share 10%", Unavailable("its file is gone")),
        (0.0, "in shadow", RuntimeError("out of memory")),
    ],
)
def test_a_challenger_that_fails_costs_nobody_an_answer(
    own, caplog, monkeypatch, share, mode, error
):
    number = challenge(own)
    flow.start(session_of(own), "red", number, share, "")
    monkeypatch.setattr(logging.getLogger("clr"), "propagate", True)  # commands turn it off

    async def use(engine):
        await until(engine, mode)
        batcher = engine._open()[0].batcher
        computed = batcher.compute

        def failing(jobs):
            of_it = [job.loaded.ref.version == number for job in jobs]
            found = computed(jobs)
            return [error if failed else one for failed, one in zip(of_it, found, strict=True)]

        batcher.compute = failing
        return await ask(engine, own, numbers(60))

    assert {(one.arm, one.version) for one in using(own, use)} == {("champion", 1)}
    assert str(error) in caplog.text


def test_what_is_futile_and_then_a_gain_after_all_is_told_both_times(own):
    from clr.registry.versions import get_version

    number = challenge(own)
    started = flow.start(session_of(own), "red", number, 0.0, "")
    trial = replace(TRIAL, id=started["trial"], share=0.0)
    session = session_of(own)
    equal, better = pairs(trial, 800, ("good", "good")), pairs(trial, 12, ("bad", "good"))
    for part, said in ((equal, "No gain worth"), (better, "The challenger is better")):
        write(own.state, *part)
        for _ in range(2):
            assert flow.settle(session) == []
        outcome = json.loads(get_version(session.registry, "red", number).tags["clr.trial"])
        assert outcome["outcome"].startswith(said)
    entries = session.ledger.entries(action="trial.decided")
    assert [one.payload["verdict"] for one in entries] == ["futile", "better"]


def test_a_gain_is_told_once_and_the_trial_goes_on_until_people_decide(own):
    """The champion is always wrong, as the labels have it."""
    from clr.registry.versions import get_version

    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.0, "")

    async def use(engine):
        await until(engine, "in shadow")
        answers = await ask(engine, own, numbers(12))
        await label(engine, answers, next(iter({*answers[0].probabilities} - {answers[0].label})))
        await asyncio.sleep(0.5)
        return engine.health().trials

    assert "in shadow" in using(own, use)["red"]
    session = session_of(own)
    for _ in range(2):
        assert flow.settle(session) == []
    (entry,) = session.ledger.entries(action="trial.decided")
    assert entry.payload["verdict"] == "better"
    version = get_version(session.registry, "red", number)
    assert "The challenger is better: +100.0 points" in version.tags["clr.trial"]
    assert json.loads(version.tags["clr.trial"])["report"]
    assert "challenger" in version.aliases


def test_a_harmful_share_goes_to_nobody(own):
    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.1, "")

    async def use(engine):
        await until(engine, "share 10%")
        known = (await ask(engine, own, ["one"], "red"))[0]
        for start in range(0, 2000, 100):
            answers = await ask(engine, own, numbers(100, start))
            champions = {one.label for one in answers if one.arm == "champion"}
            await label(engine, answers, champions.pop())
            if "Stopped" in engine.health().trials.get("red", ""):
                break
        await until(engine, "Stopped by this server")
        return known, await ask(engine, own, numbers(100, 5000))

    _, after = using(own, use)
    assert {one.arm for one in after} == {"champion"}


def test_the_report_is_in_mlflow_and_the_version_names_it(own, tmp_path):
    from clr.registry.fetch import fetch_files
    from clr.registry.versions import get_version

    number = challenge(own, flipped=False)
    flow.start(session_of(own), "red", number, 0.0, "<b>lamps</b>")

    async def use(engine):
        await until(engine, "in shadow")
        answers = await ask(engine, own, numbers(10))
        await label(engine, answers, answers[0].label)

    using(own, use)
    session = session_of(own)
    ended = flow.stop(session, "red", "enough seen")
    assert ended["outcome"].startswith("Stopped by hand: enough seen. Nothing is decided yet")
    names = [f"trial/{name}" for name in ("report.html", "sequence.png", "trial.json")]
    files = fetch_files(session.registry, ended["report"], names, tmp_path)
    page = files["trial/report.html"].read_text()
    assert "&lt;b&gt;lamps&lt;/b&gt;" in page
    assert "Promotion needs the review" in page
    assert json.loads(files["trial/trial.json"].read_text())["figures"]["champion"]["right"] == 10
    assert files["trial/sequence.png"].read_bytes().startswith(b"\x89PNG")
    version = get_version(session.registry, "red", number)
    assert ended["report"] in version.tags["clr.trial"]
    assert "challenger" not in version.aliases
    with pytest.raises(UsageError, match="No trial of red runs"):
        flow.stop(session, "red", "")


# --- what is refused, and what ends a trial


def test_a_version_that_failed_or_was_rejected_or_a_second_one_is_refused(own):
    session = session_of(own)
    failed = challenge(own, "green", passed=False)
    with pytest.raises(ReviewRefused, match="did not pass the retention gate"):
        flow.start(session, "green", failed, 0.0, "")
    with pytest.raises(ReviewRefused, match="at most, not 50%"):
        flow.start(session, "red", challenge(own), 0.5, "")
    with pytest.raises(ReviewRefused, match="cannot be tried against itself"):
        flow.start(session, "red", 1, 0.0, "")
    with pytest.raises(UsageError, match="no trial"):
        flow.start(session, "red", 2, float("nan"), "")
    flow.start(session, "red", 2, 0.0, "")
    other = challenge(own, flipped=False)
    with pytest.raises(ReviewRefused, match="one trial at a time"):
        flow.start(session, "red", other, 0.0, "")
    assert [one["version"] for one in flow.status(session, "red")["trials"]] == [2]


def test_a_trial_ends_when_another_version_serves(own):
    number = challenge(own)
    flow.start(session_of(own), "green", challenge(own, "green"), 0.0, "")
    flow.start(session_of(own), "red", number, 0.0, "")
    own.activate(own.first)  # both tasks serve on, as before
    assert flow.settle(session_of(own)) == []
    from clr.registry.releases import activate, write_release
    from clr.registry.versions import champion_of, get_version

    session = session_of(own)
    promoted = champion_of(get_version(session.registry, "red", number))
    changed = replace(
        own.first, tasks={**own.first.tasks, "red": promoted}, previous=own.first.digest, version=0
    )
    activate(session.registry, write_release(session.registry, changed, {}))
    assert [one["champion"] for one in flow.status(session, "red")["trials"]] == [1]  # as begun
    (ended,) = flow.settle(session)
    assert (ended["task"], ended["outcome"][:29]) == ("red", "The challenger serves by now.")
    assert ended["champion"] == 1

    async def use(engine):
        return engine.health().trials

    assert using(own, use) == {"green": "version 2, in shadow"}


def test_a_challenger_with_other_bytes_answers_nobody(own):
    from clr.registry.fetch import fetch_adapter

    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.0, "")
    path = fetch_adapter(own.registry(), "red", number, own.state / "unused")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))

    async def use(engine):
        await until(engine, "should have sha256:")
        return await ask(engine, own, numbers(3))

    assert {one.version for one in using(own, use)} == {1}


# --- a real server, by the commands


def clr(served: Served, *arguments: str) -> Any:
    """Run a command with nothing kept from the one before; return (its JSON, its exit code)."""
    from flows import session
    from flows.cli import main

    session._session.cache_clear()
    with chdir(served.root):
        done = CliRunner().invoke(main, [*arguments, "--json"], env=served.environment)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout), done.exit_code


def sent(server: Server, served: Served, units: list[str]) -> list[dict[str, Any]]:
    """Send the same image for each unit; return the answers."""
    image = base64.b64encode(served.images("red")[0].read_bytes()).decode()
    body = {"instances": [{"image": image, "task": "red", "unit": unit} for unit in units]}
    status, told = server.ask("POST", "/v1/predict", body)
    assert status == 200, told
    return told["predictions"]


@pytest.mark.soak
def test_from_start_to_report_by_the_commands_over_http_and_across_a_kill(own, tmp_path):
    number = str(challenge(own))
    environment = {**own.environment, "CLR_SERVE_POLL_SECONDS": "0.3"}
    server = Server(own.root, environment, tmp_path / "serve.log")
    started, code = clr(own, "ab", "start", "red", number, "--reason", "new lamps")
    assert (started["mode"], code) == ("in shadow", 0)
    assert clr(own, "ab", "start", "red", number)[1] == UsageError.exit_code, "it is on trial"
    server.start()
    try:
        answers = sent(server, own, numbers(20))
        server.stop(signal.SIGKILL)
        server.start()
        assert {one["arm"] for one in answers + sent(server, own, numbers(5, 20))} == {"champion"}
        for one in answers:
            said = {"request_id": one["request_id"], "label": one["label"]}
            assert server.ask("POST", "/v1/feedback", said)[0] == 200
        stopped = own.state / "serving" / "stopped" / f"{started['trial']}.json"
        assert waited(stopped.exists), "the server itself stops it"
        (told,) = clr(own, "ab", "status", "red")[0]["trials"]
        assert told["over"] == "Stopped by itself: the challenger does harm."
        assert told["figures"]["champion"] | {"low": 0, "high": 0} == {
            "served": 25, "labelled": 20, "right": 20, "rate": 1.0, "low": 0, "high": 0,
        }  # fmt: skip
        ended, code = clr(own, "ab", "stop", "red")
        assert (ended["verdict"], code) == ("harm", 0)
        assert clr(own, "ab", "status")[0] == {"trials": []}
        assert clr(own, "ab", "stop", "red")[1] == UsageError.exit_code
    finally:
        server.stop()


# --- what counts


def test_a_unit_counts_once_by_its_first_label(own):
    number = challenge(own)
    flow.start(session_of(own), "red", number, 0.0, "")

    async def use(engine):
        await until(engine, "in shadow")
        first, second, third = await ask(engine, own, ["same", "same", "other"])
        wrong = next(one for one in first.probabilities if one != first.label)
        await engine.feedback(second.request_id, second.label)  # the first label of "same"
        await engine.feedback(first.request_id, wrong)
        await engine.feedback(third.request_id, wrong)
        await engine.feedback(third.request_id, third.label)  # corrected later

    using(own, use)
    (told,) = flow.status(session_of(own), "red")["trials"]
    figures = told["figures"]
    assert (figures["champion"]["labelled"], figures["champion"]["right"]) == (2, 1)
    assert figures["discordant"] == (1, 1)


@pytest.mark.parametrize(("days", "rows"), [(90, 10), (1, 10_000_000)])
def test_what_counts_in_a_trial_is_kept_while_its_items_come(tmp_path, days, rows):
    """Else its inference would begin anew again and again, and be wrong ever more often."""
    now = time.time()
    ids = [f"{number:03d}" for number in range(60)]
    times = [now - (60 - number) * 3600 for number in range(60)]
    served = [replace(SAMPLE, request_id=one, time=at) for one, at in zip(ids, times, strict=True)]
    tried = [
        Tried(one, at, TRIAL.id, f"{one:>032}", 0.0, "champion", "good", "bad")
        for one, at in zip(ids, times, strict=True)
    ]
    told = [Told(one, at + 1, "lab", "good") for one, at in zip(ids[:40], times, strict=False)]
    write(tmp_path, served, tried, told)
    shadow = replace(TRIAL, share=0.0)
    before = figures(tmp_path, shadow)
    journal = Journal(journal_path(tmp_path), keep_days=days, keep_rows=rows)
    journal.write([replace(SAMPLE, request_id="z", time=now)]).result(timeout=60)  # sweeps
    journal.close()
    after = figures(tmp_path, shadow)
    assert answer(tmp_path, ids[0]) is None, "swept"
    assert (after.gain, after.discordant) == (before.gain, before.discordant)
    assert after.challenger.labelled == before.challenger.labelled == 40


def test_a_trial_that_is_over_is_forgotten(tmp_path):
    long_ago = time.time() - 100 * 86_400
    tried = Tried("a", long_ago, TRIAL.id, "0" * 32, 0.0, "champion", "good", "bad")
    write(tmp_path, [replace(SAMPLE, request_id="a", time=long_ago)], [tried],
          [Told("a", long_ago, "lab", "good")])  # fmt: skip
    journal = Journal(journal_path(tmp_path), keep_days=90, keep_rows=10)
    journal.write([replace(SAMPLE, request_id="z", time=time.time())]).result(timeout=60)
    journal.close()
    assert figures(tmp_path, replace(TRIAL, share=0.0)).first == 0.0
    assert not labelled(tmp_path, "a")


def test_a_row_that_cannot_be_kept_takes_no_other_with_it(tmp_path):
    journal = Journal(journal_path(tmp_path), keep_days=90, keep_rows=10)
    rows = [replace(SAMPLE, request_id=one, time=time.time()) for one in ("a", "b", "c")]
    rows[1] = replace(rows[1], probability=math.nan)  # SQLite takes that for nothing at all
    journal.write(rows).result(timeout=60)
    assert "probability" in journal.problem
    journal.write([replace(rows[0], request_id="d")]).result(timeout=60)
    assert journal.problem == ""
    journal.close()
    found = {one: answer(tmp_path, one) is not None for one in "abcd"}
    assert found == {"a": True, "b": False, "c": True, "d": True}
