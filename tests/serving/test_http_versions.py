"""A version that an address of the Open Inference Protocol names answers, or nothing does."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from httpx import ASGITransport, AsyncClient, Response

from clr.serving.app import create_app
from clr.serving.engine import Engine
from clr.serving.trials import meets_challenger, unit_of
from flows import trial as flow
from flows.session import Session
from tests.serving.challengers import challenge
from tests.serving.plants import Served
from tests.serving.test_trials import TRIAL, numbers

RARELY = 3600.0
"""Seconds between two looks of the engine at the registry, in tests that do not wait for one."""


def using(served: Served, use: Callable[[AsyncClient, Engine], Awaitable[Any]]) -> Any:
    """Run `use` with a client of the app, which is asked as a server asks it."""

    async def run() -> Any:
        settings = served.settings(serve_keys=False, serve_poll_seconds=RARELY)
        engine = Engine(settings)
        await engine.start()
        app = ASGITransport(create_app(engine, settings))
        try:
            async with AsyncClient(transport=app, base_url="http://localhost") as client:
                return await use(client, engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def infer(
    client: AsyncClient, served: Served, path: str, unit: str | None = None
) -> Awaitable[Response]:
    """Ask for an image of red at an address below that of the models."""
    data = base64.b64encode(served.images("red")[0].read_bytes()).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [data]}
    body = {"inputs": [tensor], "parameters": {"unit": unit} if unit else {}}
    return client.post(f"/v2/models/{path}/infer", json=body)


def output(answer: Response, name: str) -> Any:
    return next(one["data"][0] for one in answer.json()["outputs"] if one["name"] == name)


def refused(answer: Response) -> str:
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown-task"), answer.text
    return str(answer.json()["detail"])


def next_version(served: Served) -> Any:
    """Write a release in which red has version 2; return it."""
    from clr.registry.releases import write_release
    from clr.registry.versions import champion_of, get_version

    registry = served.registry()
    fresh = champion_of(get_version(registry, "red", challenge(served)))
    tasks = {**served.second.tasks, "red": fresh}
    release = replace(served.second, tasks=tasks, previous=served.second.digest, version=0)
    return write_release(registry, release, {"gate.json": b"{}"})


def test_what_was_promoted_a_moment_ago_is_there_and_what_was_before_is_not(own: Served) -> None:
    third = next_version(own)

    async def use(client: AsyncClient, engine: Engine) -> None:
        first = await infer(client, own, "red/versions/1")
        assert (first.status_code, first.json()["model_version"]) == (200, "1")
        assert "version 1 is" in refused(await infer(client, own, "red/versions/2"))
        await asyncio.to_thread(own.activate, third)
        second = await infer(client, own, "red/versions/2")
        assert (second.status_code, second.json()["model_version"]) == (200, "2")
        assert "version 2 is" in refused(await infer(client, own, "red/versions/1"))
        for version in ("x", "-1", "9" * 5000, "%0A1"):
            assert len(refused(await infer(client, own, f"red/versions/{version}"))) < 400

    using(own, use)


def test_a_task_that_is_new_in_the_release_is_found_at_once(own: Served) -> None:
    own.activate(own.first)

    async def use(client: AsyncClient, engine: Engine) -> None:
        assert "no task 'blue'" in refused(await client.get("/v2/models/blue/ready"))
        assert "no task 'blue'" in refused(await infer(client, own, "blue"))
        await asyncio.to_thread(own.activate, own.second)
        assert (await client.get("/v2/models/blue/ready")).json()["ready"]
        assert (await client.get("/v2/models/blue/versions/1")).json()["versions"] == ["1"]
        assert (await infer(client, own, "blue")).status_code == 200

    using(own, use)


def test_a_trial_gives_no_other_version_to_who_asked_for_one(own: Served) -> None:
    number = challenge(own)
    started = flow.start(Session(own.settings()), "red", number, 0.1, "")
    trial = replace(TRIAL, id=started["trial"])
    unit = next(one for one in numbers(1000) if meets_challenger(trial, unit_of(trial, one, "")))

    async def use(client: AsyncClient, engine: Engine) -> None:
        anybody = await infer(client, own, "red", unit)
        assert (anybody.json()["model_version"], output(anybody, "arm")) == ("2", "challenger")
        pinned = await infer(client, own, "red/versions/1", unit)
        assert (pinned.json()["model_version"], output(pinned, "arm")) == ("1", "champion")
        refused(await infer(client, own, "red/versions/2", unit))

    using(own, use)
    (told,) = flow.status(Session(own.settings()), None)["trials"]
    assert told["figures"]["champion"]["served"] == 0, "who chose his arm is no part of a trial"


def test_in_shadow_who_asked_for_the_champion_has_it_and_the_trial_goes_on(own: Served) -> None:
    number = challenge(own)
    flow.start(Session(own.settings()), "red", number, 0.0, "")

    async def use(client: AsyncClient, engine: Engine) -> None:
        pinned = await infer(client, own, "red/versions/1")
        assert (pinned.json()["model_version"], output(pinned, "arm")) == ("1", "champion")

    using(own, use)
    (told,) = flow.status(Session(own.settings()), None)["trials"]
    assert told["figures"]["challenger"]["served"] == 1
