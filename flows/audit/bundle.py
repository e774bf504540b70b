"""A signed bundle: a registered model's folder as it is fetched, its signature, whose key it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flows import provenance

if TYPE_CHECKING:
    from clr.audit.document import Document
    from flows.session import Session

SIGNATURE_FILE = "model.sig"
ENDORSEMENT_FILE = "endorsement.json"


def write_bundle(session: Session, document: Document, home: Path) -> None:
    """Write a folder with the model, its signature, the public key and the ledger's word for it.

    Args:
        session: the workspace.
        document: the audit of the version; nothing is signed where it found a broken link.
        home: a folder that does not exist; it appears whole or not at all.

    Raises:
        IntegrityBroken: a link of the chain is broken, or the fetched adapter is another.
        ServiceUnavailable: registry or ledger cannot be reached, or `home` not be written.
    """
    from clr.audit.forms import signing
    from clr.audit.forms.subject import require_intact
    from clr.data.whole import appearing
    from clr.registry.bundle import fetch_bundle
    from clr.registry.store import model_name

    require_intact(document)
    home = home.absolute()
    task, version = document["task"], document["version"]
    key = signing.bundle_key(session.ledger.keys)
    actor, authentication = provenance.identity(session.registry)
    entry = signing.endorse(session.ledger, key, actor=actor, authentication=authentication)
    with appearing(home, f"The bundle {home} cannot be written") as folder:
        model = folder / f"{model_name(task)}-{version}"
        fetch_bundle(session.registry, model_name(task), version, model)
        _require_adapter(document, model)
        (folder / SIGNATURE_FILE).write_bytes(signing.sign(model, key))
        (folder / signing.PUBLIC_NAME).write_bytes(key.public)
        (folder / ENDORSEMENT_FILE).write_text(json.dumps(asdict(entry), indent=1) + "\n")


def _require_adapter(document: Document, model: Path) -> None:
    from clr.core.files import sha256_file
    from clr.errors import IntegrityBroken
    from clr.registry.package import ADAPTER_FILE

    file = model / ADAPTER_FILE
    found = sha256_file(file) if file.is_file() else "none"
    if found != document["adapter"]["digest"]:
        raise IntegrityBroken(
            f"The adapter that was fetched for {document['subject']} is {found}, not "
            f"{document['adapter']['digest']}. Nothing was signed.",
            fix="Run `clr verify`, then restore the registered file from a backup.",
        )
