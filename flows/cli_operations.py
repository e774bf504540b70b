"""Commands of whoever runs a workspace: `clr backup`, `restore`, `prune`, `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from clr.errors import IntegrityBroken
from flows import output
from flows.command import Command, as_json

PATH = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("directory", type=PATH)
@click.option("--verify", is_flag=True, help="Hash what is there; needs no workspace.")
@click.option("--without-secrets", is_flag=True, help="Leave private keys and passwords out.")
@as_json
def backup(directory: Path, verify: bool, without_secrets: bool, as_json: bool) -> None:
    """Add a snapshot of the workspace to the backups in DIRECTORY, while everything runs.

    DIRECTORY then holds what the workspace holds, signing key and passwords included: keep it
    as secret. Docs: docs/operations.md.

    \b
    Examples:
      clr backup /mnt/backups/plant
      clr backup /mnt/backups/plant --verify
    """
    from flows.backup import check_backups, run_backup

    output.log_to_stderr()
    if verify:
        _verify(check_backups(directory), as_json)
        return
    from flows.session import open_session

    result = run_backup(open_session(), directory, secrets=not without_secrets)
    refusal = None
    if result["damaged"]:
        refusal = IntegrityBroken(
            f"The backup is made, but {len(result['damaged'])} objects of DVC are missing or "
            f"damaged, first {result['damaged'][0]}.",
            fix="`clr verify` names the files; put them back from an older backup.",
        )
    output.emit(result, as_json, _made, refusal)


def _verify(report: dict[str, Any], as_json: bool) -> None:
    broken = [one for one in report["snapshots"] if one["problems"]]
    refusal = None
    if broken:
        what = f"{len(broken)} of {len(report['snapshots'])} snapshots cannot be restored whole."
        refusal = IntegrityBroken(
            f"{what} First: {broken[0]['problems'][0]}.",
            fix="Remove the broken ones and make a new backup.",
        )
    elif not report["snapshots"]:
        refusal = IntegrityBroken(
            f"{report['backup']} holds no snapshot: nothing could be restored from it.",
            fix="Make one with `clr backup DIRECTORY`, or name the folder that has them.",
        )
    output.emit(report, as_json, _checked, refusal)


@click.command(cls=Command)
@click.argument("source", metavar="FROM", type=PATH)
@click.option("--into", type=PATH, help="New or empty folder; default: where it was.")
@as_json
def restore(source: Path, into: Path | None, as_json: bool) -> None:
    """Bring a workspace back from the newest snapshot in FROM, or from one snapshot's file.

    Nothing is overwritten, and nothing is in place before every byte was checked.

    \b
    Examples:
      clr restore /mnt/backups/plant
      clr restore /mnt/backups/plant/snapshots/20260301T020000Z.json --into ~/plant
    """
    from flows.restore import run_restore

    output.log_to_stderr()
    output.emit(run_restore(source, into), as_json, _restored)


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@as_json
def prune(dry_run: bool, as_json: bool) -> None:
    """Remove files older than CLR_KEEP_DAYS that nothing names: caches, checkpoints, quarantine.

    Whatever a version, a release, the ledger or a commit of data.dvc names stays. Logs and files
    of deleted runs stay as long as mlflow/policy.yaml says.

    \b
    Examples:
      clr prune --dry-run
      CLR_KEEP_DAYS=30 clr prune
    """
    from flows.prune import run_prune
    from flows.session import open_session

    output.log_to_stderr()
    output.emit(run_prune(open_session(), dry_run=dry_run), as_json, _pruned)


def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _made(result: dict[str, Any]) -> str:
    lines = [
        f"Snapshot {result['snapshot']}: {result['files']} files, {size(result['bytes'])}; "
        f"{result['added']} new, {size(result['added_bytes'])}, in {result['seconds']:.1f} s.",
        *(f"Removed, since it is too old: {one}" for one in result["expired"]),
        *(f"Not in it: {one}" for one in result["left_out"]),
        f"Its private keys and passwords are readable: keep {result['backup']} secret."
        if result["secrets"]
        else "Private keys and passwords are not in it: after a restore new ones are made.",
    ]
    return "\n".join(lines)


def _checked(report: dict[str, Any]) -> str:
    lines = []
    for one in report["snapshots"]:
        state = f"{len(one['problems'])} problems" if one["problems"] else "whole"
        lines.append(f"{one['snapshot']}  {one['files']} files, {size(one['bytes'])}: {state}")
        lines += [f"  {problem}" for problem in one["problems"][:20]]
    return "\n".join(lines) or f"No snapshots in {report['backup']}."


def _restored(result: dict[str, Any]) -> str:
    lines = [
        f"{result['workspace']} is as it was on {result['made_at'][:19]} UTC: "
        f"{result['files']} files, {size(result['bytes'])}, in {result['seconds']:.1f} s.",
        *(f"Not in the backup: {one}" for one in [*result["left_out"], *result["damaged"]]),
    ]
    if not result["secrets"]:
        lines.append("New keys and passwords are made; entries of the old key stay trusted.")
    start = "clr up registry, and there " if result["served"] else ""
    lines.append(f"Next: cd {result['workspace']} && {start}clr verify")
    return "\n".join(lines)


def _pruned(result: dict[str, Any]) -> str:
    done = "would go" if result["dry_run"] else "removed"
    lines = [
        f"{kind:<12} {one['files']:>7} files  {size(one['bytes']):>9}"
        for kind, one in result["kinds"].items()
    ]
    lines += [f"Left alone: {one}" for one in result["kept"]]
    lines.append(f"{result['files']} files, {size(result['bytes'])} {done}.")
    if result["list"]:
        lines.append(f"Every path is in {result['list']}")
    return "\n".join(lines)


@click.command(cls=Command)
@as_json
def replay(as_json: bool) -> None:
    """Evaluate every task of the release again, on all of its test images.

    It fails, with code 4, if one answers otherwise than when it was admitted. A `clr up` does it
    by itself, when CLR_REPLAY_CRON says.

    \b
    Examples:
      clr replay
      clr replay --json
    """
    from clr.errors import GateRefused
    from flows.replay_retention import replay as run
    from flows.session import open_session

    output.log_to_stderr()
    refusal: GateRefused | None = None
    try:
        result = run(open_session())
    except GateRefused as error:
        if "report" not in error.data:
            raise
        refusal, result = error, error.data
    output.emit(result, as_json, _replayed, refusal)


def _replayed(result: dict[str, Any]) -> str:
    place = result.get("reports", {}).get("gate")
    return "\n".join([result["sentence"], *([f"report: {place}"] if place else [])])
