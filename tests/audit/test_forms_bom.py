"""CycloneDX: valid by the library's own schema validator, and read back by its own classes."""

from __future__ import annotations

import json

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from clr.audit.forms import bom
from clr.errors import UsageError
from tests.audit import documents


def read(text: str) -> Bom:
    """Return the bill of materials, valid by CycloneDX's strict schema."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: Bom = Bom.from_json(json.loads(text))
    return found


def properties(component: Component) -> dict[str, str | None]:
    return {one.name: one.value for one in component.properties}


@pytest.mark.parametrize("make", [documents.document, documents.old])
def test_the_librarys_validator_accepts_it(make):
    read(bom.render(make()))


def test_the_adapter_is_what_it_is_about_and_depends_on_all_others():
    found = read(bom.render(documents.document()))
    adapter = found.metadata.component
    assert (adapter.name, adapter.version) == ("clr-animals", "3")
    assert [one.content for one in adapter.hashes] == [
        documents.document()["adapter"]["digest"].removeprefix("sha256:")
    ]
    (needed,) = [one for one in found.dependencies if one.ref == adapter.bom_ref]
    assert {one.ref for one in needed.dependencies} == {one.bom_ref for one in found.components}


def test_backbone_data_and_libraries_are_components_with_licence_digest_and_version():
    found = {one.name: one for one in read(bom.render(documents.document())).components}
    backbone, data = found["tf_efficientnet_lite0"], found["data/animals"]
    assert backbone.type is ComponentType.MACHINE_LEARNING_MODEL
    assert [one.id for one in backbone.licenses] == ["Apache-2.0"]
    assert properties(backbone)["clr:state"] == documents.sha256("backbone")
    assert data.type is ComponentType.DATA
    assert properties(data)["clr:manifest"] == documents.sha256("manifest")
    assert found["torch"].purl.to_string() == "pkg:pypi/torch@2.11.0"


def test_a_licence_that_spdx_does_not_know_keeps_its_words():
    document = documents.document()
    document["backbone"]["licence"] = "research use only, ask ACME"
    found = {one.name: one for one in read(bom.render(document)).components}
    assert [one.name for one in found["tf_efficientnet_lite0"].licenses] == [
        "research use only, ask ACME"
    ]


def test_equal_documents_give_equal_bytes():
    assert bom.render(documents.document()) == bom.render(documents.document())


def test_without_a_digest_of_the_adapter_there_is_none():
    document = documents.document()
    document["adapter"]["digest"] = None
    with pytest.raises(UsageError, match="clr-animals/3"):
        bom.render(document)
