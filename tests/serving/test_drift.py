"""Drift of what is served: other images are found, the same are not, and all of it is told."""

from __future__ import annotations

import asyncio
import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from PIL import Image, ImageFilter

from clr.core.described import statistics
from clr.core.routing import Router
from clr.errors import ServiceUnavailable
from clr.gate.exchangeability import FALSE_ALARMS
from clr.serving.answering import Found
from clr.serving.drift import Drift, drift_path, read_drift
from clr.serving.engine import Engine
from clr.serving.observing import Observed
from clr.serving.values import Answer, Item
from clr.serving.watching import Watcher
from tests.serving.plants import Served
from tests.waiting import until

# --- the score


def test_a_distance_is_mahalanobis_from_the_nearest_class():
    random = np.random.default_rng(0)
    spread = random.normal(size=(6, 6))
    rows = (random.normal(size=(4000, 6)) @ spread).astype(np.float32)
    labels = random.integers(0, 2, 4000)
    rows[labels == 1] += 5
    distances = Router({"t": statistics(rows, labels, 2)}).distances
    assert distances(rows[:1000]).mean() == pytest.approx(6, rel=0.25)
    assert distances(rows[:100] + 40).min() > distances(rows[:1000]).max()


# --- a stream of images, by their features


class Evidence:
    """What the watch reads of a task's evidence."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        labels = random.integers(0, 2, 200)
        means = random.normal(size=(2, 8))
        train = means[labels] + random.normal(size=(200, 8))
        self.described = statistics(train.astype(np.float32), labels, 2)
        self.means, self.random = means, random
        self.features = self.images(60)
        self.confidence = random.beta(5, 1, 60).astype(np.float32)

    def images(self, n: int) -> Any:
        rows = self.means[self.random.integers(0, 2, n)] + self.random.normal(size=(n, 8))
        return rows.astype(np.float32)


def answer(probability: float, adapter: str = "sha256:a", arm: Any = "champion") -> Answer:
    return Answer("f", "r", 1, "", "task", "named", "a", probability, {}, adapter, 1, arm)


def watched(tmp_path: Any, evidence: Evidence | None, **options: Any) -> Drift:
    return Drift(tmp_path, lambda task, adapter: evidence, pause=0.0, **options)


def feed(drift: Drift, features: Any, probabilities: Any) -> None:
    """Show images one by one, none left out."""
    for row, probability in zip(features, probabilities, strict=True):
        while drift._queue.full():
            time.sleep(0.001)
        drift.observe(answer(float(probability)), row)


def test_no_alarm_while_images_stay_as_they_were_beyond_the_stated_rate(tmp_path):
    alarms = 0
    for seed in range(20):
        evidence = Evidence(seed)
        drift = watched(tmp_path, evidence, seed=seed)
        feed(drift, evidence.images(300), evidence.random.beta(5, 1, 300))
        drift.close()
        told = drift.told()["task"]
        assert told["features"]["values"] == told["confidence"]["values"] == 300
        alarms += any(told[kind]["alarm"] for kind in ("features", "confidence"))
    assert alarms <= 1, f"20 tasks at {FALSE_ALARMS:.0%} each"


@pytest.mark.parametrize("kind", ["features", "confidence"])
def test_a_shift_is_found_and_kept_for_the_flow_that_reads_it(tmp_path, kind):
    evidence = Evidence(7)
    drift = watched(tmp_path, evidence)
    feed(drift, evidence.images(300), evidence.random.beta(5, 1, 300))
    shift, low = (3.0, (5, 1)) if kind == "features" else (0.0, (1, 3))
    feed(drift, evidence.images(150) + np.float32(shift), evidence.random.beta(*low, 150))
    drift.close()
    told = read_drift(tmp_path)["task"]
    other = {"features": "confidence", "confidence": "features"}[kind]
    assert told[kind]["alarm"] == pytest.approx(time.time(), abs=60)
    assert told[kind]["capital"] > told[kind]["limit"] == 2 / FALSE_ALARMS
    assert told[other]["alarm"] is None


def test_confidence_that_was_lower_from_the_first_image_on_is_found(tmp_path):
    evidence = Evidence(7)
    drift = watched(tmp_path, evidence)
    feed(drift, evidence.images(150), evidence.random.beta(1, 3, 150))
    drift.close()
    assert drift.told()["task"]["confidence"]["alarm"]


def test_confidence_is_compared_with_its_own_past_where_evidence_has_none(tmp_path):
    evidence = Evidence(7)
    evidence.confidence = None
    for later, alarm in ((0, False), (150, True)):
        drift = watched(tmp_path, evidence)
        feed(drift, evidence.images(150), evidence.random.beta(1, 3, 150))
        feed(drift, evidence.images(later), evidence.random.beta(5, 1, later))
        drift.close()
        assert (drift.told()["task"]["confidence"]["alarm"] is not None) == alarm


def test_another_adapter_begins_anew_and_a_challenger_is_not_watched(tmp_path):
    evidence = Evidence(1)
    drift = watched(tmp_path, evidence)
    drift.observe(answer(0.5), evidence.features[0])
    drift.observe(answer(0.5, arm="challenger"), evidence.features[0])
    drift.observe(answer(0.5, adapter="sha256:b"), evidence.features[0])
    drift.close()
    told = drift.told()["task"]
    assert (told["adapter"], told["confidence"]["values"]) == ("sha256:b", 1)


def test_an_image_that_a_challenger_answered_is_not_looked_at(tmp_path):
    """Its adapter does not serve: watching it would forget what is known of the champion's."""
    seen = SimpleNamespace(projected=Evidence(1).features[0])

    async def run() -> dict[str, Any]:
        desk = SimpleNamespace(look=AsyncMock(return_value=seen))
        settings = SimpleNamespace(state=tmp_path, seed=0)
        watcher = Watcher(settings, desk, lambda: None, lambda ref: None)
        watcher.drift._pause = 0.0
        for given in (answer(0.5), answer(0.5, "sha256:b", "challenger")):
            watcher.note(SimpleNamespace(router=True), Item("f", b""), Found(given))
            if watcher._looking is not None:
                await watcher._looking
        await watcher.close()
        return watcher.drift.told()["task"]

    told = asyncio.run(run())
    assert (told["adapter"], told["confidence"]["values"]) == ("sha256:a", 1)


