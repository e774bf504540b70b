"""Drift: how often it is told where there is none, and whether it is told where there is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from clr.errors import UsageError
from clr.gate.drift import FALSE_ALARMS, compare
from flows.drift import RECENT, check


def sample(random, n, shift=0.0):
    """Skewed and correlated, as features behind a ReLU are."""
    base = random.gamma(2.0, size=(n, 16)) @ np.random.default_rng(9).normal(size=(16, 16))
    return (base + shift).astype(np.float32)


def test_false_alarms_are_as_rare_as_stated():
    """400 looks at one task at the rate 5 %: more than 32 alarms have a chance of 0.5 %."""
    random = np.random.default_rng(1)
    found = [
        compare(sample(random, 60), sample(random, 30), looks=1, seed=seed, rate=0.05).alarm
        for seed in range(400)
    ]
    assert 5 <= sum(found) <= 32


def test_many_tasks_share_the_rate():
    random = np.random.default_rng(2)
    seen = compare(sample(random, 60), sample(random, 30), looks=50)
    assert seen.level == FALSE_ALARMS / 50
    differs = compare(sample(random, 60), sample(random, 30, 3.0), looks=50)
    assert differs.alarm, "with so few permutations that no p can reach it, nothing is ever told"


def test_the_same_question_has_the_same_answer():
    random = np.random.default_rng(3)
    one, other = sample(random, 700), sample(random, 500, 0.1)
    assert compare(one, other, looks=3, seed=4) == compare(one, other, looks=3, seed=4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(scale):
    random = np.random.default_rng(5)
    one, other = sample(random, 40), sample(random, 40)
    assert compare(one * scale, other * scale, looks=1).p == compare(one, other, looks=1).p


def test_equal_rows_are_no_drift():
    rows = np.ones((30, 4))
    assert compare(rows, rows, looks=1).p == 1.0


def test_a_handful_of_images_proves_nothing():
    with pytest.raises(UsageError, match="20 rows"):
        compare(np.ones((50, 4)), np.ones((19, 4)), looks=1)


def recent(working, task, change):
    """Put changed copies of the test images where drift is looked for."""
    place = working.root / RECENT / task
    place.mkdir(parents=True)
    for path in (working.root / "data" / task / "test").rglob("*.png"):
        with Image.open(path) as image:
            change(image.convert("RGB")).save(place / f"{path.parent.name}-{path.name}")
    return place


def test_dark_and_faded_images_are_found_and_like_ones_are_not(working):
    names = sorted(path.name for path in (working.root / "data").iterdir() if path.is_dir())
    like, dark, faded = names
    recent(working, like, lambda image: image)
    recent(working, dark, lambda image: ImageEnhance.Brightness(image).enhance(0.25))
    recent(working, faded, lambda image: ImageEnhance.Color(image).enhance(0.0))
    seen = check(working.session())
    assert {one["task"] for one in seen["found"]} == {dark, faded}
    assert all(one["kind"] == "images" for one in seen["found"])


def test_a_champion_that_answers_otherwise_is_found(working):
    session = working.session()
    weight = next(iter(session.backbone.module.state_dict().values()))
    weight[(0,) * weight.ndim] += 0.01
    assert [one["kind"] for one in check(session)["found"]] == ["answers"]
