"""Two tasks with the same kind of image: told at onboarding, and again with each answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clr.errors import GateRefused
from clr.registry.releases import current_release

MANY = {"train": 50, "test": 20}


@pytest.fixture(scope="module")
def first(new_plant, new_caps, tmp_path_factory):
    """A plant with one task, and the folder of a second whose images are drawn alike."""
    place = tmp_path_factory.mktemp("alike")
    plant = new_plant(place / "plant")
    task = new_caps(place / "left-line", 1, seed=1, **MANY)
    assert plant.clr("onboard", task, "--json").code == 0
    assert plant.clr("review", "left-line", 1, "approve").code == 0
    return plant, new_caps(place / "right-line", 1, seed=2, **MANY)


def test_a_task_that_looks_like_another_is_reported_refused_or_served_as_doubtful(first):
    plant, alike = first
    refused = plant.clr("onboard", alike)
    assert refused.code == GateRefused.exit_code
    assert "overlap" in refused.out
    assert "of the test images of left-line go to right-line" in refused.out
    assert "name the task in requests" in refused.out

    allowed = plant.clr("onboard", alike, "--json", CLR_GATE_ROUTING_MARGIN="0.95")
    assert allowed.code == 0, allowed
    (told,) = allowed.json["gate"]["overlaps"]
    assert told["task"] == "left-line"
    assert max(told["to_newcomer"], told["from_newcomer"]) > 0.2
    card = Path(allowed.json["reports"]["card"]).read_text(encoding="utf-8").replace("\\", "")
    assert "### Looks like other tasks" in card
    assert told["sentence"] in card
    run = plant.session().registry.client.get_run(allowed.json["mlflow"]["run_id"])
    assert run.data.metrics["routing.overlap"] > 0.2

    approved = plant.clr(
        "review", "right-line", allowed.json["version"], "approve", CLR_GATE_ROUTING_MARGIN="0.95"
    )
    assert approved.code == 0, approved
    assert len(current_release(plant.session().registry).tasks) == 2
    images = sorted((alike / "test").rglob("*.png"))[:12]
    answers = plant.clr("predict", *images, "--json").json["predictions"]
    doubtful = [one for one in answers if one["doubtful"]]
    assert len(doubtful) >= 6
    assert all(
        "left-line" in one["doubtful"] or "right-line" in one["doubtful"] for one in doubtful
    )
    assert "doubtful" in plant.clr("predict", images[answers.index(doubtful[0])]).out
    named = plant.clr("predict", "--task", "right-line", *images, "--json").json["predictions"]
    assert not any(one["doubtful"] or one["unknown"] for one in named)


def test_an_image_like_those_of_no_task_is_unknown(first, tmp_path):
    """The plant has two tasks by now; noise is neither."""
    import numpy as np
    from PIL import Image

    plant, _ = first
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (answer,) = plant.clr("predict", tmp_path / "noise.png", "--json").json["predictions"]
    assert answer["unknown"], json.dumps(answer)
    assert "unknown" in plant.clr("predict", tmp_path / "noise.png").out
