"""The forms of an export, each made of the document alone; a form's libraries load when asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clr.audit.document import Document

_FORMS = {
    "text": "flows.audit.text:render",
    "html": "clr.audit.page:render",
    "json": "flows.audit.rendered:as_json",
    "intoto": "clr.audit.forms.intoto:render",
    "openlineage": "clr.audit.forms.openlineage:render",
    "card": "clr.audit.forms.card:render",
    "cyclonedx": "clr.audit.forms.bom:render",
}
"""Form -> module and function that makes it."""

FORMS = tuple(_FORMS)
BUNDLE = "model-signing"
"""The form that is made of the registered files, too: see `flows.audit.bundle`."""

_SIGNED = frozenset({"intoto"})
"""Forms that are made of the document and the ledger's signing key."""


def render(document: Document, form: str, keys: Path) -> str:
    """Return a document in one of `FORMS`.

    Args:
        document: the answer.
        form: one of `FORMS`.
        keys: folder of the ledger's keys, for a form that is signed.
    """
    from clr.audit.signing import load_signer

    module, _, function = _FORMS[form].partition(":")
    make: Callable[..., Any] = getattr(import_module(module), function)
    return str(make(document, load_signer(keys)) if form in _SIGNED else make(document))


def as_json(document: Document) -> str:
    """Return the document as JSON, for people and machines."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
