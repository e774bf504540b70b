"""``clr pilot``: three stages on a real workspace, and nothing in it changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clr.errors import DataRefused, UsageError
from flows.pilot_stages import site_files
from tests.conftest import Answer, Plant, Working, copy_plant

BUSINESS = """
business:
  currency: EUR
  items_per_year: 1000000
  error_cost: 2
  label_cost_per_image: 0.05
  compute_cost_per_hour: 0.4
  engineer_hours: 8
  hourly_rate: 80
  maintenance_hours_per_month: 1
  horizon_years: 3
"""


@pytest.fixture(scope="module")
def plant(template: Working, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """Three tasks serve."""
    return copy_plant(template.plant, tmp_path_factory.mktemp("pilot") / "plant")


@pytest.fixture(scope="module")
def caps(tmp_path_factory: pytest.TempPathFactory, new_caps: Callable[..., Path]) -> Path:
    """Yellow caps without a test folder, and the business behind them."""
    folder = new_caps(tmp_path_factory.mktemp("pilots") / "yellow-caps", 3, train=60, test=0)
    recipe = "title: Yellow caps\nrecipe: {epochs: 1, image_size: 32}\n"
    (folder / "task.yaml").write_text(recipe + BUSINESS)
    return folder


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, new_caps: Callable[..., Path]) -> Path:
    """Other yellow caps, as a line would take them: a folder a class."""
    return new_caps(tmp_path_factory.mktemp("line") / "new", 3, seed=7, train=40, test=0) / "train"


@pytest.fixture(scope="module")
def before(plant: Plant) -> object:
    return plant.photograph()


@pytest.fixture(scope="module")
def tried(plant: Plant, caps: Path, before: object) -> Answer:
    return plant.clr(
        "pilot", caps, "--today", "0.4", "--minutes", "0", "--language", "both", "--json"
    )


def test_each_stage_tells_what_it_measured(tried: Answer) -> None:
    assert tried.code == 0, tried.err
    told = tried.json
    assert (told["schema"], told["task"], told["title"]) == (
        "clr.pilot/1", "yellow-caps", "Yellow caps",
    )  # fmt: skip
    assert (told["stages"]["before"]["train"], told["stages"]["before"]["test"]) == (96, 24)
    found = {one["name"]: one for one in told["criteria"]}
    assert list(found) == ["gain", "retention", "data", "payback", "site"]
    assert found["gain"]["against"] == "today"
    assert found["gain"]["n"] == 24
    assert found["retention"]["earlier_tasks"] == 3
    assert found["retention"]["how"]["identical"] == 3
    assert found["data"]["target"] == pytest.approx(0.6)
    assert found["payback"]["horizon_months"] == 36
    assert found["site"]["answer"] == "unknown"
    assert told["stages"]["site"] is None


def test_the_rate_of_today_is_in_the_business_case_as_what_it_is(tried: Answer) -> None:
    rate = tried.json["roi"]["current_error_rate"]
    assert (rate["kind"], rate["value"]) == ("assumed", 0.4)


def test_stages_are_told_one_after_another(tried: Answer) -> None:
    stages = [line for line in tried.err.splitlines() if "pilot     stage" in line]
    assert [line[line.index("stage") :][:12] for line in stages] == [
        "stage 1 of 3", "stage 2 of 3", "stage 3 of 3",
    ]  # fmt: skip


def test_the_learning_curve_is_told_within_the_second_stage(tried: Answer) -> None:
    lines = tried.err.splitlines()
    probes = [number for number, line in enumerate(lines) if "probes on" in line]
    second, third = (
        next(number for number, line in enumerate(lines) if f"stage {stage} of 3" in line)
        for stage in (2, 3)
    )
    assert probes
    assert second < min(probes) < max(probes) < third


def test_a_page_a_language_and_the_document_are_written(tried: Answer, plant: Plant) -> None:
    folder = plant.state / "pilots" / "yellow-caps"
    told = tried.json
    assert told["pages"] == {one: str(folder / f"pilot.{one}.html") for one in ("en", "ja")}
    assert "Yellow caps" in (folder / "pilot.en.html").read_text("utf-8")
    assert "判定基準" in (folder / "pilot.ja.html").read_text("utf-8")
    written = json.loads((folder / "pilot.json").read_text("utf-8"))
    assert written == {name: told[name] for name in written}


def test_nothing_is_registered_pinned_recorded_or_promoted(
    tried: Answer, plant: Plant, before: object
) -> None:
    assert tried.code == 0
    assert plant.photograph() == before
    assert plant.leftovers() == []


def test_the_same_command_does_nothing_twice_and_decides_the_same(
    tried: Answer, plant: Plant, caps: Path
) -> None:
    again = plant.clr("pilot", caps, "--today", "0.4", "--minutes", "0", "--json")
    assert again.json["criteria"] == tried.json["criteria"]
    japanese = Path(again.json["pages"]["ja"]).read_text("utf-8")  # which was there before
    assert again.json["made_at"].replace("T", " ")[:19] in japanese
    assert "epoch" not in again.err
    assert "probes on" not in again.err


def test_what_was_trained_is_what_an_onboarding_takes(
    tried: Answer, plant: Plant, caps: Path
) -> None:
    other = copy_plant(plant, plant.root.parent / "onboarded")
    done = other.clr("onboard", caps, "--json")
    assert done.json["adapter"]["digest"] == tried.json["digests"]["adapter"]
    assert "epoch" not in done.err


def test_images_of_the_line_end_the_third_stage(plant: Plant, caps: Path, line: Path) -> None:
    done = plant.clr("pilot", caps, "--today", "0.4", "--site", line, "--minutes", "0", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["stages"]["site"]["classes"] == {"dark": 40, "light": 40}
    site = told["criteria"][-1]
    assert (site["name"], site["n"]) == ("site", 80)
    assert site["answer"] in {"met", "unknown", "not met"}


def test_a_sample_of_decisions_is_measured_not_assumed(
    plant: Plant, caps: Path, tmp_path: Path
) -> None:
    rows = ["decided,right", *["dark,dark"] * 70, *["dark,light"] * 30]
    (tmp_path / "decisions.csv").write_text("\n".join(rows))
    done = plant.clr(
        "pilot", caps, "--today", tmp_path / "decisions.csv", "--minutes", "0", "--json"
    )
    today = done.json["criteria"][0]["today"]
    assert (today["kind"], today["wrong"], today["of"]) == ("measured", 30, 100)
    assert done.json["roi"]["current_error_rate"]["kind"] == "measured"


def test_a_rate_out_of_the_assumptions_is_not_said_to_be_given(plant: Plant, caps: Path) -> None:
    done = plant.clr(
        "pilot", caps, "--minutes", "0", "--json", CLR_BUSINESS_CURRENT_ERROR_RATE="0.4"
    )
    assert done.json["criteria"][0]["against"] == "today"
    rate = done.json["roi"]["current_error_rate"]
    assert rate == {"kind": "assumed", "unit": "share", "value": 0.4}


def test_a_no_go_is_an_answer_and_ends_with_0(plant: Plant, caps: Path) -> None:
    done = plant.clr("pilot", caps, "--today", "0", "--minutes", "0", "--target", "0.5")
    assert done.code == 0
    assert done.out.startswith(("No-go: Yellow caps", "Not decided: Yellow caps"))
    assert "Gain" in done.out
    assert "pilot.en.html" in done.out


def test_a_workspace_without_a_registry_gets_none(
    new_plant: Callable[[Path], Plant], caps: Path, tmp_path: Path
) -> None:
    """And a folder whose name cannot name a task has all stages under the one that is given."""
    empty, folder = new_plant(tmp_path / "empty"), tmp_path / "Yellow Caps"
    shutil.copytree(caps, folder)
    done = empty.clr("pilot", folder, "--name", "caps-3", "--minutes", "0", "--json")
    assert done.code == 0, done.err
    assert done.json["task"] == "caps-3"
    assert done.json["criteria"][0]["against"] == "probe"
    assert done.json["criteria"][1]["earlier_tasks"] == 0
    assert not (empty.state / "mlflow.db").exists()


def test_images_that_the_pilot_knows_are_no_trial(plant: Plant, caps: Path) -> None:
    done = plant.clr("pilot", caps, "--site", caps / "train", "--minutes", "0", "--json")
    assert done.code == 3
    assert "images of the pilot itself" in done.json["message"]


@pytest.mark.parametrize(
    ("copies", "says"),
    [
        (("dark/copy-1.png", "dark/copy-2.png"), "more than once"),
        (("light/other.png",), "under several classes"),
    ],
)
def test_copies_of_one_image_are_no_trial(
    copies: tuple[str, ...], says: str, plant: Plant, caps: Path, line: Path, tmp_path: Path
) -> None:
    """They would count as images of their own, and narrow the interval for nothing."""
    site = tmp_path / "line"
    shutil.copytree(line, site)
    for copy in copies:
        shutil.copyfile(site / "dark" / "00.png", site / copy)
    done = plant.clr("pilot", caps, "--site", site, "--minutes", "0", "--json")
    assert done.code == 3, done.err
    assert says in done.json["message"]
    assert done.json["files"] == [str(site / name) for name in sorted(("dark/00.png", *copies))]
    assert "stage 1" not in done.err  # before hours of training


def test_what_is_no_file_of_the_line_is_named_before_the_training(
    plant: Plant, caps: Path, line: Path, tmp_path: Path
) -> None:
    site = tmp_path / "line"
    shutil.copytree(line, site)
    (site / "dark" / "90.png").symlink_to("gone.png")
    os.mkfifo(site / "light" / "91.png")
    done = plant.clr("pilot", caps, "--site", site, "--minutes", "0", "--json")
    assert done.code == 3, done.err
    assert "is a link to nothing, or is gone" in done.json["message"]
    assert done.json["files"] == [str(site / "dark" / "90.png"), str(site / "light" / "91.png")]
    assert "stage 1" not in done.err
    (site / "dark" / "90.png").unlink()
    done = plant.clr("pilot", caps, "--site", site, "--minutes", "0", "--json")
    assert (done.code, "is not a regular file" in done.json["message"]) == (3, True)


def test_links_to_images_of_the_line_are_images(plant: Plant, caps: Path, line: Path) -> None:
    """A trial may be put together out of an archive that lies elsewhere."""
    site = line.parent / "chosen"
    for label in ("dark", "light"):
        (site / label).mkdir(parents=True)
        for image in sorted((line / label).iterdir())[:10]:
            (site / label / image.name).symlink_to(image)
    done = plant.clr("pilot", caps, "--site", site, "--minutes", "0", "--json")
    assert done.code == 0, done.err
    assert done.json["stages"]["site"]["classes"] == {"dark": 10, "light": 10}


def test_a_class_folder_of_the_line_may_be_a_link_and_none_is_passed_over(
    line: Path, tmp_path: Path
) -> None:
    site, classes = tmp_path / "line", ("dark", "light")
    site.mkdir()
    for label in classes:
        (site / label).symlink_to(line / label)
    files = site_files(site, "yellow-caps", classes, 1_000_000)
    assert {one.label for one in files} == {"dark", "light"}
    with pytest.raises(UsageError, match="light is no class"):
        site_files(site, "yellow-caps", ("dark",), 1_000_000)
    for lost in (site / "gone", site / "round"):
        lost.symlink_to(lost.name if lost.name == "round" else "nowhere")
    with pytest.raises(DataRefused, match="is a link to nothing") as refused:
        site_files(site, "yellow-caps", classes, 1_000_000)
    assert refused.value.data["files"] == [str(site / "gone"), str(site / "round")]


def test_bad_images_are_refused_by_name(plant: Plant, caps: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(caps, bad)
    (bad / "train" / "dark" / "00.png").write_bytes(b"no picture")
    done = plant.clr("pilot", bad, "--json")
    assert (done.code, done.json["files"]) == (3, ["train/dark/00.png"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("no/such/folder",),
        ("{caps}", "--today", "1.5"),
        ("{caps}", "--today", "no-such.csv"),
        ("{caps}", "--today", ""),
        ("{caps}", "--language", "fr"),
        ("{caps}", "--target", "1"),
    ],
)
def test_a_slip_of_the_pen_ends_with_2(
    arguments: tuple[str, ...], plant: Plant, caps: Path
) -> None:
    done = plant.clr("pilot", *(one.format(caps=caps) for one in arguments), "--minutes", "0")
    assert done.code == 2


def test_a_class_of_the_line_that_the_task_does_not_have_is_named(
    plant: Plant, caps: Path, tmp_path: Path
) -> None:
    (tmp_path / "line" / "purple").mkdir(parents=True)
    done = plant.clr("pilot", caps, "--site", tmp_path / "line", "--minutes", "0", "--json")
    assert done.code == 2
    assert "purple" in done.json["message"]
    assert "stage 1" not in done.err  # before hours of training


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    plant: Plant, caps: Path, tmp_path: Path
) -> None:
    (tmp_path / "report").write_text("a file")
    done = plant.clr("pilot", caps, "--output", tmp_path / "report", "--json")
    assert (done.code, done.json["error"]) == (7, "ServiceUnavailable")
    assert "stage 1" not in done.err
