"""The folder of a registered adapter, file by file."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
import yaml
from PIL import Image

from clr.registry.package import ADAPTER_FILE, BACKBONE_FILE, CODE_FILE, write_package


@pytest.fixture
def folder(network, tmp_path):
    write_package(
        tmp_path, network.one.path, network.reference,
        model_id="m-" + "1" * 32, run_id="2" * 32, facts={"clr.task": "animals"}, card="# Card",
    )  # fmt: skip
    return tmp_path


def test_the_adapter_is_the_same_bytes(folder, network):
    assert (folder / ADAPTER_FILE).read_bytes() == network.one.path.read_bytes()


def test_the_backbone_is_a_reference(folder, network):
    stored = json.loads((folder / BACKBONE_FILE).read_bytes())
    assert stored == {
        "adapter_digest": network.one.digest, "architecture": "", "digest": network.backbone.digest,
        "licence": "", "name": "resnet10t", "pretrained": False, "sha256": "", "source": "",
    }  # fmt: skip


def test_the_model_is_code_not_a_pickle(folder):
    stored = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = stored["flavors"]["python_function"]
    assert flavor["model_code_path"] == CODE_FILE
    assert flavor["loader_module"] == "mlflow.pyfunc.loaders.code_model"
    assert {one["path"] for one in flavor["artifacts"].values()} == {ADAPTER_FILE, BACKBONE_FILE}
    assert not re.search("pickle|python_model:|joblib", (folder / "MLmodel").read_text())
    assert "set_model(AdapterModel())" in (folder / CODE_FILE).read_text()
    assert stored["metadata"] == {"clr.task": "animals"}
    assert json.loads(stored["signature"]["inputs"])[0]["type"] == "binary"


def test_what_it_needs_is_pinned(folder):
    lines = (folder / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in pinned)
    assert {"mlflow", "torch", "timm", "safetensors"} <= {line.split("==")[0] for line in pinned}
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    assert conda["dependencies"][2]["pip"] == pinned
    python = yaml.safe_load((folder / "python_env.yaml").read_text())
    assert python["dependencies"] == ["-r requirements.txt"]


def test_the_example_is_an_image(folder):
    example = json.loads((folder / "input_example.json").read_text())
    served = json.loads((folder / "serving_input_example.json").read_text())
    assert served == {"dataframe_split": example}
    image = Image.open(io.BytesIO(base64.b64decode(example["data"][0][0])))
    assert image.size == (32, 32)
