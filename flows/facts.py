"""What an onboarding tells: its result, model card, business case, tags, metrics, files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import canonical_json, sha256_bytes, sha256_file, write_atomic
from flows import provenance
from flows.job import Job, Result
from flows.judge import Judged
from flows.seal import FILES_FILE, seal
from flows.session import EVIDENCE_FILE

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.registry.package import BackboneReference
    from clr.registry.runs import Run

RESULT_FILE = "onboard.json"
DATA_DOCS = "validation/data-docs.html"
VERDICTS = {"pass": "passed", "fail": "refused", "inconclusive": "inconclusive"}


def business(
    job: Job,
    evidence: Evidence,
    before: Result,
    trained: Result,
    known: Mapping[str, Result] | None = None,
) -> Result:
    """Return the business case from what was measured and what is assumed.

    Args:
        job: the task.
        evidence: of its adapter.
        before: what the baseline measured.
        trained: what the training left.
        known: what takes the place of assumptions, see `clr.roi.business_case`.
    """
    from clr.roi import business_case

    measured = {**measurements(job, evidence, before, trained), "known": known or {}}
    case: Result = business_case(measured, job.session.assumptions(job.task))
    return case


def measurements(job: Job, evidence: Evidence, before: Result, trained: Result) -> Result:
    """Return what an onboarding measured for the business case."""
    from clr.core.evaluate import confusion
    from clr.gate.statistics import wilson_interval

    labels, about = list(job.spec.labels), evidence.about
    right = int((evidence.predicted == evidence.labels).sum())
    measured: Result = {
        "accuracy": right / len(evidence.labels),
        "accuracy_ci": wilson_interval(right, len(evidence.labels)),
        "images_labelled": job.manifest.train + job.manifest.test,
        "training_seconds": trained["seconds"],
        "baseline_accuracy": before["linear_probe"],
        "added_parameters": about["params"],
        "adapter_bytes": about["adapter_bytes"],
        "latency_p50_before_ms": about["latency"]["bare_p50"],
        "latency_p95_before_ms": about["latency"]["bare_p95"],
        "latency_p50_after_ms": about["latency"]["p50"],
        "latency_p95_after_ms": about["latency"]["p95"],
    }
    for name, answers in (
        ("confusion", evidence.predicted),
        ("baseline_confusion", evidence.probe),
    ):
        counts = confusion(evidence.labels, answers, len(labels)).tolist()
        measured[name] = {
            true: dict(zip(labels, row, strict=True))
            for true, row in zip(labels, counts, strict=True)
        }
    return measured


def describe(
    job: Job,
    run: Run,
    validation: Any,
    before: Result,
    trained: Result,
    evidence: Evidence,
    judged: Judged,
    case: Result,
) -> Result:
    """Return the result without what only registration knows."""
    from clr.gate.statistics import wilson_interval
    from clr.registry.store import model_name

    report, about = judged.report, evidence.about
    right, n = int((evidence.predicted == evidence.labels).sum()), len(evidence.labels)
    proofs = {
        name: int(report["metrics"][name]) for name in ("identical", "replayed", "paired_test")
    }
    return {
        "task": job.task.name,
        "version": None,
        "verdict": VERDICTS[report["verdict"]],
        "accuracy": right / n,
        "accuracy_ci": list(wilson_interval(right, n)),
        "baseline": {"majority": before["majority"], "linear_probe": before["linear_probe"]},
        "gate": {
            "verdict": report["verdict"],
            "earlier_tasks": int(report["metrics"]["earlier_tasks"]),
            "how": proofs,
            "failed": [*report["failed"], *report["inconclusive"]],
            "overlaps": report["overlaps"],
        },
        "adapter": {
            "digest": about["adapter"],
            "bytes": about["adapter_bytes"],
            "params": about["params"],
            "params_pct": about["params_pct"],
            "epoch": trained["best"],
        },
        "data": {
            "digest": job.data.digest,
            "train": job.manifest.train,
            "test": job.manifest.test,
            "classes": list(job.manifest.classes),
        },
        "seconds": {},
        "mlflow": {"run_id": run.id, "model": model_name(job.task.name), "version": None},
        "roi": case,
        "reports": {
            "gate": str(job.folder / "gate.html"),
            "data_docs": str(validation.html),
            "card": str(job.folder / "card.md"),
        },
    }


def write_card(job: Job, run: Run, result: Result, judged: Judged) -> str:
    """Write the model card and return its Markdown."""
    from clr.registry.card import model_card

    backbone = job.session.backbone
    card = model_card(
        {
            **result,
            "title": job.task.title,
            "owner": job.task.owner,
            "report": judged.report,
            "backbone": {
                "name": backbone.name,
                "source": backbone.source,
                "licence": backbone.licence,
            },
            "digests": {
                "adapter": result["adapter"]["digest"],
                "data": job.data.digest,
                "backbone": backbone.digest,
                "code": provenance.code_digest(),
            },
            "links": {
                "gate report": run.link("gate/gate.html"),
                "Data Docs": run.link(DATA_DOCS),
                "confusion matrix": run.link("plots/confusion.png"),
                "run": run.link(),
            },
        }
    )
    write_atomic(job.folder / "card.md", card.encode())
    return card


def log_artifacts(
    job: Job,
    run: Run,
    validation: Any,
    trained: Result,
    evidence: Evidence,
    judged: Judged,
    case: Result,
    result: Result,
) -> str:
    """Upload result, reports, evidence, plots and the validation's documents.

    Returns:
        digest of ``files.json``, which has the digests of all of them (flows/seal.py).
    """
    from clr.core.evaluate import confusion
    from clr.data.checks import checks_html
    from clr.registry import plots
    from clr.registry.lineage import read_run
    from clr.registry.runs import log_bytes
    from clr.roi import payback_curve

    matrix = judged.report["matrix"]
    labels, checked = list(job.spec.labels), validation.json.read_bytes()
    files = {
        "gate/gate.json": judged.data,
        "gate/gate.html": (job.folder / "gate.html").read_bytes(),
        RESULT_FILE: canonical_json(result),
        "card.md": (job.folder / "card.md").read_bytes(),
        "roi.json": json.dumps(case, indent=1, ensure_ascii=False).encode(),
        "data/manifest.json": job.manifest.to_json().encode(),
        "data/data.dvc": (job.session.settings.workspace / "data.dvc").read_bytes(),
        "environment.json": json.dumps(provenance.environment(), indent=1).encode(),
        DATA_DOCS: checks_html(json.loads(checked)).encode(),
        "validation/data-docs.zip": zipped(validation.html.parent),
        f"validation/{validation.json.name}": checked,
        EVIDENCE_FILE: evidence.to_bytes(),
        "plots/learning-curves.png": plots.learning_curves(trained["history"]),
        "plots/confusion.png": plots.confusion(
            labels, confusion(evidence.labels, evidence.predicted, len(labels))
        ),
    }
    if matrix["rows"]:
        files["plots/accuracy-matrix.png"] = plots.accuracy_matrix(matrix["tasks"], matrix["rows"])
    if curve := payback_curve(case):
        currency = case["currency"]["value"] if "currency" in case else ""
        files["plots/payback.png"] = plots.payback(curve, currency)
    logged = read_run(job.session.registry, run.id)
    sealed = seal(files, logged.params if logged else {})
    log_bytes(job.session.registry, run, {**files, FILES_FILE: sealed})
    return sha256_bytes(sealed)


def zipped(folder: Path) -> bytes:
    """Return a folder's files as a ZIP archive: some twenty files are one request then."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return made.getvalue()


