"""Validate a task's images: Great Expectations evaluates the rules, people read why.

GX takes seconds to import, so it is imported inside functions. It runs without a project
folder, sends nothing anywhere, and leaves its Data Docs as plain HTML files.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.core.files import write_atomic
from clr.data.manifest import Manifest
from clr.data.rules import Rule, Severity, rules
from clr.data.tables import tables
from clr.errors import ClrError, DataRefused

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "clr.validation/1"
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        name: the rule's name.
        severity: ``critical`` refuses the task, ``warning`` does not.
        ok: whether the rule holds.
        message: one line for people; where broken, names the first files and what to do.
        files: all files or folders that break it, below the task folder.
        details: one line for each of them, with the reason.
        observed: ``{"broken": rows that break it, "of": rows looked at}``.
    """

    name: str
    severity: Severity
    ok: bool
    message: str
    files: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    observed: dict[str, int] | None = None


@dataclass(frozen=True)
class Validation:
    """The verdict on a task's images.

    Attributes:
        task: the task's name.
        digest: of the manifest that was judged.
        success: no critical rule is broken.
        results: one finding a rule.
        html: first page of the Data Docs; the pages beside it belong to it.
        json: the findings and GX's own results.
    """

    task: str
    digest: str
    success: bool
    results: tuple[Finding, ...]
    html: Path
    json: Path

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Broken critical rules."""
        return tuple(f for f in self.results if not f.ok and f.severity == "critical")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Broken rules that do not refuse the task."""
        return tuple(f for f in self.results if not f.ok and f.severity == "warning")

    def refusal(self, report: Path | None = None) -> DataRefused:
        """Return the error that refuses this task; its message names the first files.

        Args:
            report: where the full report was kept, if it was.
        """
        lines = "\n".join(f"  {finding.name}: {finding.message}" for finding in self.refused)
        return DataRefused(
            f"The images of {self.task} are refused, nothing was changed:\n{lines}\n",
            fix=f"All files and reasons: {report or self.html}",
            task=self.task,
            failed=[finding.name for finding in self.refused],
            files=sorted({file for finding in self.refused for file in finding.files}),
            report=str(report or self.html),
        )


def validate(manifest: Manifest, *, min_images_per_class: int, out: Path) -> Validation:
    """Judge a task's images by all rules of `clr.data.rules`.

    Args:
        manifest: the scanned task; its folder is read again for pairs that look alike.
        min_images_per_class: usable images that each class needs in each split.
        out: folder for ``data-docs/`` and ``validation.json``; a former report is replaced.

    Raises:
        ClrError: a rule could not be evaluated (a bug, or an incompatible GX).
        OSError: `out` cannot be written.
    """
    out = out.absolute()
    docs = out / "data-docs"
    shutil.rmtree(docs, ignore_errors=True)
    docs.mkdir(parents=True)
    of_table: dict[str, list[Rule]] = {}
    for rule in rules(min_images_per_class):
        of_table.setdefault(rule.table, []).append(rule)
    context = _context(docs)
    findings: list[Finding] = []
    raw: dict[str, Any] = {}
    for name, table in tables(manifest).items():
        result = _run(context, name, table, of_table[name])
        raw[name] = result.to_json_dict()
        by_rule = {item.expectation_config.meta["rule"]: item for item in result.results}
        findings += (_finding(rule, by_rule[rule.name], table) for rule in of_table[name])
    context.build_data_docs()
    _drop_decoration(docs / "static")
    success = all(finding.ok or finding.severity == "warning" for finding in findings)
    report = {
        "schema": SCHEMA,
        "task": manifest.task,
        "manifest": manifest.digest,
        "train": manifest.train,
        "test": manifest.test,
        "split_made": manifest.split_made,
        "min_images_per_class": min_images_per_class,
        "success": success,
        "findings": [asdict(finding) for finding in findings],
        "great_expectations": raw,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(out / "validation.json", text.encode())
    return Validation(
        task=manifest.task,
        digest=manifest.digest,
        success=success,
        results=tuple(findings),
        html=docs / "index.html",
        json=out / "validation.json",
    )


def _context(docs: Path) -> Any:
    """Return a GX context in memory whose one site of Data Docs is the folder `docs`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": store,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"clr": site},
        progress_bars=ProgressBarsConfig(globally=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    context.data_sources.add_pandas("task")
    return context


def _drop_decoration(static: Path) -> None:
    """Remove the fonts and animated how-tos of Data Docs: 7 MB a report, and nothing is lost."""
    shutil.rmtree(static / "fonts", ignore_errors=True)
    for animation in static.glob("images/*.gif"):
        animation.unlink()


def _run(context: Any, name: str, table: pd.DataFrame, of_table: list[Rule]) -> Any:
    import great_expectations as gx

    source = context.data_sources.get("task")
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    expectations = [
        getattr(gx.expectations, rule.expectation)(
            **rule.arguments,
            severity=rule.severity,
            meta={"rule": rule.name},
            notes=f"{rule.name} ({rule.severity}): {rule.requires}",
        )
        for rule in of_table
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=batch, suite=suite)
    )
    return definition.run(
        batch_parameters={"dataframe": table},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row", "where"],
            "return_unexpected_index_query": False,
        },
    )


def _finding(rule: Rule, result: Any, table: pd.DataFrame) -> Finding:
    if _raised(result.exception_info):
        raise ClrError(
            f"The rule {rule.name} could not be evaluated: {result.exception_info}.",
            fix="Report this; until then use the pinned version of great-expectations.",
        )
    broken = [item["row"] for item in result.result.get("unexpected_index_list") or ()]
    if not result.success and "unexpected_index_list" not in result.result:
        broken = list(range(len(table)))  # a rule about the whole table
    rows = [table.iloc[int(at)].to_dict() for at in broken]
    details = tuple(rule.tell(row) for row in rows)
    files = tuple(dict.fromkeys(file for row in rows for file in rule.files(row)))
    message = rule.requires
    if not result.success:
        more = len(details) - _SHOWN
        listed = "; ".join(details[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        message = f"{rule.broken.format(n=len(rows))}: {listed or 'none'}. {rule.fix}"
    return Finding(
        name=rule.name,
        severity=rule.severity,
        ok=bool(result.success),
        message=message,
        files=files,
        details=details,
        observed={"broken": len(rows), "of": len(table)},
    )


def _raised(info: Any) -> bool:
    """Whether GX caught an exception; it nests one report a metric, or gives one report."""
    if not isinstance(info, dict):
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(_raised(part) for part in info.values())
