"""The model card: verdict first, every figure with its interval, never over the limit."""

from __future__ import annotations

import pytest

from clr.gate.evidence import EarlierTask, Newcomer, Offer, Snapshot
from clr.gate.verdict import decide
from clr.registry.card import LIMIT, ROWS, model_card
from clr.roi import business_case

SHA = "sha256:" + "a" * 64


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


def test_the_verdict_comes_first():
    assert model_card(facts()).startswith("**Passed the retention gate.**")
    refused = model_card(facts(verdict="refused", report=report(params=9.0)))
    assert refused.startswith("**Refused by the retention gate.**")
    assert "`parameters:solder`" in refused
    assert "cannot be promoted" in refused


def test_accuracy_stands_beside_what_was_before_and_with_its_interval():
    card = model_card(facts())
    assert "| **this adapter** | **90.0 %** (95 %: 86.7 % to 92.5 %) |" in card
    assert "| linear probe, before | 70.0 % |" in card
    assert "| majority class | 50.0 % |" in card


def test_every_earlier_task_is_in_the_table_up_to_twenty():
    card = model_card(facts(report=report(ROWS)))
    assert "20 of 20 keep what they had" in card
    for at in range(ROWS):
        assert f"| task\\-{at:03} | 100.0 % | 100.0 % | identical | pass |" in card
    assert "more are in" not in card


@pytest.mark.parametrize("earlier", [0, 1, 21, 300])
def test_the_card_never_passes_the_limit(earlier):
    long = {
        "title": "t" * 500,
        "owner": "o" * 500,
        "links": {f"l{n}": "https://x" for n in range(9)},
    }
    for others in ({}, long):
        card = model_card(facts(report=report(earlier), **others))
        assert len(card) <= LIMIT
        assert 'clr review solder VERSION approve --reason "…"' in card
        if earlier > ROWS:
            assert f"{earlier - ROWS} more are in gate.json" in card


def test_what_was_derived_says_from_what_and_nothing_is_derived_from_nothing():
    card = model_card(facts())
    assert "derived from assumptions" in card
    assert "| Return on investment (%) |" in card
    assert "nothing is derived" in model_card(facts(roi=case()))


def test_words_from_outside_stay_words():
    hostile = "<img src=x onerror=alert(1)> | [a](javascript:x) `b`\n# c"
    card = model_card(facts(title=hostile, links={hostile: "javascript:alert(1)"}))
    assert "<img" not in card
    assert "\n# c" not in card
    assert "](javascript" not in card


def test_of_facts_that_are_absent_the_card_says_nothing():
    card = model_card({"task": "solder", "verdict": "inconclusive"})
    assert "inconclusive" in card
    assert "None" not in card
    assert "Accuracy" not in card
