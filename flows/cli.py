"""The command line ``clr``: thin commands, every import of weight inside them.

Every command takes ``--json`` (one JSON document on stdout, logs on stderr) and
ends with the exit code of the error that stopped it (see clr/errors.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clr import __version__, errors
from clr.errors import ClrError, DataRefused, GateRefused, UsageError
from flows import (
    cli_compare,
    cli_export,
    cli_keys,
    cli_operations,
    cli_pilot,
    cli_plan,
    cli_registry,
    cli_release,
    cli_roi,
    cli_serve,
    cli_trial,
    cli_verify,
    output,
    text,
    text_routing,
)
from flows.audit import cli as audit_cli
from flows.command import Commands, as_json

if TYPE_CHECKING:
    from flows.session import Session


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clr")
def main() -> None:
    """Keep one frozen vision backbone in production and add tasks to it, none forgotten.

    \b
    A first session:
      clr init plant && cd plant
      clr onboard ~/pictures/solder-joints     # validate, version, train, gate, register
      clr review solder-joints 1 approve --reason "seen, good"
      clr predict --task solder-joints ~/pictures/one.jpg
    """


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@as_json
def init(directory: Path, as_json: bool) -> None:
    """Make a new workspace in DIRECTORY: git, DVC, data.dvc, clr.env, incoming/, mlflow/.

    \b
    Example:  clr init plant
    """
    from clr.data.repository import git_root
    from clr.data.workspace import init_workspace
    from clr.registry.server.templates import TEMPLATES
    from clr.settings import absolute

    made = init_workspace(directory, TEMPLATES)
    root, workspace = git_root(directory), absolute(directory)
    if root is None:
        output.note(
            "git is not installed, so no repository was made: data.dvc has no history.\n"
            "Install git, then run the same command again."
        )
    elif root != workspace:
        output.note(
            f"It lies in the git repository {root}: that keeps the history of data.dvc and takes\n"
            "the tags of `clr anchor --git`, and `clr backup` leaves it out."
        )
    output.emit(
        {"workspace": str(workspace), "created": [str(path) for path in made]},
        as_json,
        lambda _: f"Workspace ready in {directory}. Next: cd {directory} && clr onboard PATH",
    )


@main.command()
@as_json
def demo(as_json: bool) -> None:
    """Onboard three tasks with real weights, then see the gate refuse a fine-tuned backbone.

    \b
    Example:  clr demo
    """
    from flows.session import open_session

    session = open_session()  # before Prefect is imported, which reads its settings then
    from flows.demo import run_demo

    output.emit(run_demo(session), as_json, text.demonstrated)


@main.command()
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="Task name, if the folder's own name is not one.")
@as_json
def onboard(paths: tuple[Path, ...], name: str | None, as_json: bool) -> None:
    """Bring the task in folder PATH through validation, training and the retention gate.

    PATH holds train/CLASS/IMAGES and, if there is one, test/CLASS/IMAGES. Where `clr up` runs,
    one of its workers does it, and this command follows; Ctrl-C ends the following alone.
    Several PATHs are onboarded each by itself; the exit code is that of the first that was not.

    \b
    Examples:
      clr onboard ~/pictures/solder-joints
      clr onboard "incoming/batch 7" --name solder-joints --json
      clr onboard incoming/*
    """
    from flows import follow
    from flows.asked import check_request
    from flows.session import open_session

    output.log_to_stderr()
    session = open_session()  # before Prefect is imported, which reads its settings then
    if len(paths) > 1:
        _onboard_all(session, paths, name, as_json)
        return
    (path,) = paths
    if follow.is_possible(session.settings):
        result = follow.onboard(session.settings, path, name)
    else:
        check_request(session, path, name)  # a slip is told before Prefect starts
        output.LOG.info("start     …")
        from flows.onboard import run_onboard

        result = run_onboard(path, name, session)
    output.emit(result, as_json, text.onboarded, _refusal(result))


def _onboard_all(
    session: Session, paths: tuple[Path, ...], name: str | None, as_json: bool
) -> None:
    from flows.bulk import onboard_all, told

    if name is not None:
        raise UsageError(
            "--name names one task, and several folders were given.",
            fix="Rename the folders, or onboard them one by one.",
        )
    result = onboard_all(session, paths)
    refusals = [one for one in map(_refusal, result["tasks"]) if one is not None]
    output.emit(result, as_json, told, refusals[0] if refusals else None)


def _refusal(result: dict[str, Any]) -> ClrError | None:
    """Return why an onboarding did not end with a candidate; None where it did."""
    if "error" in result:
        kind: type[ClrError] = getattr(errors, result["error"], ClrError)
        return kind(result["message"], fix=result["fix"])
    if result["verdict"] == "data-refused":
        return DataRefused(result["message"], fix=result["fix"])
    if result["verdict"] == "passed":
        return None
    failed = ", ".join(result["gate"]["failed"]) or result["gate"]["verdict"]
    return GateRefused(
        f"Task {result['task']}: the retention gate did not pass ({failed}).",
        fix=f"Read {result['reports']['gate']}; champions are unchanged.",
    )


@main.command()
@click.argument("task")
@click.argument("version", type=click.IntRange(min=1))
@click.argument("decision", type=click.Choice(["approve", "reject"]))
@click.option("--reason", default="", help="Your words, kept in the ledger.")
@as_json
def review(task: str, version: int, decision: str, reason: str, as_json: bool) -> None:
    """Approve or reject VERSION of TASK; an approval promotes it to champion.

    Recorded with your operating-system user name. If another task was promoted
    since the gate ran, the gate runs again first.

    \b
    Example:  clr review solder-joints 1 approve --reason "checked the confusion matrix"
    """
    from flows.review import run_review
    from flows.session import open_session

    output.emit(run_review(task, version, decision, reason, open_session()), as_json, text.reviewed)


@main.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@as_json
def status(watch: bool, as_json: bool) -> None:
    """Show services, queue, runs, what waits for review, every task and the release in force.

    \b
    Examples:
      clr status --watch
      clr status --json
    """
    from flows.session import open_session
    from flows.status import read_status, watch_status

    if watch and as_json:
        raise click.UsageError("--watch is for people; repeat `clr status --json` instead.")
    session = open_session()
    if watch:
        watch_status(session, text.status)
        return
    output.emit(read_status(session), as_json, text.status)


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--task", help="Use this task; without it the router finds the task.")
@as_json
def predict(images: tuple[Path, ...], task: str | None, as_json: bool) -> None:
    """Label IMAGES with the release in force; say where the task is doubtful or unknown.

    \b
    Examples:
      clr predict --task solder-joints one.jpg two.jpg
      clr predict --json unknown.jpg
    """
    from flows.predict import run_predict
    from flows.session import open_session

    answer = run_predict(open_session(), images, task)
    unreadable = [one["file"] for one in answer["predictions"] if "error" in one]
    refusal = None
    if unreadable:
        refusal = DataRefused(
            f"{len(unreadable)} of {len(images)} images could not be read, first {unreadable[0]}.",
            fix="See the error beside each; the others were labelled.",
        )
    output.emit(answer, as_json, text_routing.predicted, refusal)


@main.command()
@as_json
def settings(as_json: bool) -> None:
    """Show every setting: name, value in force, meaning; of an address no user and password.

    \b
    Example:  CLR_SEED=7 clr settings
    """
    from clr.registry.faults import redact
    from clr.settings import load_settings

    values = load_settings()
    table = {
        f"CLR_{name.upper()}": {
            "value": redact(value) if isinstance(value, str) else value,
            "meaning": field.description,
        }
        for name, field in type(values).model_fields.items()
        for value in [getattr(values, name)]
    }
    output.emit(json.loads(json.dumps(table, default=str)), as_json, text.settings)


main.add_command(audit_cli.audit)
main.add_command(cli_compare.compare)
main.add_command(cli_export.export)
main.add_command(cli_plan.plan)
main.add_command(cli_pilot.pilot)

main.add_command(cli_serve.serve)
main.add_command(cli_keys.keys)

main.add_command(cli_roi.roi)
main.add_command(cli_roi.upkeep)

main.add_command(cli_registry.up)
main.add_command(cli_registry.users)
main.add_command(cli_registry.erase)

main.add_command(cli_release.promote)
main.add_command(cli_release.rollback)
main.add_command(cli_release.retire)

main.add_command(cli_trial.ab)

main.add_command(cli_verify.verify)
main.add_command(cli_verify.anchor)

main.add_command(cli_operations.backup)
main.add_command(cli_operations.restore)
main.add_command(cli_operations.prune)
main.add_command(cli_operations.replay)

if __name__ == "__main__":
    main()
