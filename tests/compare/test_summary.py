"""From units to a document: figures, what the gate says of each method, and the page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clr.compare.page import render
from clr.compare.plots import pictures
from clr.compare.summary import summarise
from clr.compare.unit import State, Unit
from clr.compare.words import few_images, headline, lines
from clr.gate.evidence import Limits
from tests.compare.units import step, unit

TASKS = ("a", "b")
SHARED = {"sequential": True, "probe": False, "clr-reduced": False, "fine-tuning": False}
LIMITS = Limits(max_params_pct=2.0)


def document(
    units: list[Unit],
    per_class: tuple[int, ...] = (),
    orders: tuple[tuple[str, ...], ...] = (TASKS,),
) -> dict[str, Any]:
    names = [one for one in SHARED if any(unit.asked.method == one for unit in units)]
    methods = {
        one: {"title": one.title(), "source": "nobody", "shared": SHARED[one]} for one in names
    }
    about = {
        "name": "0123456789", "digest": "sha256:0", "command": "clr compare", "made_at": "2026",
        "tasks": [
            {"name": one, "classes": 4, "size": 32, "train": 60, "test": 400, "used": 60}
            for one in TASKS
        ],
        "seeds": sorted({one.asked.seed for one in units}),
        "orders": [list(one) for one in orders],
        "amounts": [{"images": 0, "per_class": one} for one in per_class or (0,)],
        "budget": {"epochs": 8, "seconds": None},
        "backbone": {"name": "small", "digest": "sha256:1", "parameters": 100_000,
                     "architecture": ""},
        "device": "cpu", "code": "sha256:2", "hardware": ["none"], "failed": [],
        "units": {"planned": len(units), "finished": len(units)},
    }  # fmt: skip
    return summarise(units, methods, about, LIMITS)


def separate(method: str, wrong: dict[str, int], seed: int = 0, **about: Any) -> list[Unit]:
    return [unit(method, step(task, {task: wrong[task]}), seed=seed, **about) for task in TASKS]


def entry(of: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in of["methods"] if one["name"] == name)


FORGOT = unit("sequential", step("a", {"a": 20}), step("b", {"a": 200, "b": 40}), shared=True)
KEPT = separate("clr-reduced", {"a": 20, "b": 40})
PROBE = separate("probe", {"a": 60, "b": 80})
UPPER = separate("fine-tuning", {"a": 16, "b": 20})


def test_a_method_that_shares_weights_is_measured_by_its_matrix():
    found = entry(document([FORGOT, *KEPT, *UPPER]), "sequential")
    assert found["matrix"]["rows"] == [[0.95, None], [0.5, 0.9]]
    assert found["average"]["mean"] == pytest.approx(0.7)
    assert found["forgetting"]["mean"] == pytest.approx(0.45)
    assert found["backward_transfer"]["mean"] == pytest.approx(-0.45)
    assert found["forward_transfer"]["mean"] == pytest.approx(0.9 - 0.95)


def test_without_full_fine_tuning_there_is_nothing_to_measure_forward_transfer_by():
    assert entry(document([FORGOT]), "sequential")["forward_transfer"] is None


def test_separate_tasks_have_no_transfer_at_all():
    found = entry(document(KEPT), "clr-reduced")
    assert [found[name]["mean"] for name in
            ("forgetting", "backward_transfer", "forward_transfer")] == [0, 0, 0]  # fmt: skip


def test_the_gate_refuses_what_forgets_by_a_paired_test():
    gate = entry(document([FORGOT, *PROBE]), "sequential")["gate"]
    assert gate["verdict"] == "fail"
    assert gate["how"] == {"paired-test": 1}
    assert "180 of 400 test images turned from right to wrong" in gate["example"]


def test_the_gate_proves_separate_tasks_identical():
    gate = entry(document([*KEPT, *PROBE]), "clr-reduced")["gate"]
    assert (gate["verdict"], gate["how"], gate["passes"]) == ("pass", {"identical": 1}, 2)


@pytest.mark.parametrize(
    ("after", "check"),
    [
        (State("backbone", {"a": "other"}), "canary images with other numbers"),
        (State("another", {"a": "c-a"}), "backbone"),
    ],
)
def test_a_separate_task_that_was_not_left_alone_is_refused(after: State, check: str):
    touched = [unit("clr-reduced", step("a", {"a": 20}), after=after), KEPT[1]]
    gate = entry(document([*touched, *PROBE]), "clr-reduced")["gate"]
    assert gate["verdict"] == "fail"
    assert check in gate["example"]


def test_a_newcomer_below_the_probe_or_over_budget_is_counted():
    worse = separate("fine-tuning", {"a": 160, "b": 20})
    gate = entry(document([*worse, *PROBE]), "fine-tuning")["gate"]
    assert gate["admission"] == {"improvement": 1}


def test_gains_are_paired_by_seed():
    units = [
        one
        for seed, hard in enumerate((0, 60, 120))
        for one in (
            *separate("probe", {"a": 60 + hard, "b": 80 + hard}, seed),
            *separate("clr-reduced", {"a": 20 + hard, "b": 40 + hard}, seed),
        )
    ]
    gain = entry(document(units), "clr-reduced")["against"]["probe"]
    assert gain["overall"]["mean"] == pytest.approx(0.1)
    assert gain["overall"]["low"] == pytest.approx(0.1)  # the seeds differ, the gain does not
    assert gain["tasks"]["a"]["seeds"]["mean"] == pytest.approx(0.1)
    assert gain["items"]["low"] < 0.1 < gain["items"]["high"]


def test_more_seeds_of_the_same_tasks_are_no_more_tasks():
    def gain(seeds: int) -> dict[str, Any]:
        units = [
            one
            for seed in range(seeds)
            for one in (
                *separate("probe", {"a": 60, "b": 80}, seed),
                *separate("clr-reduced", {"a": 20, "b": 72}, seed),
            )
        ]
        return entry(document(units), "clr-reduced")["against"]["probe"]

    assert gain(5)["overall"] == gain(1)["overall"]
    assert gain(5)["overall"]["low"] < 0 < gain(5)["seeds"]["low"]


def backwards(a: int, b: int, seed: int = 0) -> Unit:
    """The other order of the tasks; `a` and `b` items are wrong in the end."""
    steps = step("b", {"b": 40}), step("a", {"a": a, "b": b})
    return unit("sequential", *steps, seed=seed, shared=True)


BOTH = (TASKS, TASKS[::-1])


def test_gains_over_test_images_are_of_every_order():
    found = document([FORGOT, backwards(20, 120), *PROBE], orders=BOTH)
    gain = entry(found, "sequential")["against"]["probe"]
    assert gain["items"]["mean"] == pytest.approx(gain["overall"]["mean"])


def test_a_matrix_is_of_one_order_also_where_seeds_have_finished_others():
    found = entry(
        document(
            [backwards(20, 120), replace(FORGOT, asked=replace(FORGOT.asked, seed=1))], orders=BOTH
        ),
        "sequential",
    )
    assert found["matrix"]["tasks"] == list(TASKS)
    assert found["matrix"]["rows"] == [[0.95, None], [0.5, 0.9]]


def test_what_is_learned_once_for_all_orders_is_counted_once():
    one, two = (entry(document(KEPT, orders=some), "clr-reduced") for some in (BOTH[:1], BOTH))
    assert two["seconds"] == one["seconds"]


def test_a_sequence_that_is_not_finished_counts_for_nothing():
    assert entry(document(KEPT[:1]), "clr-reduced")["seeds"] == []


def curve(loss: int) -> dict[str, Any]:
    units = [
        one
        for amount in (5, 50)
        for seed in (0, 1, 2)
        for one in (
            *separate("probe", {"a": 60, "b": 60}, seed, per_class=amount),
            *separate(
                "clr-reduced",
                {"a": 60 + (loss + seed if amount == 5 else -20), "b": 40},
                seed,
                per_class=amount,
            ),
        )
    ]
    return document(units, (5, 50))


def test_learning_curves_say_where_a_method_is_below_the_probe():
    found = curve(loss=40)
    (below,) = found["curves"]["below_probe"]
    assert (below["method"], below["per_class"], below["task"]) == ("clr-reduced", 5, "a")
    assert below["high"] < 0
    assert "clr-reduced on a with 5" in few_images(found)


def test_a_loss_within_its_interval_is_none():
    found = curve(loss=-1)  # by -1, 0 and 1 image
    assert found["curves"]["below_probe"] == []
    assert few_images(found).startswith("At 5, 50 images a class, no method is below")


def test_the_page_has_every_method_and_loads_nothing():
    found = document([FORGOT, *KEPT, *PROBE, *UPPER])
    page = render(found, pictures(found))
    for one in found["methods"]:
        assert one["title"] in page
    assert headline(found) in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_names_cannot_write_into_the_page():
    found = document([*KEPT, *PROBE])
    evil = "<img src=x onerror=alert(1)>"
    found["methods"][0]["title"] = found["command"] = evil
    assert evil not in render(found, {})


def test_the_terminal_has_a_line_a_method_and_the_headline():
    found = document([FORGOT, *KEPT, *PROBE])
    text = "\n".join(lines(found))
    for name in ("sequential", "clr-reduced", "probe"):
        assert name in text
    assert "10.0 points more than a linear probe" in text
