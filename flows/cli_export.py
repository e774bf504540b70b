"""``clr export``: one task's network for programs that know nothing of adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from flows import output
from flows.command import Command, as_json

if TYPE_CHECKING:
    from clr.core.export_formats import Form

_FORMS = ("onnx", "torchscript", "safetensors-bundle")  # `FORMS`, without importing torch


@click.command(cls=Command)
@click.argument("subject", metavar="TASK[@VERSION]")
@click.option("--format", "form", required=True, type=click.Choice(_FORMS))
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to write into; by default the current one.",
)
@as_json
def export(subject: str, form: str, folder: Path, as_json: bool) -> None:
    """Write the whole network of TASK, backbone included, for other programs to run.

    Without a VERSION, the one that serves. It is compared with the registered adapter on the
    task's test images, and not written where it answers otherwise. The ledger records it.

    \b
    Examples:
      clr export solder-joints --format onnx
      clr export solder-joints@3 --format safetensors-bundle --output exports --json
    """
    from flows.audit.cli import asked
    from flows.export import run_export
    from flows.session import open_session

    one = asked(subject, None)
    told = run_export(open_session(), one.task, one.version, cast("Form", form), folder)
    output.emit(told, as_json, _text)


def _text(told: dict[str, Any]) -> str:
    compared = told["compared"]
    return "\n".join(
        (
            f"{told['task']} version {told['version']} as {told['format']}: {told['path']}",
            f"  digest     {told['digest']}",
            f"  size       {told['bytes'] / 1e6:.1f} MB",
            f"  compared   on {compared['images']} {compared['on']}: {compared['same_label']} "
            f"same labels, logits differ by at most {compared['largest_difference']:.2g} "
            f"of {compared['largest_logit']:.3g}",
            f"  ledger     entry {told['entry']}, by {told['by']}",
        )
    )
