"""The demo: three tasks behind the gate, then a fine-tuned backbone that it refuses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.core.files import canonical_json, write_atomic
from clr.errors import GateRefused, IntegrityBroken
from flows import output
from flows.onboard import run_onboard
from flows.review import run_review
from flows.session import Session

if TYPE_CHECKING:
    from clr.core.backbone import Backbone
    from clr.core.images import Preprocessing
    from clr.gate.evidence import EarlierTask
    from clr.registry.release import Release

LOG = logging.getLogger("clr")
Result = dict[str, Any]
FINETUNING_EPOCHS = 3


def run_demo(session: Session) -> Result:
    """Make the demo's data, onboard and approve three tasks, offer a fine-tuned backbone.

    Every step that was done before is not done again.

    Returns:
        ``tasks`` (as ``clr onboard --json``), ``refusal`` and ``next``.

    Raises:
        GateRefused: a task did not pass, or the fine-tuned backbone did: the demo is broken.
    """
    output.log_to_stderr()
    *folders, last = demo_data(session)
    results = [_onboard(session, folder) for folder in folders]
    refusal = offer_finetuned(session, last)
    if refusal["verdict"] == "pass":
        raise GateRefused(
            "The gate let a fine-tuned backbone through.", fix=f"Read {refusal['report']}."
        )
    return {"tasks": results, "refusal": refusal, "next": _next(session, results, refusal)}


def demo_data(session: Session) -> tuple[Path, ...]:
    """Make the demo's task folders again; where ``data.dvc`` pins them, DVC verifies them."""
    from clr.data.check import pinned_files
    from clr.data.demo import TASKS, make_demo
    from clr.data.versioning import require_pinned

    def tell(task: str, done: int, total: int) -> None:
        if done == total:
            LOG.info("data      %s: %d files", task, total)

    workspace = session.settings.workspace
    try:
        pinned = {path.split("/")[0] for path in pinned_files(workspace)}
    except IntegrityBroken:  # a fresh clone: DVC will tell once the files are there again
        pinned = {task.name for task in TASKS}
    if not {task.name for task in TASKS} <= pinned:
        return make_demo(session.settings.state / "demo", tell)
    folders = make_demo(workspace / "data", tell)
    LOG.info("data      verified against data.dvc: %s", require_pinned(session.settings))
    return folders


def _onboard(session: Session, folder: Path) -> Result:
    result = run_onboard(folder, None, session)
    if result["verdict"] != "passed":
        raise GateRefused(
            f"The demo's task {result['task']} did not pass: {result['gate']['failed']}.",
            fix=f"Read {result['reports']['gate']}.",
        )
    review = run_review(result["task"], result["version"], "approve", "demo", session)
    LOG.info("review    %s approved, release %s serves", result["task"], review["release"])
    return result


def offer_finetuned(session: Session, folder: Path) -> Result:
    """Fine-tune a copy of the backbone on one more task and show it to the gate."""
    from clr.gate.report import gate_html
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    assert release is not None
    report, earlier = judge_backbone(session, release, _finetuned(session, folder))
    place = session.settings.state / "demo-refusal"
    write_atomic(place / "gate.json", canonical_json(report))
    write_atomic(place / "gate.html", gate_html(report).encode())
    LOG.info("gate      %s", report["sentence"])
    return {
        "task": folder.name,
        "verdict": "pass" if report["verdict"] == "pass" else "refused",
        "failed": [*report["failed"], *report["inconclusive"]],
        "forgetting": [_forgetting(one) for one in earlier],
        "report": str(place / "gate.html"),
    }


def judge_backbone(
    session: Session,
    release: Release,
    backbone: Backbone,
    declared: frozenset[str] = frozenset({"backbone"}),
) -> tuple[Result, tuple[EarlierTask, ...]]:
    """Show the gate another backbone for the tasks of a release.

    The gate compares, for every task, the answers of the same adapter on that backbone
    with those on record, item by item.

    Args:
        session: the workspace.
        release: what serves now.
        backbone: what would serve.
        declared: what the offer says it changes.

    Returns:
        The gate's report, and what it was shown of each task.
    """
    from clr.core.network import Program
    from clr.gate.evidence import Offer
    from clr.gate.verdict import decide
    from flows.judge import limits
    from flows.offered import earlier_task

    programs = {
        task: Program(backbone, session.champion_network(champion).adapter(task).tensors)
        for task, champion in release.tasks.items()
    }
    earlier = tuple(
        earlier_task(
            session,
            release,
            champion,
            session.evidence(champion),
            predict=lambda batch, name: programs[name].logits(batch),
            backbone=backbone.digest,
        )
        for champion in release.tasks.values()
    )
    offer = Offer(newcomer=None, earlier=earlier, declared=declared)
    return decide(offer, limits(session)).to_dict(), earlier


def _forgetting(one: Any) -> Result:
    before = float(np.mean(one.stored == one.labels))
    after = float(np.mean(one.replayed == one.labels))
    return {"task": one.task, "before": before, "after": after, "forgetting": before - after}


def _finetuned(session: Session, folder: Path) -> Backbone:
    from clr.core.finetune import finetuned
    from clr.core.images import ImageSet

    classes = sorted(path.name for path in (folder / "train").iterdir())
    files = [(path, at) for at, name in enumerate(classes)
             for path in sorted((folder / "train" / name).iterdir())]  # fmt: skip
    way = _preprocessing(session)
    images = ImageSet([path for path, _ in files], [at for _, at in files], way)
    LOG.info("finetune  a copy of the whole backbone on %s, %d images", folder.name, len(images))
    return finetuned(
        session.backbone,
        images,
        way,
        len(classes),
        epochs=FINETUNING_EPOCHS,
        on_epoch=lambda number, loss: LOG.info(
            "finetune  epoch %d of %d: loss %.3f", number, FINETUNING_EPOCHS, loss
        ),
    )


def _preprocessing(session: Session) -> Preprocessing:
    from clr.core.images import Preprocessing
    from clr.core.recipe import image_size

    backbone = session.backbone
    return Preprocessing(image_size(0), backbone.mean, backbone.std, backbone.interpolation)


def _next(session: Session, results: list[Result], refusal: Result) -> list[str]:
    state, last = session.settings.state, results[-1]
    return [
        f"{last['reports']['gate']}   what the gate saw",
        f"{refusal['report']}   why it refused",
        f"mlflow server --backend-store-uri sqlite:///{state / 'mlflow.db'}   "
        "runs, plots, model cards: http://127.0.0.1:5000",
        "clr status   |   clr roi   |   clr verify   |   clr predict IMAGE",
        "clr init DIR && cd DIR && clr onboard FOLDER   your own task",
    ]
