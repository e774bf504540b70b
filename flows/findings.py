"""What `clr verify` names: every kind of damage, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BACKUP = "Restore it from a backup; promote nothing until it is explained."
_ROW = "Find out who wrote to the registry's database, put the row right, promote nothing before."

KINDS: Mapping[str, str] = MappingProxyType({
    "adapter-changed": f"Serve another version, or restore the adapter's file. {BACKUP}",
    "alias-moved": f"The release service puts aliases back (`clr promote`, `clr up`). {_ROW}",
    "backbone-changed": "Put the pinned weights back; no adapter was made for these.",
    "champion-unapproved": "Roll back, or have exactly these bytes reviewed. Ask who promoted it.",
    "data-changed": "`dvc checkout` brings the pinned files back; `dvc pull` fetches them.",
    "data-object-changed": "Remove the damaged copy, then `dvc pull` or `dvc push` from the good "
    "one; without a good one, restore it from a backup.",
    "data-repinned": "If it is a new version of yours, onboard it; else `git checkout data.dvc` "
    "and `dvc checkout`.",
    "evidence-changed": BACKUP,
    "file-changed": BACKUP,
    "gate-mismatch": "Run the gate again: onboard the task once more, or roll back.",
    "gate-report-changed": BACKUP,
    "param-edited": _ROW,
    "quarantine-changed": "Believe the ledger, not the folder; bring the images in again.",
    "registry-unreadable": "See the message; `clr verify` goes on where it can.",
    "release-broken-chain": BACKUP,
    "release-changed": f"Roll back to a release that is whole. {BACKUP}",
    "release-missing": BACKUP,
    "release-moved": "`clr rollback --to` the release that the ledger names. Ask who moved it.",
    "router-changed": "Restore the evidence of the tasks of the release from a backup.",
    "source-moved": _ROW,
    "tag-edited": _ROW,
    "version-missing": BACKUP,
    "version-unrecorded": "If an onboarding was killed here, the same `clr onboard` completes it; "
    "else find out who added it, and promote nothing of it.",
})  # fmt: skip
"""Kind of problem -> what to do. The ledger's own kinds (clr/audit/) begin with ``ledger-``."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as recorded.

    Attributes:
        subject: what it is about, as registry and ledger call it, or a file.
        kind: one of `KINDS`, or ``ledger-…``.
        message: what is wrong, to be read after the subject.
        fix: what to do; empty: what `KINDS` says.
    """

    subject: str
    kind: str
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding as one JSON-serialisable object."""
        fix = self.fix or KINDS.get(self.kind, "")
        return {
            "subject": self.subject, "kind": self.kind, "message": self.message, "fix": fix,
        }  # fmt: skip
