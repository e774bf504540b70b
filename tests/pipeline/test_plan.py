"""``clr plan``: from a folder of pictures to what more of them would bring."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clr.data.workspace import init_workspace
from tests.conftest import Answer, Plant

BUSINESS = """
business:
  currency: EUR
  items_per_year: 100000
  error_cost: 1
  current_error_rate: 0.3
  label_cost_per_image: 0.5
  compute_cost_per_hour: 1
  engineer_hours: 8
  hourly_rate: 80
  maintenance_hours_per_month: 1
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, backbone_settings: dict[str, str]) -> Plant:
    """A new workspace; no server runs anywhere."""
    root = tmp_path_factory.mktemp("plan") / "plant"
    init_workspace(root)
    return Plant(root, backbone_settings)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory, new_caps: Callable[..., Path]) -> Path:
    """Eighty pictures to learn from, forty to judge by."""
    folder = new_caps(tmp_path_factory.mktemp("pilots") / "caps", train=40, test=20)
    (folder / "task.yaml").write_text("recipe: {image_size: 32}" + BUSINESS)
    return folder


@pytest.fixture(scope="module")
def planned(plant: Plant, pilot: Path) -> Answer:
    return plant.clr("plan", pilot, "--target", "0.9", "--epochs", "1", "--json")


def test_both_curves_are_measured_and_fitted(planned: Answer) -> None:
    assert planned.code == 0, planned.err
    told = planned.json
    assert (told["task"], told["images"], told["held_out"]) == ("caps", 80, 40)
    assert set(told["curves"]) == {"probe", "clr"}
    for curve in told["curves"].values():
        sizes = {point["images"] for point in curve["points"]}
        assert len(sizes) >= 4
        assert (min(sizes), max(sizes)) == (10, 80)
        assert all(0.3 < point["accuracy"] <= 1 for point in curve["points"])
        assert curve["needed"]["verdict"] in {"reached", "reachable", "far", "unsure"}
    probes, trainings = (len(told["curves"][name]["points"]) for name in ("probe", "clr"))
    assert probes > 2 * trainings


def test_progress_tells_beforehand_how_long_it_takes(planned: Answer) -> None:
    lines = planned.err.splitlines()
    (estimate,) = [n for n, line in enumerate(lines) if "trainings: about 0 min" in line]
    first = next(n for n, line in enumerate(lines) if "probes on" in line)
    assert estimate < first
    assert any("training on 80 images: accuracy" in line for line in lines)


