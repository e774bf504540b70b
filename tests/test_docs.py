"""What the documentation names is there: files, headings, commands, tests of the faults."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from clr.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"`(clr [^`\n]+)`|^ *(?:\$ )?(clr [^\n#|]+)", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")


@cache
def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@cache
def anchors(page: Path) -> frozenset[str]:
    """What its headings are called in addresses, as GitHub does it."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", title.strip().lower()) for title in titles)
    return frozenset(title.replace(" ", "-") for title in plain)


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef))


def missing_links(page: Path) -> list[str]:
    missing = []
    for target in _LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    return missing


def missing_tests(text: str) -> list[str]:
    return [
        f"{file}::{name}"
        for file, name in _TEST.findall(text)
        if not (ROOT / file).is_file() or (name and name not in functions(ROOT / file))
    ]


def commands(text: str) -> Iterator[str]:
    """What stands in a page as a command of ours, in a line or in a block of code."""
    yield from ((inline or block).strip() for inline, block in _COMMAND.findall(text))


def wrong_commands(text: str) -> list[str]:
    """Those that name a command or an option that is not there."""
    return [line for line in commands(text) if not _is_known(line)]


def _is_known(line: str) -> bool:
    from flows.cli import main

    words = line.split(" && ")[0].replace("\\|", " ").split()[1:]
    command: click.Command = main
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    options = {"--help", "-h", *(name for one in command.params for name in one.opts)}
    given = (word.strip("[](),.;…").split("=")[0] for word in words)
    unknown = [word for word in given if word.startswith("--") and word not in options]
    no_command = command is main and words and re.fullmatch(r"[a-z]+", words[0])
    return not (unknown or no_command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_and_the_tests_it_names_are_there(page: Path) -> None:
    assert missing_links(page) == []
    assert missing_tests(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_shows_are_there(page: Path) -> None:
    assert wrong_commands(page.read_text(encoding="utf-8")) == []


def test_the_readme_leads_to_every_page() -> None:
    linked = {target.partition("#")[0] for target in _LINK.findall(prose(ROOT / "README.md"))}
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md"}
    assert pages | {"docs/results/README.md"} <= linked


def test_each_clause_of_the_compliance_page_has_evidence_and_a_command() -> None:
    text = (ROOT / "docs" / "compliance.md").read_text(encoding="utf-8")
    tables = text.partition("## How long things are kept")[0]
    rows = [line.strip("|").split("|") for line in tables.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows} == {4}
    without = [row[0].strip() for row in rows if row[0] != " clause " and "`clr " not in row[3]]
    assert without == ["control", "17(3)(b), (e)"]
    assert len(list(commands(tables))) > 60


def test_how_long_things_are_kept_is_what_the_settings_say() -> None:
    section = prose(ROOT / "docs" / "compliance.md").partition("## How long things are kept")[2]
    table = "".join(line for line in section.splitlines(True) if line.startswith("|"))
    named = set(re.findall(r"`CLR_(KEEP_\w+)`", table))
    assert {name.lower() for name in named} == {
        name for name in Settings.model_fields if name.startswith("keep_")
    }
    for name, default in re.findall(r"`CLR_(\w+)` \((\d+)", table):
        assert Settings.model_fields[name.lower()].default == int(default), name


def test_every_fault_has_a_test() -> None:
    section = prose(ROOT / "docs" / "operations.md").partition("\n## Faults\n")[2]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4, row
        assert _TEST.search(cells[3]), f"no test shows this: {row}"


def test_an_extra_is_installed_from_the_source_and_is_there() -> None:
    """Neither ``clr`` nor ``clr-pipeline`` of an index is this project: that is whose they are."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [file for folder in ("clr", "flows") for file in (ROOT / folder).rglob("*.py")]
    for file in (*PAGES, *sources):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\bclr(-pipeline)?\[", text), file
        named = re.findall(r"--extra (\w+)|\bextra\('(\w+)'\)", text)
        assert {one or other for one, other in named} <= known.keys(), file


def metrics(source: str) -> set[str]:
    """The names under which Prometheus sees what a module of ours counts and measures."""
    text = (ROOT / source).read_text(encoding="utf-8")
    counters = set(re.findall(r"Counter(?:MetricFamily)?\(\s*\"(clr_\w+)\"", text))
    named = set(re.findall(r"\"(clr_\w+)\"", text))
    return named - counters | {f"{name}_total" for name in counters}


def test_the_metrics_that_pages_name_are_there() -> None:
    of_up = metrics("flows/metrics.py")
    table = prose(ROOT / "docs" / "up.md").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(clr_\w+)`", table, flags=re.M)) == of_up
    drift = {f"clr_drift_{name}" for name in ("values", "capital", "alarm")}  # tests/serving
    there = of_up | metrics("clr/serving/observing.py") | drift
    for page in PAGES:
        named = set(re.findall(r"`(clr_(?:serve|drift|up|service)\w*)`", prose(page)))
        assert named <= there, page.name


def test_a_wrong_name_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A b\n[x](no.md) [y](#a-b) [z](#c) [w](https://example.com)\n")
    assert missing_links(page) == ["no.md", "#c"]
    assert wrong_commands("`clr status --watch` `clr users add NAME --role ROLE`") == []
    assert wrong_commands("`clr stats`, `clr users add --rule`\n    clr audit x --form y\n") == [
        "clr stats",
        "clr users add --rule",
        "clr audit x --form y",
    ]
    named = "`tests/test_docs.py::test_a_wrong_name_is_found` `tests/test_docs.py::test_x`"
    assert missing_tests(named) == ["tests/test_docs.py::test_x"]
