"""docs/serving.md is true: its examples run, and its tables say what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from clr.serving.errors import KINDS
from clr.serving.values import Code
from clr.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, flags=re.M | re.S)
EXAMPLES = [(kind, text) for kind, text in BLOCKS if "CLR_KEY" in text]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def names(text: str) -> str:
    return text.replace("solder-joints", "red-caps").replace("good", "dark")


@pytest.fixture
def place(tmp_path, web, pictures):
    """A folder with an image, and the environment of the examples."""
    (tmp_path / "one.png").write_bytes(pictures["red-caps/dark"])
    answer = web.predict(pictures["red-caps/dark"])
    known = {"CLR_URL": web.url, "CLR_KEY": web.key, "no_proxy": "127.0.0.1",
             "REQUEST_ID": answer.headers["X-Request-Id"]}  # fmt: skip
    return tmp_path, {**os.environ, **known}


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_the_examples_run(place, kind, text):
    folder, environment = place
    command = ["bash", "-e", "-c"] if kind == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*command, names(text)], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dark" in done.stdout, done


def test_there_is_an_example_of_each_way_to_call():
    assert [kind for kind, _ in EXAMPLES] == ["sh", "python", "python", "sh"]


def test_every_kind_of_error_is_listed():
    listed = {code: (int(status), title) for code, status, title in rows("Errors")}
    assert listed == {code: (kind.status, kind.title) for code, kind in KINDS.items()}


def test_every_code_of_an_image_without_an_answer_is_listed():
    (listed,) = re.findall(r"; `code` is ((?:`[a-z-]+`[,\s]*(?:or )?)+)\.", PAGE)
    assert re.findall(r"`([a-z-]+)`", listed) == list(get_args(Code))


def test_the_limits_have_their_defaults():
    for setting, default, _ in rows("Limits"):
        field = Settings.model_fields[setting.removeprefix("CLR_").lower()]
        assert default == str(field.default), setting


def test_every_metric_is_listed(web, pictures):
    web.predict(pictures["red-caps/dark"], b"no image")
    web.call("GET", "/nothing")
    there = set(re.findall(r"^# TYPE (\w+) ", web.call("GET", "/metrics").text, flags=re.M))
    ours = {name for name in there if not name.endswith("_created")}
    assert {name for name, *_ in rows("Watch it")} <= ours
    assert {name for name in ours if name.startswith("clr_serve_")} == {
        name for name, *_ in rows("Watch it")
    }
