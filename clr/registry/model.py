"""An adapter as an MLflow pyfunc: what runs when somebody loads a registered version.

MLflow is imported at the top here, since the class derives from its own; import
this module inside functions. The backbone is loaded once per process and shared
by all loaded adapters; it is not part of the model, only its name and digest are.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd  # MLflow resolves the type hint of `predict`
from mlflow.pyfunc.model import PythonModel

from clr.errors import DataRefused, IntegrityBroken, UsageError

if TYPE_CHECKING:
    import torch

    from clr.core.adapter import Adapter
    from clr.core.images import Preprocessing
    from clr.core.network import ReprogrammedNetwork
    from clr.registry.store import Registry

_NETWORKS: dict[str, ReprogrammedNetwork] = {}
_USERS: Counter[tuple[str, str]] = Counter()
_LOCK = threading.RLock()
_BATCH = 32


def network_for(reference: Mapping[str, Any]) -> ReprogrammedNetwork:
    """Return this process's one network over the backbone that `reference` names.

    Args:
        reference: name, digest, and where needed architecture, sha256, pretrained.

    Raises:
        IntegrityBroken: the backbone found under that name has another digest.
    """
    from clr.core.backbone import load_backbone
    from clr.core.network import ReprogrammedNetwork

    wanted = str(reference["digest"])
    with _LOCK:
        if wanted not in _NETWORKS:
            backbone = load_backbone(
                str(reference["name"]),
                architecture=str(reference.get("architecture", "")),
                sha256=str(reference.get("sha256", "")),
                pretrained=bool(reference.get("pretrained", True)),
            )
            if backbone.digest != wanted:
                raise IntegrityBroken(
                    f"Backbone {reference['name']} has digest {backbone.digest}, "
                    f"but the adapter was trained on {wanted}.",
                    fix="Install the backbone's weights as they were; clr.env names them.",
                )
            _NETWORKS[wanted] = ReprogrammedNetwork(backbone)
        return _NETWORKS[wanted]


class AdapterModel(PythonModel):
    """Classifies encoded images (PNG, JPEG, …) with one adapter over the shared backbone."""

    def __init__(self) -> None:
        self._network: ReprogrammedNetwork | None = None
        self._adapter: Adapter | None = None
        self._name = ""

    def load_context(self, context: Any) -> None:
        """Load and check the adapter, and attach it to the shared backbone.

        Raises:
            IntegrityBroken: adapter file or backbone are not what the model says.
        """
        from clr.core.adapter import load_adapter

        reference = json.loads(Path(context.artifacts["backbone"]).read_text(encoding="utf-8"))
        network = network_for(reference)
        adapter = load_adapter(
            Path(context.artifacts["adapter"]),
            network.backbone,
            expected_digest=str(reference["adapter_digest"]),
        )
        self._name = f"pyfunc:{adapter.spec.task}@{reference['adapter_digest']}"
        self._network, self._adapter = network, adapter
        with _LOCK:
            if self._name not in network.names:
                network.attach(adapter, self._name)
            _USERS[network.backbone.digest, self._name] += 1
        weakref.finalize(self, _leave, network, self._name)

    def predict(
        self,
        context: Any,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Classify images.

        Args:
            context: of MLflow, not used.
            model_input: column ``image``: encoded image files as bytes or base64 text.
                Text is never taken for a path: who may predict must not read files.
            params: not used.

        Returns:
            One row an image, same index: ``label`` (str), ``probability`` (float, of that
            label), ``probabilities`` ({class: float}).

        Raises:
            UsageError: no column ``image``.
            DataRefused: a row is not an image; names the rows.
        """
        import torch

        if self._network is None or self._adapter is None:
            raise UsageError("This model is not loaded.", fix="Use mlflow.pyfunc.load_model.")
        if "image" not in model_input.columns:
            raise UsageError(
                f"The input has no column 'image' but {list(map(str, model_input.columns))}.",
                fix="Give a table with one column 'image': file contents, as bytes or base64.",
            )
        images, labels = list(model_input["image"]), self._adapter.spec.labels
        rows: list[list[float]] = []
        with torch.inference_mode():
            for batch in self._batches(images, self._adapter.spec.preprocessing):
                logits = self._network.logits(batch, self._name)
                rows += torch.softmax(logits.float(), dim=1).cpu().tolist()
        best = [max(range(len(row)), key=row.__getitem__) for row in rows]
        return pd.DataFrame(
            {
                "label": [labels[at] for at in best],
                "probability": [row[at] for row, at in zip(rows, best, strict=True)],
                "probabilities": [dict(zip(labels, row, strict=True)) for row in rows],
            },
            index=model_input.index,
        )

    @staticmethod
    def _batches(images: list[Any], preprocessing: Preprocessing) -> Iterator[torch.Tensor]:
        import torch

        from clr.core.images import decode, prepare

        for start in range(0, len(images), _BATCH):
            decoded = []
            for row, value in enumerate(images[start : start + _BATCH], start):
                with _naming(row):
                    decoded.append(
                        decode(
                            as_bytes(value),
                            preprocessing.size,
                            interpolation=preprocessing.interpolation,
                        )
                    )
            yield prepare(torch.stack(decoded), preprocessing)


def _leave(network: ReprogrammedNetwork, name: str) -> None:
    """Detach an adapter when the last loaded model that uses it is gone."""
    with _LOCK:
        used = (network.backbone.digest, name)
        _USERS[used] -= 1
        if not _USERS[used]:
            del _USERS[used]
            network.detach(name)


@contextmanager
def _naming(row: int) -> Iterator[None]:
    try:
        yield
    except DataRefused as error:
        raise DataRefused(f"Row {row}: {error.message}", fix=error.fix, row=row) from error


def as_bytes(value: Any) -> bytes:
    """Return the bytes of one cell: bytes as they are, text as base64.

    Raises:
        DataRefused: neither.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        try:
            return base64.b64decode(value.encode("ascii"), validate=False)
        except (binascii.Error, UnicodeEncodeError):
            pass
    raise DataRefused(
        f"Not an image: {type(value).__name__} that is neither bytes nor base64.",
        fix="Send the file's contents; a path is not read.",
    )


def load_version(registry: Registry, task: str, version: int | str) -> Any:
    """Load a registered adapter as pyfunc from `registry`.

    Args:
        registry: opened registry.
        task: task name.
        version: number or alias.

    Raises:
        UsageError: there is no such version.
        IntegrityBroken: adapter file or backbone are not what the model says.
        ServiceUnavailable: the registry cannot be reached.
    """
    import mlflow.pyfunc

    from clr.registry.faults import calling
    from clr.registry.store import as_default
    from clr.registry.versions import get_version

    uri = get_version(registry, task, version).uri
    with calling(registry.uri, f"load {uri}"), as_default(registry):
        return mlflow.pyfunc.load_model(uri)
