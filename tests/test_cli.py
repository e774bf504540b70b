"""The command line: quick, quiet, scriptable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from clr import errors
from flows import output
from flows.cli import main
from flows.command import Command, Commands

COMMANDS = (
    "ab start", "ab status", "ab stop", "anchor", "audit", "backup", "compare", "demo", "erase",
    "export", "init", "keys add", "keys list", "keys revoke", "onboard", "pilot", "plan", "predict",
    "promote", "prune", "replay", "restore", "retire", "review", "roi", "rollback", "serve",
    "settings", "status", "up registry", "upkeep", "users add", "users list", "users passwd",
    "users remove", "verify",
)  # fmt: skip
HEAVY = {
    "dvc", "great_expectations", "matplotlib", "mlflow", "numpy", "pandas", "prefect", "pydantic",
    "rich", "sqlalchemy", "timm", "torch", "torchvision", "yaml",
    "clr.audit.document", "clr.registry.acts",
}  # fmt: skip


def run(*arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    """A real process; for what only a real process shows."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, **how.pop("env", {})}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False, **how
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom flows.cli import main\n"
        "main(['--help'], standalone_mode=False)\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "A first session" in done.stdout
    loaded = set(done.stderr.split())
    assert (loaded | {name.partition(".")[0] for name in loaded}) & HEAVY == set()


def test_a_mistyped_folder_is_told_before_anything_slow_is_imported(tmp_path):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    code = (
        "import sys\nfrom flows.cli import main\n"
        "main(['onboard', 'no/such/folder'], standalone_mode=False)"
        "\nprint(*sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "w", capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    assert "is not a folder" in done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "prefect", "mlflow", "dvc", "great_expectations"} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name):
    told = CliRunner().invoke(main, [*name.split(), "--help"])
    assert told.exit_code == 0
    assert "Example" in told.output
    assert f"clr {name}" in told.output
    assert "--json" in told.output


def every(command, name="clr"):
    """Yield (name, command) of a group, of what is in it, and so on."""
    yield name, command
    for inner, one in getattr(command, "commands", {}).items():
        yield from every(one, f"{name} {inner}")


def test_every_command_ends_with_a_sentence_and_an_exit_code():
    plain = [name for name, one in every(main) if not isinstance(one, (Command, Commands))]
    assert plain == []


def test_help_lists_every_command():
    listed = CliRunner().invoke(main, ["--help"]).output
    assert all(f"\n  {name.split()[0]} " in listed for name in COMMANDS)
    there = {
        f"{name} {inner}".strip()
        for name, command in main.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert there == set(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [("onbord",), ("onboard",), ("review", "a"), ("review", "a", "x", "approve"),
     ("review", "a", "0", "approve"), ("review", "a", "1", "maybe"), ("status", "--jsn")],
)  # fmt: skip
def test_a_slip_of_the_pen_ends_with_2_and_a_hint(arguments):
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 2
    assert "Usage:" in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("status --bogus --json", "--bogus"), ("onboard --json", "PATH"), ("bogus --json", "bogus"),
     ("keys add --json", "NAME"), ("status --watch --json", "--watch is for people")],
)  # fmt: skip
def test_a_slip_of_the_pen_is_a_document_where_json_is_asked_for(arguments, message):
    told = CliRunner().invoke(main, arguments.split())
    document = json.loads(told.stdout)
    assert (document["error"], document["exit_code"], told.exit_code) == ("UsageError", 2, 2)
    assert message in document["message"]
    assert "--help" in document["fix"]
    assert "Usage:" in told.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "line",
    ["upkeep a --hours", "upkeep a --days", "ab start a 1 --share", "pilot . --minutes",
     "pilot . --target", "plan . --minutes", "plan . --target", "compare --seconds"],
)  # fmt: skip
def test_what_is_no_number_is_within_no_bounds(line, value):
    told = CliRunner().invoke(main, [*line.split(), value])
    assert told.exit_code == 2
    assert line.split()[-1] in told.stderr
    assert "Usage:" in told.stderr


def test_what_stands_behind_two_hyphens_asks_for_nothing():
    told = CliRunner().invoke(main, ["status", "--bogus", "--", "--json"])
    assert (told.exit_code, told.stdout) == (2, "")