def reference(job: Job) -> BackboneReference:
    """Return how the registered model finds its backbone again."""
    from clr.registry.package import BackboneReference

    backbone = job.session.backbone
    return BackboneReference(
        name=backbone.name,
        digest=backbone.digest,
        architecture=backbone.architecture,
        sha256=backbone.sha256,
        pretrained=backbone.pretrained,
        source=backbone.source,
        licence=backbone.licence,
    )


def tags(
    job: Job, result: Result, validation: Any, measured: Result, judged: Judged
) -> dict[str, str]:
    """Return the tags of the version that a person, the promotion or an audit reads."""
    low, high = result["accuracy_ci"]
    earlier = result["gate"]["earlier_tasks"]
    checks = [one for one in judged.report["checks"] if one["name"] == "retention"]
    kept = sum(one["verdict"] == "pass" for one in checks)
    return {
        "clr.verdict": result["verdict"],
        "clr.accuracy": f"{result['accuracy']:.4f} [{low:.4f}, {high:.4f}]",
        "clr.retention": f"{kept} of {earlier} earlier tasks kept",
        "clr.gate_digest": judged.digest,
        "clr.gate_release": judged.release,
        "clr.router_digest": judged.router,
        "clr.evidence_digest": measured["evidence"],
        "clr.code_digest": provenance.code_digest(),
        "clr.environment_digest": provenance.environment_digest(),
        "clr.manifest_digest": job.manifest.digest,
        "clr.validation_digest": sha256_file(validation.json),
    }


def metrics(
    result: Result, case: Result, evidence: Evidence, judged: Judged, seconds: dict[str, float]
) -> dict[str, float]:
    """Return the final metrics of the run by name."""
    from clr import roi

    low, high = result["accuracy_ci"]
    return {
        "accuracy": result["accuracy"],
        "accuracy.low": low,
        "accuracy.high": high,
        "baseline.majority": result["baseline"]["majority"],
        "baseline.linear_probe": result["baseline"]["linear_probe"],
        "adapter.bytes": float(result["adapter"]["bytes"]),
        "adapter.params": float(result["adapter"]["params"]),
        "adapter.params_pct": result["adapter"]["params_pct"],
        **{f"latency.{name}_ms": value for name, value in evidence.about["latency"].items()},
        **{f"gate.{name}": float(value) for name, value in judged.report["metrics"].items()},
        **_routing(judged),
        **{f"seconds.{name}": value for name, value in seconds.items()},
        **roi.metrics(case),
    }


def _routing(judged: Judged) -> dict[str, float]:
    """Return the largest share of any task's test images that the router sends to the other."""
    shares = [
        one[way] for one in judged.report["overlaps"] for way in ("to_newcomer", "from_newcomer")
    ]
    return {"routing.overlap": max(shares, default=0.0)}
