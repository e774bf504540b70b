"""Which training images a seed takes: shares of classes, subsets within subsets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flows.compare.tasks import FEWEST, File, Task, proportional

SIZES = st.lists(st.integers(FEWEST, 60), min_size=2, max_size=8)


@given(SIZES, st.integers(1, 500))
def test_classes_get_their_share_of_the_total(sizes: list[int], total: int):
    shares = proportional(sizes, total)
    assert all(FEWEST <= share <= size for share, size in zip(shares, sizes, strict=True))
    floors = FEWEST * len(sizes)
    if total >= sum(sizes):
        assert shares == sizes
    elif min(total * size // sum(sizes) for size in sizes) >= FEWEST:
        assert sum(shares) == total
    else:
        assert sum(shares) <= max(total, floors) + floors


def test_equal_classes_differ_by_one_image_at_most():
    assert sorted(proportional([100, 100, 100], 200)) == [66, 67, 67]


def task(sizes: tuple[int, ...] = (40, 20)) -> Task:
    files = tuple(
        File(f"train/{label}/{number}.png", label, f"sha256:{label}-{number}")
        for label, size in enumerate(sizes)
        for number in range(size)
    )
    return Task("parts", "/nowhere", ("good", "bad"), 32, files, files[:2])


@given(st.integers(0, 99), st.integers(1, 19))
def test_a_smaller_subset_is_part_of_a_larger_one(seed: int, per_class: int):
    few, more = (set(task().chosen(seed, 0, count)) for count in (per_class, per_class + 1))
    assert few < more
    assert Counter(one.label for one in few) == {0: per_class, 1: per_class}


def test_seeds_take_other_images_in_the_proportion_of_the_classes():
    first, second = (task().chosen(seed, 30, 0) for seed in (0, 1))
    assert first != second
    assert first == task().chosen(0, 30, 0)
    assert Counter(one.label for one in first) == {0: 20, 1: 10}


@given(st.integers(0, 9))
def test_names_of_files_decide_nothing_but_their_order(seed: int):
    def called(file: File) -> File:
        return replace(file, path=f"train/{file.sha256[::-1]}.png")

    known = task()
    renamed = Task("parts", "/nowhere", known.labels, 32, tuple(map(called, known.train)), ())
    first, second = ({file.sha256 for file in one.chosen(seed, 30, 0)} for one in (known, renamed))
    assert first == second


def test_of_equal_images_the_names_decide():
    equal = tuple(replace(file, sha256="sha256:same") for file in task().train)
    one, other = (Task("parts", "/nowhere", ("good", "bad"), 32, some, ())
                  for some in (equal, equal[::-1]))  # fmt: skip
    assert one.chosen(0, 30, 0) == other.chosen(0, 30, 0)