def test_ctrl_c_ends_with_a_document_where_json_is_asked_for(tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("clr.settings.load_settings", pressed)
    told = CliRunner().invoke(main, ["settings", "--json"])
    document = json.loads(told.stdout)
    assert (document["error"], document["exit_code"], told.exit_code) == ("Interrupted", 130, 130)
    assert "goes on" in told.stderr


def test_ctrl_c_before_a_command_has_begun_ends_quietly():
    code = (
        "import sys\nfrom types import SimpleNamespace\nfrom flows.__main__ import main\n"
        "def find(*_): raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, SimpleNamespace(find_spec=find))\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("settings >&-", 0),  # who closes it wants to hear nothing
        ("settings --json >&-", 0),
        ("settings 2>&-", 0),
        ("--help >&-", 0),
        ("onbord 2>/dev/full", 2),
        ("onbord 2>&-", 2),
        ("settings 2>/dev/full", 0),
        ("--help >/dev/full", 7),
        ("settings >/dev/full", 7),
        ("settings --json >/dev/full", 7),
        ("onbord --json >/dev/full", 7),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_nobody_to_read_it_is_no_crash(tmp_path, line, code):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m flows.cli {line}"],
        cwd=tmp_path / "w", capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert ("disk is full" in done.stderr) == (code == 7)


def test_the_exit_codes_are_those_of_the_documentation():
    codes = {
        errors.ClrError: 1, errors.UsageError: 2, errors.DataRefused: 3, errors.GateRefused: 4,
        errors.ReviewRefused: 5, errors.IntegrityBroken: 6, errors.ServiceUnavailable: 7,
    }  # fmt: skip
    assert {error: error.exit_code for error in codes} == codes


def test_a_real_process_ends_with_the_error_s_code_and_no_traceback(tmp_path):
    done = run("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "clr init" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_errors_are_one_json_document_too(tmp_path):
    done = run("status", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (document["error"], document["exit_code"]) == ("UsageError", 2)
    assert document["fix"]


def test_init_makes_a_workspace_in_which_commands_work(tmp_path):
    made = CliRunner().invoke(main, ["init", str(tmp_path / "w"), "--json"])
    assert made.exit_code == 0
    assert json.loads(made.stdout)["workspace"] == str(tmp_path / "w")
    again = CliRunner().invoke(main, ["init", str(tmp_path / "w"), "--json"])
    assert json.loads(again.stdout)["created"] == []
    done = run("status", "--json", cwd=tmp_path / "w" / "incoming")
    assert (done.returncode, json.loads(done.stdout)["tasks"]) == (0, [])
    assert not (tmp_path / "w/.clr/mlflow.db").exists()


@pytest.mark.parametrize("address", ["postgresql://clr:hush@db/clr", "postgresql://[clr:hush@db"])
def test_the_settings_are_shown_without_passwords(tmp_path, monkeypatch, address):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setenv("CLR_LEDGER_URL", address)
    for more in ((), ("--json",)):
        shown = CliRunner().invoke(main, ["settings", *more])
        assert (shown.exit_code, "hush" in shown.output) == (0, False), shown.output


def test_a_reader_who_leaves_early_is_no_error(tmp_path):
    """As in ``clr settings | head -1``."""
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    command = f"{sys.executable} -m flows.cli settings | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path / "w", env=environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_can_show_the_output(tmp_path, encoding):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    for more in ((), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "settings", *more],
            cwd=tmp_path / "w", capture_output=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding,
                 "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        if more:
            assert "δ" in json.loads(text)["CLR_GATE_MARGIN"]["meaning"]


def test_names_from_outside_cannot_rewrite_the_screen(capsys):
    output.note("file \x1b[2J\x07\r evil\udcff.png\nnext line é 明")
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "\\x1b[2J\\x07\\r evil\\udcff.png\nnext line é 明\n" in shown


def test_a_bug_is_called_one_and_its_report_kept(tmp_path, monkeypatch):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setattr("clr.settings.load_settings", lambda *_: 1 / 0)
    told = CliRunner().invoke(main, ["settings", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["message"] == "Unexpected ZeroDivisionError: division by zero"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "w")
    found = output.as_clr_error(ZeroDivisionError("again"))
    report = next((tmp_path / "w/.clr/crashes").iterdir())
    assert str(report) in found.fix


def test_an_error_of_ours_below_another_is_found():
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = errors.GateRefused("no", fix="read")
    assert output.as_clr_error(wrapped).exit_code == 4


@pytest.mark.parametrize("number", [28, 30, 13, 122, 27, 12, 24, 23])
def test_what_the_system_refuses_is_no_bug(number):
    found = output.as_clr_error(OSError(number, os.strerror(number), "/some/file"))
    assert found.exit_code == 7
    assert "/some/file" in found.message


def test_too_little_memory_is_no_bug_on_any_device():
    import torch

    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    for error in (refused.value, torch.OutOfMemoryError("CUDA out of memory."), MemoryError()):
        found = output.as_clr_error(error)
        assert found.exit_code == 7, error
        assert "Not enough memory" in found.message
    assert output.as_clr_error(RuntimeError("shapes differ")).exit_code == 1


@pytest.mark.parametrize(
    "command", [["rollback"], ["retire", "red"], ["promote", "red", "1"], ["ab", "stop", "red"]]
)
def test_where_pytorch_is_missing_a_command_says_where_it_is(command, tmp_path, monkeypatch):
    CliRunner().invoke(main, ["init", str(tmp_path / "w")])
    monkeypatch.chdir(tmp_path / "w")
    monkeypatch.setitem(sys.modules, "torch", None)
    reason = [] if command[0] == "promote" else ["--reason", "it does harm"]
    told = CliRunner().invoke(main, [*command, *reason, "--json"])
    assert told.exit_code == 7
    assert "needs torch" in json.loads(told.stdout)["message"]
    assert "docker compose exec release-service" in json.loads(told.stdout)["fix"]


def test_a_missing_pytorch_is_no_bug_wherever_it_is_noticed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as missing:
        import torch  # noqa: F401
    assert output.as_clr_error(missing.value).exit_code == 7
    assert output.as_clr_error(ModuleNotFoundError("no", name="other")).exit_code == 1


@pytest.mark.parametrize("line", ["dark,", ",dark", ","])
def test_a_decision_that_nobody_judged_is_neither_right_nor_wrong(line, tmp_path):
    (tmp_path / "decisions.csv").write_text(f"decided,right\ndark,dark\n{line}\n")
    done = CliRunner().invoke(
        main, ["pilot", str(tmp_path), "--today", str(tmp_path / "decisions.csv")]
    )
    assert done.exit_code == 2
    assert "without what is right" in done.stderr
