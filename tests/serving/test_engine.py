"""The engine answers from the release in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from clr.errors import UsageError
from clr.serving import journal
from clr.serving.challengers import Running
from clr.serving.engine import Engine
from clr.serving.snapshot import Loaded
from clr.serving.values import Answer, Failed, Item, NotReady, Overloaded, UnknownRequest
from tests.serving.plants import TASKS, Served

Use = Callable[[Engine], Awaitable[Any]]


def using(served: Served, use: Use, **settings: Any) -> Any:
    """Run `use` with a started engine."""

    async def run() -> Any:
        engine = Engine(served.settings(**settings))
        await engine.start()
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def picture(served: Served, task: str = "red", number: int = 0) -> bytes:
    return served.images(task)[number].read_bytes()


def test_each_item_has_its_own_answer_or_error(served: Served) -> None:
    items = [
        Item("named", picture(served), "red"),
        Item("routed", picture(served, "green")),
        Item("broken", b"not an image"),
        Item("stranger", picture(served), "hats"),
    ]

    async def use(engine: Engine) -> Any:
        return await engine.predict(items), engine.health(), engine.tasks()

    (named, routed, broken, stranger), health, tasks = using(served, use)
    assert isinstance(named, Answer)
    assert isinstance(routed, Answer)
    assert (named.task, named.how, named.release) == ("red", "named", served.second.version)
    assert (routed.task, routed.how) == ("green", "routed")
    assert named.adapter == served.second.tasks["red"].adapter_digest
    assert sum(named.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert named.probability == max(named.probabilities.values())
    assert (broken.code, stranger.code) == ("unreadable", "unknown-task")
    assert health.ready
    assert health.tasks == tuple(sorted(TASKS))
    assert [one.name for one in tasks] == sorted(TASKS)
    assert tasks[0].labels == ("left", "right")


def test_batches_answer_as_one_by_one(served: Served) -> None:
    """Whatever else is in its batch, an image has the same answer."""
    items = [
        Item(f"{task} {number}", picture(served, task, number), task if number % 2 else None)
        for task in TASKS
        for number in range(6)
    ]

    async def use(engine: Engine) -> Any:
        together = await engine.predict(items)
        alone = [(await engine.predict([item]))[0] for item in items]
        return together, alone

    together, alone = using(served, use)
    for one, other in zip(together, alone, strict=True):
        assert (one.task, one.label, one.how) == (other.task, other.label, other.how)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_one_task_alone_needs_no_router(own: Served) -> None:
    from dataclasses import replace

    from clr.core.routing import router_digest  # the router of one task
    from clr.registry.releases import write_release

    registry = own.registry()
    only = {"red": own.first.tasks["red"]}
    fresh = replace(own.first, tasks=only, router=router_digest({}), version=0)
    own.activate(write_release(registry, fresh, {"gate.json": b"{}"}))

    async def use(engine: Engine) -> Any:
        return await engine.predict([Item("a", picture(own))])

    (answer,) = using(own, use)
    assert (answer.task, answer.how) == ("red", "only")


def test_a_full_queue_says_when_to_come_again(served: Served) -> None:
    async def use(engine: Engine) -> Any:
        asking = [
            asyncio.create_task(engine.predict([Item("a", picture(served), "red")] * 4))
            for _ in range(6)
        ]
        found = await asyncio.gather(*asking, return_exceptions=True)
        after = await engine.predict([Item("a", picture(served), "red")])
        return found, after

    found, after = using(served, use, serve_queue_items=10)
    refused = [one for one in found if isinstance(one, Overloaded)]
    assert len(refused) == 4
    assert all(1 <= one.retry_after <= 60 for one in refused)
    assert isinstance(after[0], Answer)


def test_more_than_ever_fits_is_the_callers_mistake(served: Served) -> None:
    async def use(engine: Engine) -> None:
        with pytest.raises(UsageError, match="at most 3"):
            await engine.predict([Item("a", b"", "red")] * 4)
        with pytest.raises(UsageError, match="1 MB"):
            await engine.predict([Item("a", bytes(2_000_000), "red")])

    using(served, use, serve_queue_items=3, serve_queue_mb=1)


def test_a_request_has_a_time_out(served: Served) -> None:
    async def use(engine: Engine) -> Any:
        return await engine.predict([Item("a", picture(served), "red")])

    (late,) = using(served, use, serve_seconds=1e-6)
    assert isinstance(late, Failed)
    assert late.code == "time-out"


def test_what_is_in_work_when_it_stops_is_answered(served: Served) -> None:
    async def run() -> Any:
        engine = Engine(served.settings())
        await engine.start()
        items = [Item("a", picture(served, "blue"))] * 40
        asking = asyncio.create_task(engine.predict(items))
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(NotReady):
            await engine.predict(items)
        return await asking

    assert all(isinstance(one, Answer) for one in asyncio.run(run()))


def test_every_answer_is_in_the_journal_before_it_is_given(served: Served) -> None:
    async def use(engine: Engine) -> Any:
        answers = await engine.predict(
            [Item("a", picture(served), "red", unit="cap 7")], client="line 3"
        )
        return answers[0], journal.answer(served.state, answers[0].request_id)

    answer, entry = using(served, use)
    assert entry is not None
    assert (entry.task, entry.label, entry.adapter) == (answer.task, answer.label, answer.adapter)
    assert (entry.client, entry.unit, entry.arm) == ("line 3", "cap 7", "champion")
    assert entry.release_digest == served.second.digest


def test_a_label_that_comes_later_is_joined(served: Served) -> None:
    async def use(engine: Engine) -> Any:
        (answer,) = await engine.predict([Item("a", picture(served), "red")])
        first = await engine.feedback(answer.request_id, "right", client="line 3")
        again = await engine.feedback(answer.request_id, "left")
        with pytest.raises(UsageError, match="left, right"):
            await engine.feedback(answer.request_id, "hat")
        with pytest.raises(UnknownRequest):
            await engine.feedback("nobody", "left")
        return answer, first, again

    answer, first, again = using(served, use)
    assert (first.first, again.first) == (True, False)
    assert first.predicted == answer.label
    labels = journal.labelled(served.state, answer.request_id)
    assert labels[-1].label == "left"  # the newest
    assert len(labels) == 2


def test_an_answer_of_a_task_that_is_served_no_more_is_labelled_still(own: Served) -> None:
    gone = TASKS[2]

    async def use(engine: Engine) -> Any:
        own.activate(own.second)
        (answer,) = await engine.predict([Item("a", picture(own, gone), gone)])
        own.activate(own.first)
        await engine.predict([Item("a", picture(own), "red")])
        assert gone not in {one.name for one in engine.tasks()}
        return await engine.feedback(answer.request_id, "a class of then")

    assert using(own, use).first


def test_a_class_that_the_challenger_alone_knows_is_a_label(own: Served) -> None:
    async def use(engine: Engine) -> Any:
        (answer,) = await engine.predict([Item("a", picture(own), "red")])
        desk, follower = engine._open()
        assert follower.snapshot is not None
        red = follower.snapshot.tasks["red"]
        spec = replace(red.spec, labels=("left", "right", "top"))
        newer = Loaded(replace(red.ref, adapter_digest="sha256:" + "f" * 64), spec)
        desk.challengers.running = {"red": Running(None, newer)}  # type: ignore[arg-type]
        return await engine.feedback(answer.request_id, "top")

    assert using(own, use).first


def test_old_answers_leave_the_journal(own: Served) -> None:
    async def use(engine: Engine) -> None:
        for _ in range(3):
            await engine.predict([Item("a", picture(own), "red")] * 10)

    using(own, use)
    using(own, use, keep_answers=20)  # swept at the first write, then ten more twice
    with journal.reading(own.state) as database:
        ((kept,),) = database.execute("SELECT count(*) FROM answers")
    assert 20 <= kept <= 40


def test_without_a_release_nothing_is_answered(own: Served) -> None:
    own.registry().client.delete_registered_model_alias("clr-release", "champion")

    async def use(engine: Engine) -> Any:
        with pytest.raises(NotReady):
            await engine.predict([Item("a", picture(own), "red")])
        return engine.health()

    assert not using(own, use).ready


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (3, 2), (23, 16), (32, 32), (33, 32)])
def test_batches_have_few_different_sizes(count: int, size: int) -> None:
    from clr.serving.batching import whole

    assert whole(count) == size


def test_where_the_journal_cannot_be_written_answers_are_given(own: Served) -> None:
    import sqlite3
    from contextlib import closing

    async def use(engine: Engine) -> Any:
        path = journal.journal_path(own.state)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            (answer,) = await engine.predict([Item("a", picture(own), "red")])
            troubled = engine.health()
        (later,) = await engine.predict([Item("a", picture(own), "red")])
        return answer, troubled, later, engine.health()

    answer, troubled, later, healed = using(own, use)
    assert isinstance(answer, Answer)
    assert (troubled.ready, bool(troubled.journal), healed.journal) == (True, True, "")
    assert journal.answer(own.state, answer.request_id) is None
    assert journal.answer(own.state, later.request_id)


def test_a_label_that_cannot_be_written_is_never_said_to_be(
    own: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3
    from contextlib import closing

    monkeypatch.setattr(journal, "_WRITE_SECONDS", 0.1)

    async def use(engine: Engine) -> str:
        (answer,) = await engine.predict([Item("a", picture(own), "red")])
        path = journal.journal_path(own.state)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotReady, match="could not be written down"):
                await engine.feedback(answer.request_id, "left")
        assert (await engine.feedback(answer.request_id, "left")).first
        return answer.request_id

    assert len(journal.labelled(own.state, using(own, use))) == 1
