"""What goes into OpenLineage's run and comes out of it, as data sets with their facets.

A data set's version is the digest of its bytes, so that equal ones meet in the graph that a
receiver draws over many runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clr.audit.forms.subject import adapter_digest

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

Document = Mapping[str, Any]

PRODUCER = "urn:clr:audit"
"""What made event and facets."""

_MANIFEST = (
    ("path", "string", "below the task's folder"),
    ("sha256", "string", "of the image's bytes"),
    ("split", "string", "train or test"),
)


def inputs(document: Document) -> list[InputDataset]:
    """Return the task's data and the backbone, as far as their digests were recorded."""
    return [*_data(document), *_backbone(document)]


def _data(document: Document) -> list[InputDataset]:
    from openlineage.client import facet_v2 as facet
    from openlineage.client.event_v2 import InputDataset

    data, checked = document["data"], document["validation"]
    if not data["digest"]:
        return []
    labels = ("class", "string", ", ".join(data["classes"] or ()))
    fields = [
        facet.schema_dataset.SchemaDatasetFacetFields(name, kind, words)
        for name, kind, words in (*_MANIFEST, labels)
    ]
    facets = {
        "schema": facet.schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER),
        **_identity(
            data["digest"],
            "FILE",
            manifest=data["manifest"],
            data_dvc=data["dvc_file"],
            git_commit=data["commit"],
            remote=data["remote"],
        ),
    }
    found: dict[str, Any] = {}
    if data["train"] is not None and data["test"] is not None:
        count = data["train"] + data["test"]
        found["inputStatistics"] = (
            facet.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=count, fileCount=count, producer=PRODUCER
            )
        )
    if checked["success"] is not None:
        found["dataQualityAssertions"] = (
            facet.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
                _assertions(checked), producer=PRODUCER
            )
        )
    return [
        InputDataset(
            namespace(document), f"data/{document['task']}", facets=facets, inputFacets=found
        )
    ]


def _assertions(checked: Document) -> list[Any]:
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality

    suite = quality.Assertion(
        assertion="great_expectations.suite",
        success=checked["success"],
        severity="error",
        description=f"{checked['expectations']} expectations; report {checked['digest']}",
    )
    warned = (
        quality.Assertion(assertion="warning", success=False, severity="warn", description=words)
        for words in checked["warnings"] or ()
    )
    return [suite, *warned]


def _backbone(document: Document) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset

    backbone = document["backbone"]
    if not backbone["digest"]:
        return []
    facets = _identity(
        backbone["digest"],
        "MODEL",
        source=backbone["source"],
        licence=backbone["licence"],
        architecture=backbone["architecture"],
        file=backbone["sha256"],
    )
    return [InputDataset(namespace(document), f"backbone/{backbone['name']}", facets=facets)]


def output(document: Document) -> OutputDataset:
    """Return the adapter.

    Raises:
        UsageError: no digest of it was recorded.
    """
    from openlineage.client import facet_v2 as facet
    from openlineage.client.event_v2 import OutputDataset

    adapter = document["adapter"]
    statistics = facet.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        size=adapter["bytes"], fileCount=1, producer=PRODUCER
    )
    return OutputDataset(
        namespace(document),
        f"clr-{document['task']}",
        facets=_identity(
            f"sha256:{adapter_digest(document)}", "MODEL", version=str(document["version"])
        ),
        outputFacets={"outputStatistics": statistics},
    )


def _identity(digest: str, kind: str, **tags: str | None) -> dict[str, Any]:
    """Return the facets that say which bytes a data set is."""
    from openlineage.client import facet_v2 as facet

    return {
        "version": facet.dataset_version_dataset.DatasetVersionDatasetFacet(
            digest, producer=PRODUCER
        ),
        "datasetType": facet.dataset_type_dataset.DatasetTypeDatasetFacet(kind, producer=PRODUCER),
        "tags": facet.tags_dataset.TagsDatasetFacet(
            [
                facet.tags_dataset.TagsDatasetFacetFields(*pair, source="clr")
                for pair in known(tags)
            ],
            producer=PRODUCER,
        ),
    }


def namespace(document: Document) -> str:
    """Return what names are unique in: the registry's address, ``clr`` where it has none."""
    return document["registry"]["address"] or "clr"


def known(facts: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Return the facts that were recorded."""
    return [(name, value) for name, value in facts.items() if value]
