"""CycloneDX 1.6 (ECMA-424) bill of materials: adapter, backbone, data and the libraries.

The components have the types ``machine-learning-model``, ``data`` and ``library``. CycloneDX also
knows a ``modelCard`` inside a model; cyclonedx-python-lib cannot express it, so it is left out:
`clr.audit.forms.card` makes a model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clr.audit.forms.subject import adapter_digest, hexadecimal

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

Document = Mapping[str, Any]

_LIBRARIES = ("torch", "torchvision", "timm")


def render(document: Document) -> str:
    """Return the bill of materials as JSON; equal documents give equal bytes.

    Args:
        document: an audit, schema ``clr.audit/1``.

    Raises:
        UsageError: no digest of the adapter was recorded.
    """
    from datetime import datetime
    from uuid import NAMESPACE_URL, uuid5

    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    adapter = _adapter(document)
    time = document["asked"]["time"]
    used = [*_backbone(document["backbone"]), *_data(document), *_libraries(document)]
    bom = Bom(
        metadata=BomMetaData(component=adapter, timestamp=datetime.fromisoformat(time)),
        components=used,
        serial_number=uuid5(NAMESPACE_URL, f"{document['subject']} {adapter.version} {time}"),
    )
    bom.register_dependency(adapter, used)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _adapter(document: Document) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=document["subject"],
        name=f"clr-{document['task']}",
        version=str(document["version"]),
        description=document["title"] or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=adapter_digest(document))],
        properties=_properties(
            code=document["code"]["digest"],
            environment=document["environment"]["digest"],
            gate=document["gate"]["digest"],
            verdict=document["gate"]["verdict"],
            run=document["training"]["run_id"],
        ),
    )


def _backbone(backbone: Document) -> list[Component]:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    if not backbone["digest"]:
        return []
    file, licence = backbone["sha256"], backbone["licence"]
    return [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"backbone {backbone['digest']}",
            name=backbone["name"],
            licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hexadecimal(file))] if file else [],
            properties=_properties(
                state=backbone["digest"],
                source=backbone["source"],
                architecture=backbone["architecture"],
            ),
        )
    ]


def _data(document: Document) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType

    data = document["data"]
    if not data["digest"]:
        return []
    return [
        Component(
            type=ComponentType.DATA,
            bom_ref=f"data {data['digest']}",
            name=f"data/{document['task']}",
            properties=_properties(
                dvc=data["digest"], manifest=data["manifest"], commit=data["commit"]
            ),
        )
    ]


def _libraries(document: Document) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    versions = {name: document["environment"][name] for name in _LIBRARIES}
    return [
        Component(
            type=ComponentType.LIBRARY,
            bom_ref=f"{name} {version}",
            name=name,
            version=version,
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in versions.items()
        if version
    ]


def _properties(**facts: str | None) -> list[Any]:
    """Return what CycloneDX has no field for: digests over more than one file, and the like."""
    from cyclonedx.model import Property

    return [Property(name=f"clr:{name}", value=value) for name, value in facts.items() if value]
