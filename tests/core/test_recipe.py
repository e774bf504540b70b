"""Settings of training: every one checked when it is made."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.core.recipe import PRESETS, Recipe, image_size
from clr.errors import UsageError


def test_the_default_recipe_is_valid_and_serialisable() -> None:
    recipe = Recipe()
    assert Recipe(**json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert set(recipe.as_dict()) == {one.name for one in fields(Recipe)}


def test_a_task_overrides_by_name_and_defaults_stand_behind() -> None:
    recipe = Recipe.of({"epochs": 3, "kernel_lr": 1}, image_size=96, epochs=7)
    assert (recipe.epochs, recipe.image_size, recipe.kernel_lr) == (3, 96, 1.0)
    assert isinstance(recipe.kernel_lr, float)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_stands_between_defaults_and_what_the_task_names(preset: str) -> None:
    recipe = Recipe.of({"preset": preset, "flips": False}, image_size=96)
    assert recipe == Recipe(**{"flips": False, "image_size": 96, **PRESETS[preset]})
    assert Recipe.of({"preset": preset, "epochs": 3}).epochs == 3


def test_presets_are_from_the_shortest_training_to_the_longest() -> None:
    epochs = [Recipe.of({"preset": preset}).epochs for preset in PRESETS]
    assert epochs == sorted(set(epochs))
    assert Recipe.of({"preset": "standard"}) == Recipe()
    for wrong in ("slow", ["fast"], 3):
        with pytest.raises(UsageError, match=re.escape(f"preset is {wrong!r}")):
            Recipe.of({"preset": wrong})


@pytest.mark.parametrize(("name", "near"), [("epoch", "epochs"), ("kernel_LR", "kernel_lr"),
                                            ("batchsize", "batch_size")])  # fmt: skip
def test_a_misspelt_setting_suggests_the_right_one(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"recipe\.{name}.*Did you mean.*{near}"):
        Recipe.of({name: 1})


@pytest.mark.parametrize("name", ["zzzzzz", 7, None, ""])
def test_an_unknown_setting_lists_the_known_ones(name: Any) -> None:
    with pytest.raises(UsageError):
        Recipe.of({name: 1})


@pytest.mark.parametrize(
    "values",
    [{"epochs": 0}, {"epochs": 1.5}, {"epochs": "3"}, {"epochs": True}, {"epochs": None},
     {"batch_size": 1}, {"kernel_lr": -1e-9}, {"kernel_lr": float("nan")},
     {"head_lr": float("inf")}, {"label_smoothing": 0.6},
     {"validation_share": 0}, {"variant": "half"}, {"variant": 1}, {"batch_norm": "off"},
     {"rank": 0}, {"flips": 1}, {"flips": "yes"}, {"shift": 0.51}, {"image_size": 31},
     {"image_size": 1025}, {"image_size": -1}, {"seed": -1}, {"seed": 2**31},
     {"kernel_lr": 10**400}],
    ids=lambda values: str(values)[:40],
)  # fmt: skip
def test_a_value_out_of_range_or_of_the_wrong_kind_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"recipe\.{next(iter(values))}"):
        Recipe.of(values)


@given(
    st.dictionaries(
        st.sampled_from([one.name for one in fields(Recipe)]) | st.text(max_size=4),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
        max_size=3,
    )
)
def test_any_task_file_gives_a_recipe_or_a_usage_error(values: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        recipe = Recipe.of(values)
        assert Recipe(**recipe.as_dict()) == recipe


@given(st.floats(1, 100_000))
def test_the_input_size_is_a_multiple_of_the_usual_stride_within_bounds(side: float) -> None:
    size = image_size(side)
    assert size % 32 == 0
    assert 96 <= size <= 160
    assert size >= min(side, 160)


@given(st.floats(1, 1000), st.floats(1, 1000))
def test_larger_images_never_get_a_smaller_input(one: float, two: float) -> None:
    assert image_size(min(one, two)) <= image_size(max(one, two))