def alarmed(tmp_path: Any, evidence: Evidence) -> float:
    """Leave an alarm about the confidence of a task, as a server that ended does."""
    drift = watched(tmp_path, evidence)
    feed(drift, evidence.images(150), evidence.random.beta(1, 3, 150))
    drift.close()
    return float(read_drift(tmp_path)["task"]["confidence"]["alarm"])


def test_an_alarm_outlives_a_restart_whether_images_come_or_not(tmp_path):
    evidence = Evidence(7)
    since = alarmed(tmp_path, evidence)
    silent = watched(tmp_path, evidence)
    assert silent.told()["task"]["confidence"]["alarm"] == since
    silent.close()
    again = watched(tmp_path, evidence)
    feed(again, evidence.images(5), evidence.random.beta(5, 1, 5))
    again.close()
    told = read_drift(tmp_path)["task"]["confidence"]
    assert (told["alarm"], told["values"]) == (since, 5)


def test_an_alarm_ends_with_its_adapter_also_across_a_restart(tmp_path):
    evidence = Evidence(7)
    alarmed(tmp_path, evidence)
    drift = watched(tmp_path, evidence)
    drift.observe(answer(0.9, adapter="sha256:b"), None)
    drift.observe(answer(0.9), None)
    drift.close()
    assert read_drift(tmp_path)["task"]["confidence"]["alarm"] is None


def test_an_alarm_about_what_serves_no_more_is_not_kept_across_a_restart(tmp_path):
    alarmed(tmp_path, Evidence(7))
    asked = []

    def serves(task: str, adapter: str) -> bool:
        asked.append((task, adapter))
        return False

    watched(tmp_path, None, serves=serves).close()
    assert read_drift(tmp_path) == {}
    assert set(asked) == {("task", "sha256:a")}


def test_without_evidence_confidence_is_watched_alone(tmp_path):
    drift = watched(tmp_path, None)
    drift.observe(answer(0.5), Evidence(1).features[0])
    drift.close()
    told = drift.told()["task"]
    assert told["confidence"]["values"] == 1
    assert "features" not in told


def test_images_of_every_class_are_compared_with_where_there_are_more_than_enough(tmp_path):
    """Evidence keeps test images by class; here one class lies far less close than the other."""
    evidence = Evidence(3)

    def seen(label: int, n: int) -> Any:
        spread = 1 + 2 * label
        rows = evidence.means[label] + spread * evidence.random.normal(size=(n, 8))
        return rows.astype(np.float32)

    evidence.features = np.concatenate([seen(0, 2000), seen(1, 2000)])
    evidence.confidence = np.concatenate([np.full(2000, 0.6), np.full(2000, 0.9)])
    drift = watched(tmp_path, evidence)
    labels = evidence.random.integers(0, 2, 400)
    rows = np.concatenate([seen(label, 1) for label in labels])
    feed(drift, rows, np.where(labels == 1, 0.9, 0.6))
    drift.close()
    told = drift.told()["task"]
    assert told["features"]["alarm"] is told["confidence"]["alarm"] is None


