"""Lines of the log: text for people, one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from flows import output


@pytest.fixture
def lines(monkeypatch, capsys):
    """Function () -> the JSON lines on stderr so far; the log is in JSON meanwhile."""
    monkeypatch.setattr(output, "logs_json", lambda: True)
    monkeypatch.setattr(output, "LOG", logging.getLogger("clr-test-of-lines"))
    output.log_to_stderr()
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    output.LOG.handlers.clear()


def test_a_line_is_one_object_with_what_the_block_around_it_says(lines):
    with output.log_context(task="caps", run=""):
        output.log_also(run="r1")
        output.LOG.info("train     …\nnext")
        with output.log_context(step="gate"):
            output.LOG.warning("two")
    output.LOG.info("after")
    first, second, third = lines()
    assert (first["message"], first["level"]) == ("train     …\nnext", "INFO")
    assert first["time"].endswith("+00:00")
    assert (first["task"], first["run"]) == ("caps", "r1")
    assert (second["task"], second["step"], second["level"]) == ("caps", "gate", "WARNING")
    assert not {"task", "run", "step", "flow_run"} & set(third)


def test_a_line_of_a_flow_names_its_run(lines, monkeypatch):
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "f1")
    output.LOG.info("one")
    assert lines()[0]["flow_run"] == "f1"


def test_a_document_is_json_that_every_parser_reads():
    with pytest.raises(ValueError, match="JSON"):
        output.emit({"rate": float("inf")}, as_json=True, text=str)


def test_control_characters_in_a_document_are_escapes_that_json_has(capsys):
    words = "".join(map(chr, range(0xA1))) + "é 日本 \U0001f600"
    output.emit({words: words}, as_json=True, text=str)
    said = capsys.readouterr().out
    assert json.loads(said) == {words: words}
    assert all(char.isprintable() or char in "\n\xa0" for char in said)


def test_an_error_is_in_its_line(lines):
    try:
        raise ValueError("no")
    except ValueError:
        output.LOG.exception("this failed")
    (line,) = lines()
    assert line["message"] == "this failed"
    assert "ValueError: no" in line["error"]


def test_lines_of_a_service_keep_their_fields_and_get_its_name(monkeypatch):
    monkeypatch.setattr(output, "logs_json", lambda: True)
    passed = json.loads(output.passed_on("watcher", '{"message": "seen", "task": "caps"}'))
    assert passed == {"message": "seen", "task": "caps", "service": "watcher"}
    wrapped = json.loads(output.passed_on("registry", "[1, 2]"))
    assert (wrapped["message"], wrapped["service"]) == ("[1, 2]", "registry")
    monkeypatch.setattr(output, "logs_json", lambda: False)
    assert output.passed_on("registry", "up") == "registry | up"


def test_where_stdin_was_closed_there_is_nobody_to_ask(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert not output.asks_somebody()
