"""The pilot of one task in three stages, and the go/no-go page: nothing is registered or promoted.

Every stage is kept beside digests of what it depends on (flows/steps.py), and training is kept
where `clr onboard` looks for it: the same command goes on where it was cut off, and a go that is
onboarded does not train again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow

from clr import __version__
from clr.core.files import write_atomic
from clr.pilot import criteria
from clr.pilot.criteria import Criterion, Pairs, Today
from clr.pilot.sizes import not_yet
from flows import output, prefect_api, tracking
from flows.asked import check_request, require_writable
from flows.job import Job, Result
from flows.pilot_stages import (
    enough_data,
    judge_pilot,
    measure_site,
    pilot_folder,
    site_files,
)
from flows.session import Session
from flows.stages import measure_adapter, measure_before, train_adapter, validate_images

if TYPE_CHECKING:
    from clr.core.evidence import Evidence

LOG = logging.getLogger("clr")
SCHEMA = "clr.pilot/1"
LANGUAGES = ("en", "ja")


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        path: task folder.
        name: of the task, where the folder's is not one.
        today: error rate of how the work is done now; None: as the assumptions say, if they do.
        wrong: wrong decisions of a labelled sample of it; with `of`.
        of: decisions of that sample.
        site: folder with a folder of labelled images of the line for each class; empty: none.
        target: accuracy that the images should reach; None: today's, else the linear probe's.
        minutes: for the trainings of the learning curve.
    """

    path: str
    name: str | None = None
    today: float | None = None
    wrong: int | None = None
    of: int | None = None
    site: str = ""
    target: float | None = None
    minutes: float = 5.0


def run_pilot(
    session: Session, request: Request, languages: Sequence[str], place: Path | None
) -> Result:
    """Run the three stages; write ``pilot.json`` and a page a language.

    Args:
        session: the workspace.
        request: what was asked for.
        languages: of the pages, out of `LANGUAGES`.
        place: folder of the report; None: one under the workspace's state.

    Returns:
        What ``clr pilot --json`` prints: the document with the paths of its files.

    Raises:
        UsageError: a bad folder, name, setting or assumption.
        DataRefused: the images are refused, or those of the line are no test.
        ServiceUnavailable: registry or Prefect server cannot be reached, or `place` is no folder
            that can be written.
    """
    output.log_to_stderr()
    task = check_request(session, request.path, request.name)  # a slip is told before Prefect
    if request.site:
        limit = session.settings.max_image_pixels
        site_files(Path(request.site), task.name, task.classes, limit)
    if place is not None:
        require_writable(place)
    with prefect_api.reaching():
        document: Result = pilot(asdict(request), str(session.settings.workspace))
    folder = place or session.settings.state / "pilots" / document["task"]
    return document | _write(folder, document, languages)


@flow(name="pilot", persist_result=False, validate_parameters=False)
def pilot(request: Mapping[str, Any], workspace: str | None = None) -> Result:
    """Measure what exists, train and judge, compare on images of the line.

    Args:
        request: fields of `Request`.
        workspace: folder that holds data.dvc.
    """
    session, asked = tracking.opened(workspace), Request(**request)
    folder = check_request(session, asked.path, asked.name)
    with output.log_context(task=folder.name), session.lock(f"task-{folder.name}"):
        session.sweep(folder.name)
        LOG.info("pilot     stage 1 of 3: what exists")
        manifest, validation = validate_images(session, folder)
        if not validation.success:
            raise validation.refusal()
        job = Job(session, folder, manifest, pilot_folder(session, folder, manifest))
        before = measure_before(job)
        LOG.info("pilot     stage 2 of 3: gain and retention")
        trained = train_adapter(job, None)
        measured = measure_adapter(job, trained, before)
        report = judge_pilot(job, measured)
        compared = _compare(job, asked, measured)
        enough = enough_data(job, asked.path, compared.target, asked.minutes)
        LOG.info("pilot     stage 3 of 3: images of the line")
        site = measure_site(job, Path(asked.site), trained["adapter"]) if asked.site else None
        return _document(job, asked, validation, before, trained, compared, report, enough, site)


@dataclass(frozen=True)
class _Compared:
    """What the second stage measured, beside what exists."""

    evidence: Evidence
    digest: str
    pairs: Pairs
    today: Today | None
    target: float


