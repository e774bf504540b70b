"""What was seen of an adapter on its test split, kept so that the gate can compare with it.

One safetensors file per registered version: predictions item by item, the
answers of the baselines, projected features for the router, its statistics, and
the logits of canary inputs. Its digest is recorded with the version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from clr.core.adapter import adapter_bytes, adapter_digest
from clr.core.described import Floats, TaskStatistics
from clr.core.evaluate import Labels
from clr.core.files import canonical_json, sha256_bytes
from clr.core.images import Preprocessing, prepare
from clr.core.network import ReprogrammedNetwork
from clr.errors import IntegrityBroken

SCHEMA = "clr.evidence/1"
CANARIES = 2
CANARY_SIZE = 64
"""Side in pixels: the smallest at which every tap of a kernel acts on the usual backbones."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything the gate has to know of one version, without its images.

    Attributes:
        about: facts as text and numbers: task, labels, adapter, backbone, preprocessing,
            environment, test (digest of the test files), majority, params_pct,
            adapter_bytes, latencies in ms, and the digests of `digests`.
        labels: int64 [n], true labels of the test items.
        predicted: int64 [n], the adapter's.
        probe: int64 [n], the linear probe's.
        features: float32 [n, d], projected features of the test items for the router.
        statistics: of the training items, for the router; None in what is `slim`.
        canary: float32 [CANARIES, classes], logits of `canary_logits`.
        confidence: float32 [n], probability of the label in `predicted`; None in evidence of
            earlier versions of this project.
    """

    about: Mapping[str, Any]
    labels: Labels
    predicted: Labels
    probe: Labels
    features: Floats
    statistics: TaskStatistics | None
    canary: Floats
    confidence: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not n == len(self.predicted) == len(self.probe) == len(self.features):
            raise IntegrityBroken("The evidence's arrays have different lengths.")
        sure = self.confidence
        if sure is not None and (sure.shape != (n,) or not ((sure >= 0) & (sure <= 1)).all()):
            raise IntegrityBroken("The evidence's confidences are not one probability an item.")

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.about["task"])

    @property
    def canary_digest(self) -> str:
        """The sha256 of the canary logits' bytes."""
        return logits_digest(self.canary)

    def slim(self) -> Evidence:
        """Return the same without statistics, most of its size: for who holds that of all tasks."""
        return replace(self, statistics=None)

    @property
    def described(self) -> TaskStatistics:
        """The statistics.

        Raises:
            IntegrityBroken: this is `slim`.
        """
        if self.statistics is None:
            raise IntegrityBroken(f"The evidence of {self.task} is without its statistics.")
        return self.statistics

    def to_bytes(self) -> bytes:
        """Return the evidence file's bytes; equal evidence gives equal bytes."""
        arrays = {
            "labels": self.labels,
            "predicted": self.predicted,
            "probe": self.probe,
            "features": self.features,
            "counts": self.described.counts,
            "means": self.described.means,
            "scatter": self.described.scatter,
            "canary": self.canary,
        }
        if self.described.calibration is not None:
            arrays["calibration"] = self.described.calibration
        if self.confidence is not None:
            arrays["confidence"] = self.confidence
        about = canonical_json({"schema": SCHEMA, **self.about}).decode()
        data: bytes = safetensors.numpy.save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"about": about}
        )
        return data


def parse_evidence(data: bytes, expected_digest: str) -> Evidence:
    """Return the evidence whose file has the bytes `data`.

    Raises:
        IntegrityBroken: another digest than `expected_digest`, or not such a file.
    """
    if sha256_bytes(data) != expected_digest:
        raise IntegrityBroken(
            f"A task's evidence has {sha256_bytes(data)}, not {expected_digest}.",
            fix="Delete the local copy (CLR_HOME/cache/evidence); the registry's is fetched.",
        )
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["about"])
        if about.pop("schema") != SCHEMA or "task" not in about:
            raise ValueError("unknown schema, or no task")
        one = dict(safetensors.numpy.load(data))
        statistics = TaskStatistics(
            one["counts"], one["means"], one["scatter"], one.get("calibration")
        )
        return Evidence(
            about, one["labels"], one["predicted"], one["probe"],
            one["features"], statistics, one["canary"], one.get("confidence"),
        )  # fmt: skip
    except IntegrityBroken:
        raise
    except Exception as error:  # a hostile file can fail in any of these steps
        raise IntegrityBroken(f"A task's evidence is not of the form {SCHEMA}: {error}.") from error


@lru_cache(maxsize=8)  # most tasks of a workspace share one way
def canary_input(preprocessing: Preprocessing) -> Tensor:
    """Return the canary images, prepared as the task's images are: [CANARIES, 3, S, S].

    Seeded noise: every kernel, mean and standard deviation leaves its mark on the logits.
    Nobody writes to them: they are the same tensor for every task of one preprocessing.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (CANARIES, 3, CANARY_SIZE, CANARY_SIZE)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return prepare(pixels, preprocessing)


def canary_logits(network: ReprogrammedNetwork, name: str) -> Floats:
    """Return float32 [CANARIES, classes] through the very object that serves."""
    preprocessing = network.adapter(name).spec.preprocessing
    logits: Floats = network.logits(canary_input(preprocessing), name).float().cpu().numpy()
    return logits


def attached_digest(network: ReprogrammedNetwork, name: str) -> str:
    """Return the digest of the adapter as it is in memory: equal to its file's if unharmed."""
    adapter = network.adapter(name)
    try:
        return adapter_digest(adapter)
    except IntegrityBroken:  # harmed, so that no file of its storage holds it: another digest
        spec = replace(adapter.spec, storage="float32")
        return sha256_bytes(adapter_bytes(replace(adapter, spec=spec)))


def preprocessing_digest(preprocessing: Preprocessing) -> str:
    """Return the digest of how an image becomes an input."""
    fields = [
        preprocessing.size,
        preprocessing.mean,
        preprocessing.std,
        preprocessing.interpolation,
    ]
    return sha256_bytes(canonical_json(fields))


def logits_digest(logits: NDArray[np.float32]) -> str:
    """Return the sha256 of logits, bit by bit."""
    return sha256_bytes(np.ascontiguousarray(logits, dtype=np.float32).tobytes())


def files_digest(entries: list[tuple[str, str]]) -> str:
    """Return the digest of a set of files from (path, ``sha256:…``) pairs, in any order."""
    return sha256_bytes(canonical_json(sorted(entries)))


def read_evidence(path: Path, expected_digest: str) -> Evidence:
    """Read an evidence file.

    Raises:
        IntegrityBroken: missing, or see `parse_evidence`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityBroken(
            f"The evidence {path} cannot be read: {error.strerror}.",
            fix="Restore it from a backup of the registry.",
        ) from error
    return parse_evidence(data, expected_digest)