def test_evidence_that_cannot_be_had_for_a_moment_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("clr.serving.drift._AGAIN", 0.0)
    evidence, asked = Evidence(4), []

    def get(task: str, adapter: str) -> Evidence:
        asked.append(task)
        if len(asked) == 1:
            raise ServiceUnavailable("The registry does not answer.", fix="Start it.")
        return evidence

    drift = Drift(tmp_path, get, pause=0.0)  # type: ignore[arg-type]
    feed(drift, evidence.images(30), [0.9] * 30)
    drift.close()
    assert drift.told()["task"]["features"]["values"] == 29


def test_what_was_kept_badly_is_nothing(tmp_path):
    assert read_drift(tmp_path) == {}
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "drift.json").write_text("{")
    assert read_drift(tmp_path) == {}


# --- a served workspace


def darkened(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value // 4)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(6))


def mirrored(image: Image.Image) -> Image.Image:
    """Another camera: channels exchanged."""
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, red, green))


def shown(served: Served, change: Callable[[Image.Image], Image.Image]) -> list[bytes]:
    """Test images of red that were changed, each with a little noise of its own."""
    random, made = np.random.default_rng(0), []
    for path in served.images("red") * 8:
        image = change(Image.open(path).convert("RGB"))
        pixels = np.asarray(image) + random.normal(0, 1, (*image.size, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "png")
        made.append(file.getvalue())
    return made


def observed(served: Served, images: list[bytes], task: str | None) -> Any:
    """Send images; return what is known about red, and the metrics."""

    async def run() -> Any:
        engine = Engine(served.settings())
        await engine.start()
        engine._watcher.drift._pause = 0.0
        try:
            for data in images:
                await engine.predict([Item("x", data, task)])
                if engine._watcher._looking:  # on a busy machine few would be looked at
                    await engine._watcher._looking
            await asyncio.sleep(0.2)
            while engine._watcher.drift._queue.qsize():
                await asyncio.sleep(0.05)
            return engine.drift().get("red", {}), Observed(engine).text().decode()
        finally:
            await engine.close()

    return asyncio.run(run())


@pytest.mark.parametrize("change", [darkened, blurred, mirrored])
def test_other_images_are_found_by_their_features(own, change):
    told, metrics = observed(own, shown(own, change), "red")
    assert told["features"]["values"] > 5
    assert told["features"]["alarm"] is not None
    assert 'clr_drift_alarm{kind="features",task="red"} 1.0' in metrics


def test_images_of_the_test_raise_no_alarm(own):
    drawn = np.random.default_rng(0).choice(own.images("red"), 40)
    told, metrics = observed(own, [path.read_bytes() for path in drawn], None)
    assert told["features"]["values"] == told["confidence"]["values"] == 40
    assert told["features"]["alarm"] is None
    assert told["confidence"]["alarm"] is None
    assert re.search(r'clr_drift_capital\{kind="features",task="red"\} \d', metrics)


def test_the_flow_finds_what_the_server_kept(own):
    from flows.drift import _served, _wanted
    from flows.session import Session

    told, _ = observed(own, shown(own, darkened), "red")
    found = _served(Session(own.settings()), own.second)
    assert ("red", "features") in {(one["task"], one["kind"]) for one in found}
    assert "incoming/red/" in _wanted(found[0])
    assert told["features"]["alarm"]
    older = {"red": own.second.tasks["green"]}
    assert _served(Session(own.settings()), replace(own.second, tasks=older)) == []


def test_the_flow_finds_an_alarm_from_before_a_restart_if_its_adapter_serves(own):
    from flows.drift import _served
    from flows.session import Session

    told, _ = observed(own, shown(own, darkened), "red")
    again, metrics = observed(own, [], "red")
    assert again["features"]["alarm"] == told["features"]["alarm"]
    assert 'clr_drift_alarm{kind="features",task="red"} 1.0' in metrics
    assert _served(Session(own.settings()), own.second)
    kept = drift_path(own.state)
    kept.write_bytes(kept.read_bytes().replace(told["adapter"].encode(), b"sha256:older"))
    assert observed(own, [], "red")[0] == {}, "another adapter serves"


def test_the_flow_tells_prefects_server_what_is_wanted(own, prefect_api, monkeypatch):
    from flows.drift import EVENT, drift_check
    from flows.prefect_api import send

    observed(own, shown(own, darkened), "red")
    for name, value in {**own.environment, "PREFECT_API_URL": prefect_api}.items():
        monkeypatch.setenv(name, value)
    state = drift_check(str(own.root), return_state=True)
    assert state.name == "Drift"
    assert "the features of its images are not as before" in state.message
    wanted = {"filter": {"event": {"name": [EVENT]}, "resource": {"id": ["clr.task.red"]}}}
    events = until(lambda: send(prefect_api, "", "/events/filter", wanted)["events"])
    told = {one["payload"]["kind"]: one["payload"] for one in events}
    assert told["features"]["task"] == "red"
    assert "incoming/red/" in told["features"]["wanted"]
