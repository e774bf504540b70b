"""The model card: verdict first, every figure with its interval, never over the limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from clr.gate.evidence import EarlierTask, Newcomer, Offer, Snapshot
from clr.gate.verdict import decide
from clr.registry.card import LIMIT, ROWS, model_card
from clr.roi import business_case

SHA = "sha256:" + "a" * 64
GOLDEN = Path(__file__).parent / "golden" / "card.md"


def report(earlier=2, accuracy=0.9, params=1.74):
    """A real gate report over so many earlier tasks that nothing changed."""
    import numpy as np

    labels = np.arange(400) % 2
    predicted = np.where(np.arange(400) < 400 * accuracy, labels, 1 - labels)
    probe = np.where(np.arange(400) < 280, labels, 1 - labels)
    same = Snapshot(SHA, SHA, SHA, "torch", "canary")
    tasks = tuple(
        EarlierTask(f"task-{at:03}", same, same, SHA, SHA, labels, labels) for at in range(earlier)
    )
    digests = dict.fromkeys(("data", "code", "environment", "backbone", "adapter", "recipe"), SHA)
    digests["data"] = "md5:" + "d" * 32 + ".dir"
    newcomer = Newcomer(
        "solder", labels, predicted, probe, 0, None, None, params, 200_000, 12.0, 8.0, digests
    )
    return decide(Offer(newcomer, tasks, frozenset(), {})).to_dict()


def case(**assumptions):
    measured = {"accuracy": 0.9, "accuracy_ci": (0.87, 0.93), "baseline_accuracy": 0.7}
    return business_case({**measured, "images_labelled": 600, "training_seconds": 90}, assumptions)


ASSUMED = {
    "currency": "EUR", "items_per_year": 100_000, "error_cost": 2.0, "engineer_hours": 40,
    "hourly_rate": 90, "label_cost_per_image": 0.1, "compute_cost_per_hour": 1.0,
    "maintenance_hours_per_month": 2, "horizon_years": 3, "discount_rate": 0.08,
}  # fmt: skip


def first(card):
    return card.splitlines()[0]


def plain(card):
    """The card without the spaces that hold the columns of its tables apart."""
    return card.replace("&emsp;", "").replace("|  |", "| |")


def facts(**others):
    return {
        "task": "solder",
        "verdict": "passed",
        "title": "Solder joints",
        "accuracy": 0.9,
        "accuracy_ci": [0.867, 0.925],
        "baseline": {"majority": 0.5, "linear_probe": 0.7},
        "adapter": {"digest": SHA, "bytes": 200_000, "params": 12_345, "params_pct": 1.74},
        "data": {"digest": "md5:x", "train": 600, "test": 400, "classes": ["good", "bad"]},
        "roi": case(**ASSUMED),
        "report": report(),
        "backbone": {"name": "tf_efficientnet_lite0", "source": "PyPI", "licence": "Apache-2.0"},
        "digests": {"adapter": SHA, "data": "md5:x"},
        "links": {"gate report": "#/experiments/1/runs/2/artifacts/gate/gate.html"},
        **others,
    }


def test_the_card_keeps_its_form():
    """To accept a wanted change of the form: delete the golden file and run this test once."""
    card = model_card(facts())
    if not GOLDEN.exists():
        GOLDEN.write_text(card, encoding="utf-8")
        pytest.fail(f"{GOLDEN.name} was missing and has been written: read it, then run again")
    assert card == GOLDEN.read_text(encoding="utf-8")


def test_the_verdict_is_the_first_line():
    assert first(model_card(facts())) == "## ✓ Passed the retention gate"
    refused = model_card(facts(verdict="refused", report=report(params=9.0)))
    assert first(refused) == "## ✕ Refused by the retention gate"
    assert "`parameters:solder`" in refused
    open_ = model_card(facts(verdict="inconclusive"))
    assert first(open_) == "## ? Not decided: the retention gate is inconclusive"


def test_figures_stand_beside_what_was_before_or_is_allowed():
    card = plain(model_card(facts()))
    accuracy = "| Accuracy on 400 test images | **90.0 %** (95 %: 86.7 % to 92.5 %) |"
    assert f"{accuracy} linear probe 70.0 %, majority class 50.0 % | ✓ |" in card
    assert "| Earlier tasks | **2 of 2** keep what they had | all must | ✓ |" in card
    assert "| Added parameters | 1.74 % of the backbone | 2 % | ✓ |" in card
    assert "| Size of its file | 0.200 MB | 4 MB | ✓ |" in card
    assert "| Time for a prediction | 1.50 times the bare backbone's | 2 times | ✓ |" in card


def test_what_went_over_its_budget_is_marked_and_what_to_do_is_said():
    card = plain(model_card(facts(verdict="refused", report=report(params=9.0))))
    assert "| Added parameters | 9.00 % of the backbone | 2 % | ✕ failed |" in card
    assert "cannot be promoted" in card
    assert "- Choose a smaller variant" in card
    assert "How to decide" not in card


def test_it_tells_how_to_decide_in_two_steps_and_what_not_to_press():
    card = model_card(facts())
    steps = [line for line in card.splitlines() if line[:2] in ("1.", "2.", "3.")]
    assert len(steps) == 2
    assert "**Tags**" in steps[0]
    assert "`review`" in steps[0]
    assert "`approved`" in steps[1]
    assert "**Save**" in steps[1]
    assert "`review.reason`" in card
    assert "Leave **Promote model** alone" in card


def test_tasks_that_look_alike_are_named_with_the_confusion_and_what_to_do():
    told = (
        "7.5 % of the test images of task-000 go to solar-cells, 2.0 % of those of it to task-000"
    )
    alike = {"overlaps": [{"task": "task-000", "sentence": told}]}
    card = model_card(facts(report=report() | alike)).replace("\\", "")
    assert "### Looks like other tasks" in card
    assert told in card
    assert "name the task in requests" in card
    assert "Looks like" not in model_card(facts())


def test_every_earlier_task_is_in_the_table():
    card = plain(model_card(facts(report=report(ROWS))))
    assert "**20 of 20** keep what they had" in card
    for at in range(ROWS):
        assert f"| task\\-{at:03} | 100.0 % | 100.0 % | identical | ✓ |" in card
    assert "in the gate report." not in card


def test_of_three_hundred_earlier_tasks_those_that_lost_come_first_and_the_rest_is_counted():
    found = report(300)
    for check in found["checks"]:
        if check["name"] == "retention" and check["task"] in ("task-123", "task-299"):
            check.update(verdict="fail", how="paired-test")
            check["facts"]["after"] = 0.71
    card = plain(model_card(facts(verdict="refused", report=found)))
    rows = [line for line in card.splitlines() if line.startswith("| task\\-")]
    assert rows[:2] == [
        "| task\\-123 | 100.0 % | 71.0 % | paired\\-test | ✕ failed |",
        "| task\\-299 | 100.0 % | 71.0 % | paired\\-test | ✕ failed |",
    ]
    assert len(rows) >= ROWS
    assert f"{300 - len(rows)} more keep what they had; they are in the gate report." in card
    assert "**298 of 300** keep what they had" in card


@pytest.mark.parametrize("earlier", [0, 1, 21, 300])
def test_the_card_never_passes_the_limit(earlier):
    long = {
        "title": "t" * 500,
        "owner": "o" * 500,
        "links": {f"l{n}": "https://x" for n in range(9)},
        "data": {"train": 10**6, "test": 10**6, "classes": ["c" * 100] * 1000},
    }
    for others in ({}, long):
        card = model_card(facts(report=report(earlier), **others))
        assert len(card) <= LIMIT
        assert 'clr review solder VERSION approve --reason "…"' in card
        assert ("in the gate report." in card) == (earlier == 300)


def test_what_was_derived_says_from_what_and_nothing_is_derived_from_nothing():
    card = plain(model_card(facts()))
    assert "derived from assumptions" in card
    assert "| Return on investment (%) |" in card
    assert "| under assumptions, below | |" in card
    without = model_card(facts(roi=case()))
    assert "nothing is derived" in without
    assert "Pays back" not in without


def test_an_investment_that_may_never_pay_back_says_so():
    sure, dear = ({**ASSUMED, "error_cost": cost} for cost in (2.0, 0.0))
    assert "never" not in model_card(facts(roi=case(**sure)))
    assert "it does not; " in model_card(facts(roi=case(**dear)))
    wide = case(**ASSUMED)
    wide["payback_months"]["low"] = None
    assert "months (low end: never); " in model_card(facts(roi=wide))


def test_where_it_came_from_is_named_with_digests():
    card = model_card(facts())
    data = "- data: 600 training and 400 test images, 2 classes: good, bad; `md5:x`"
    assert data in card.splitlines()
    assert f"; `{SHA}`" in card


def test_words_from_outside_stay_words():
    hostile = "<img src=x onerror=alert(1)> | [a](javascript:x) `b`\n# c"
    classes = {"train": 1, "test": 1, "classes": [hostile, "<b>x</b>"]}
    card = model_card(facts(title=hostile, data=classes, links={hostile: "javascript:alert(1)"}))
    assert "<img" not in card
    assert "<b" not in card
    assert "\n# c" not in card
    assert "](javascript" not in card


def test_of_facts_that_are_absent_the_card_says_nothing():
    card = model_card({"task": "solder", "verdict": "inconclusive"})
    assert "inconclusive" in card
    assert "None" not in card
    assert "Accuracy" not in card
