"""What is kept of a task's images for the router: statistics of most, features of a few."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from clr.core.described import CALIBRATION, FEWEST, ONE_IN, describe, held_out, statistics
from clr.errors import IntegrityBroken


def features(count: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    return generator.normal(0, 0.1, (count, 8)).astype(np.float32), np.arange(count) % classes


def test_held_out_images_are_in_no_statistics() -> None:
    values, labels = features(200)
    described, held = describe(values, labels, 3), held_out(labels)
    assert held.sum() == len(described.calibration) == 200 // ONE_IN
    assert described.counts.sum() == 200 - held.sum()
    assert np.array_equal(described.calibration, values[held].astype(np.float16))
    assert np.array_equal(described.means, statistics(values[~held], labels[~held], 3).means)


def test_a_large_task_keeps_no_more_than_the_limit() -> None:
    values, labels = features(5000)
    assert len(describe(values, labels, 3).calibration) == CALIBRATION


def test_a_small_task_is_described_by_all_its_images_as_before() -> None:
    values, labels = features(ONE_IN * FEWEST - 1)
    described = describe(values, labels, 3)
    assert described.calibration is None
    assert described.digest == statistics(values, labels, 3).digest


def test_the_last_image_of_a_class_is_never_held_out() -> None:
    labels = np.array([0] * 300 + [1, 2], dtype=np.int64)
    assert not held_out(labels)[300:].any()


def test_the_digest_without_held_out_images_is_that_of_earlier_versions() -> None:
    """Evidence that is in a registry already keeps its router's digest."""
    values, labels = features(60)
    one = statistics(values, labels, 3)
    digest = hashlib.sha256()
    for array in (one.counts, one.means, one.scatter):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    assert one.digest == "sha256:" + digest.hexdigest()


def test_the_digest_covers_the_held_out_images() -> None:
    values, labels = features(200)
    one, other = describe(values, labels, 3), statistics(values, labels, 3)
    calibration = one.calibration.copy()
    calibration[0, 0] += 1
    changed = type(one)(one.counts, one.means, one.scatter, calibration)
    assert len({one.digest, changed.digest, other.digest}) == 3


@pytest.mark.parametrize(
    "calibration",
    [
        np.zeros((20, 7), np.float16),
        np.zeros((0, 8), np.float16),
        np.zeros(8, np.float16),
        np.full((20, 8), np.nan, np.float16),
        np.full((20, 8), np.inf, np.float16),
    ],
)
def test_held_out_images_of_a_wrong_shape_or_value_are_refused(calibration: np.ndarray) -> None:
    values, labels = features(60)
    one = statistics(values, labels, 3)
    with pytest.raises(IntegrityBroken):
        type(one)(one.counts, one.means, one.scatter, calibration)
