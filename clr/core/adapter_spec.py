"""What an adapter is for, as the header of its file says it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from clr import __version__
from clr.core.compress import STORAGES, Storage
from clr.core.images import Preprocessing
from clr.core.sites import BATCH_NORMS, BatchNorm, Variant
from clr.errors import IntegrityBroken, UsageError

SCHEMA = "clr.adapter/2"
DENSE_SCHEMA = "clr.adapter/1"
"""Of files that hold each tensor in full and as float32; read for ever, not written anew."""
_TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter is for; stored in its file and part of its identity.

    Attributes:
        task: task name.
        labels: class names in the order of the head's rows.
        backbone: name of the backbone.
        backbone_digest: of its state.
        preprocessing: from image file to input.
        variant: ``reduced`` (k×k convolutions), ``full`` (1×1 too) or ``mix`` (reduced and a
            low-rank 1×1 mixing of channels once a block).
        batch_norm: ``frozen`` (the backbone's, nothing stored), ``affine`` (weight and bias
            trained) or ``batch`` (statistics too).
        rank: of the channel mixing; used by ``mix`` only.
        recipe: how it was trained; for the record.
        storage: how the file holds its tensors, see `clr.core.compress`.
        library: version of this package.
        schema: version of the file's form.
    """

    task: str
    labels: tuple[str, ...]
    backbone: str
    backbone_digest: str
    preprocessing: Preprocessing
    variant: Variant = "reduced"
    batch_norm: BatchNorm = "frozen"
    rank: int = 4
    recipe: Mapping[str, Any] = field(default_factory=dict)
    storage: Storage = "float32"
    library: str = __version__
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not isinstance(self.labels, list | tuple):
            raise UsageError("The labels must be a list of names.")
        object.__setattr__(self, "labels", tuple(self.labels))
        if isinstance(self.preprocessing, Mapping):
            object.__setattr__(self, "preprocessing", Preprocessing(**self.preprocessing))
        texts = (self.task, self.backbone, self.backbone_digest, self.library, *self.labels)
        if not all(isinstance(text, str) for text in texts):
            raise UsageError("Task, labels, backbone, digest and library must be text.")
        if not isinstance(self.preprocessing, Preprocessing):
            raise UsageError("The preprocessing is missing.")
        if not isinstance(self.recipe, Mapping):
            raise UsageError("The recipe must be a mapping of settings.")
        if not _TASK.fullmatch(self.task):
            raise UsageError(f"{self.task!r} is not a task name.", fix="Use a-z, 0-9 and dashes.")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise UsageError(f"Task {self.task} needs two different labels or more.")
        if self.variant not in get_args(Variant) or self.batch_norm not in BATCH_NORMS:
            raise UsageError(
                f"Unknown variant {self.variant!r} or batch norm {self.batch_norm!r}.",
                fix="Variants: reduced, full, mix; batch norm: frozen, affine, batch.",
            )
        if self.storage not in STORAGES or self.schema not in (SCHEMA, DENSE_SCHEMA):
            raise UsageError(
                f"Unknown storage {self.storage!r} or schema {self.schema!r}.",
                fix=f"Storages: {', '.join(STORAGES)}.",
            )
        if self.schema == DENSE_SCHEMA and self.storage != "float32":
            raise UsageError(f"A file of schema {DENSE_SCHEMA} holds float32, not {self.storage}.")
        if type(self.rank) is not int or not 1 <= self.rank <= 64:
            raise UsageError(f"The rank {self.rank!r} is not a whole number between 1 and 64.")


def spec_fields(spec: AdapterSpec) -> dict[str, Any]:
    """Return a spec as its file has it: what `dataclasses.asdict` does, without its deep copies."""
    fields = {**vars(spec), "preprocessing": vars(spec.preprocessing)}
    if spec.schema == DENSE_SCHEMA:
        del fields["storage"]
    return fields


def parse_spec(data: bytes, where: str) -> AdapterSpec:
    """Return the spec in the header of an adapter file.

    Args:
        data: the file's bytes.
        where: the file, as the subject of a sentence.

    Raises:
        IntegrityBroken: an unknown schema, or no spec of an adapter.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        fields = json.loads(header["__metadata__"]["spec"])
        if fields["schema"] not in (SCHEMA, DENSE_SCHEMA):
            raise IntegrityBroken(
                f"{where} has the schema {fields['schema']!r}; this version reads "
                f"{DENSE_SCHEMA} and {SCHEMA}.",
                fix="Use the version of clr that wrote it, or a newer one.",
            )
        if ("storage" in fields) != (fields["schema"] == SCHEMA):
            raise ValueError("the storage is missing, or not of its schema")
        return AdapterSpec(**fields)
    except IntegrityBroken:
        raise
    except Exception as error:  # a hostile header can fail in any of these steps
        raise IntegrityBroken(
            f"{where} does not say what it is for: {error!s:.300}", fix="Fetch it again."
        ) from error