def _compare(job: Job, asked: Request, measured: Result) -> _Compared:
    from clr.core.evidence import read_evidence

    digest = measured["evidence"]
    evidence = read_evidence(job.folder / "evidence.safetensors", digest)
    today = _today(job, asked)
    pairs = Pairs.of(evidence.labels, evidence.probe, evidence.predicted)
    exists = 1 - today.error if today else pairs.before / pairs.n
    target = asked.target or min(0.999, max(0.01, exists))
    return _Compared(evidence, digest, pairs, today, target)


def _document(
    job: Job,
    asked: Request,
    validation: Any,
    before: Result,
    trained: Result,
    compared: _Compared,
    report: Result,
    enough: Criterion,
    site: Result | None,
) -> Result:
    from flows.facts import business

    evidence, pairs, today = compared.evidence, compared.pairs, compared.today
    case = business(job, evidence, before, trained, _known(asked, today))
    found = [
        criteria.gain("gain", pairs, today),
        criteria.retention(report),
        enough,
        criteria.payback(case),
        criteria.gain("site", Pairs(**site["pairs"]), today) if site else not_yet(pairs, today),
    ]
    decision, following = criteria.decide(found)
    LOG.info("pilot     %s: %s", job.task.name, decision)
    return {
        "schema": SCHEMA,
        "task": job.task.name,
        "title": job.task.title,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "decision": decision,
        "next": following,
        "criteria": [one.as_dict() for one in found],
        "stages": {
            "before": {
                "train": job.manifest.train,
                "test": job.manifest.test,
                "classes": list(job.manifest.classes),
                "warnings": [one.message for one in validation.warnings],
                "majority": before["majority"],
                "linear_probe": before["linear_probe"],
            },
            "trained": {
                "seconds": trained["seconds"],
                "params_pct": evidence.about["params_pct"],
                "bytes": evidence.about["adapter_bytes"],
                "latency": evidence.about["latency"],
                "sentence": report["sentence"],
            },
            "site": site,
        },
        "roi": case,
        "digests": {
            "images": job.manifest.digest,
            "adapter": trained["adapter"],
            "backbone": job.session.backbone.digest,
            "evidence": compared.digest,
            "release": report["release"],
        },
        "asked": {**asdict(asked), "path": str(job.task.root)},
        "reports": {"gate": str(job.folder / "gate.html"), "data_docs": str(validation.html)},
    }


def _today(job: Job, asked: Request) -> Today | None:
    if asked.wrong is not None and asked.of is not None:
        return Today.sample(asked.wrong, asked.of)
    if asked.today is not None:
        return Today(asked.today)
    assumed = job.session.assumptions(job.task).get("current_error_rate")
    return None if assumed is None else Today(float(assumed))


def _known(asked: Request, today: Today | None) -> dict[str, Result]:
    """Return the error rate that the pilot was given; one that is assumed is in the case anyway."""
    if today is None or (asked.wrong is None and asked.today is None):
        return {}
    field: Result = {"kind": "assumed", "value": today.error, "source": "given for the pilot"}
    if today.wrong is not None:
        field |= {"kind": "measured", "source": f"{today.wrong} wrong of {today.of} decisions"}
    return {"current_error_rate": field}


def _write(folder: Path, document: Result, languages: Sequence[str]) -> Result:
    """Write the document and its pages; return their paths."""
    from clr.pilot.page import render

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "pilot.json", json.dumps(document, indent=1, ensure_ascii=False).encode())
    pages = {}
    for language in LANGUAGES:
        path = folder / f"pilot.{language}.html"
        if language in languages or path.exists():  # no page of before says something else
            write_atomic(path, render(document, language).encode())
            pages[language] = str(path)
    return {"report": str(folder / "pilot.json"), "pages": pages}


def told(result: Result) -> str:
    """Say the decision and what each criterion answers."""
    from clr.pilot.words import WORDS, headline, result_of

    words = WORDS["en"]
    lines = [headline(result, "en")]
    lines += [
        f"  {words[one['answer']]:<8} {words[one['name']]}: {result_of(one, 'en')}"
        for one in result["criteria"]
    ]
    return "\n".join([*lines, *(f"page: {path}" for path in result["pages"].values())])