def test_report_and_picture_are_written(planned: Answer, plant: Plant) -> None:
    folder = plant.state / "plans" / "caps"
    assert planned.json["picture"] == str(folder / "plan.png")
    assert (folder / "plan.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((folder / "plan.json").read_text())
    assert written["curves"] == planned.json["curves"]


def test_more_images_are_worth_what_the_assumptions_say(planned: Answer) -> None:
    rows = planned.json["worth"]
    assert [row["images"] for row in rows][:2] == [80, 160]
    for row in rows:
        assert row["accuracy"]["kind"] == "foretold"
        assert row["annual_benefit"]["middle"] == pytest.approx(
            100_000 * (0.3 - (1 - row["accuracy"]["middle"]))
        )
        labelled = row["images"] + planned.json["held_out"]
        assert row["adoption_cost"]["value"] == pytest.approx(labelled * 0.5 + 8 * 80, abs=0.1)
        assert "measured" not in {field["kind"] for field in row.values() if type(field) is dict}
        assert "npv" not in row  # neither horizon nor discount rate is assumed


def test_nothing_is_registered_pinned_or_recorded(planned: Answer, plant: Plant) -> None:
    assert planned.code == 0
    assert not (plant.state / "mlflow.db").exists()
    assert plant.ledger() == []
    assert not any((plant.root / "data").glob("*"))


def test_without_assumptions_and_time_there_are_probes_alone_and_no_money(
    plant: Plant, new_caps: Callable[..., Path], tmp_path: Path
) -> None:
    """One image in five of the folder becomes the held-out part where it brings none."""
    folder = new_caps(tmp_path / "few", train=60, test=0)
    done = plant.clr("plan", folder, "--minutes", "0", "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert set(done.json["curves"]) == {"probe"}
    assert "worth" not in done.json
    assert (done.json["images"], done.json["held_out"]) == (96, 24)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plan.json", "plan.png"}


def test_what_a_person_reads_names_target_and_picture(plant: Plant, pilot: Path) -> None:
    done = plant.clr("plan", pilot, "--target", "0.9", "--minutes", "0")
    assert done.code == 0
    assert "linear probe: " in done.out
    assert "90.0 %" in done.out
    assert "raise --minutes" in done.out
    assert "what more images are worth" in done.out
    assert "plan.png" in done.out


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [(10, 20, "20 training images"), (30, 5, "10 held-out images"), (0, 20, "")],
)
def test_too_few_images_are_refused(
    train: int, test: int, says: str, plant: Plant, new_caps: Callable[..., Path], tmp_path: Path
) -> None:
    done = plant.clr("plan", new_caps(tmp_path / "few", train=train, test=test), "--json")
    assert done.code == 3
    assert says in done.json["message"]
    assert done.json["fix"]


def _judged_by_what_it_learnt(folder: Path) -> list[str]:
    shutil.copytree(folder / "train", folder / "test", dirs_exist_ok=True)
    return [f"{split}/dark/00.png" for split in ("test", "train")]


def _under_two_labels(folder: Path) -> list[str]:
    shutil.copyfile(folder / "train" / "dark" / "00.png", folder / "test" / "light" / "90.png")
    return ["test/light/90.png", "train/dark/00.png"]


def _under_two_labels_of_a_split(folder: Path) -> list[str]:
    shutil.copyfile(folder / "train" / "dark" / "00.png", folder / "train" / "light" / "90.png")
    return ["train/dark/00.png", "train/light/90.png"]


def _a_class_without_judges(folder: Path) -> list[str]:
    for image in (folder / "test" / "light").iterdir():
        image.rename(folder / "test" / "dark" / f"9{image.name}")
    return []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_judged_by_what_it_learnt, "in train and in test"),
        (_under_two_labels, "in several classes"),
        (_under_two_labels_of_a_split, "in several classes"),
        (_a_class_without_judges, "no held-out images of light"),
    ],
)
def test_images_that_cannot_judge_are_refused(
    spoil: Callable[[Path], list[str]],
    says: str,
    plant: Plant,
    new_caps: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = new_caps(tmp_path / "spoilt", train=30, test=20)
    files = spoil(folder)
    done = plant.clr("plan", folder, "--minutes", "0", "--json")
    assert done.code == 3, done.err
    assert says in done.json["message"]
    assert set(files) <= set(done.json.get("files", []))


def test_a_file_that_is_no_picture_is_named(
    plant: Plant, new_caps: Callable[..., Path], tmp_path: Path
) -> None:
    folder = new_caps(tmp_path / "bad", train=30, test=20)
    (folder / "train" / "dark" / "00.png").write_bytes(b"no picture")
    done = plant.clr("plan", folder, "--json")
    assert (done.code, done.json["files"]) == (3, ["train/dark/00.png"])


@pytest.mark.parametrize(
    "arguments", [("no/such/folder",), (".", "--target", "1"), (".", "--epochs", "0")]
)
def test_a_slip_of_the_pen_ends_with_2(arguments: tuple[str, ...], plant: Plant) -> None:
    assert plant.clr("plan", *arguments).code == 2


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    plant: Plant, pilot: Path, tmp_path: Path
) -> None:
    (tmp_path / "report").write_text("a file")
    done = plant.clr("plan", pilot, "--minutes", "0", "--output", tmp_path / "report", "--json")
    assert (done.code, done.json["error"]) == (7, "ServiceUnavailable")
    assert "probes" not in done.err
