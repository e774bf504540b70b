"""The core needs PyTorch, torchvision, timm, NumPy, safetensors and Pillow; nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib.util, os, pkgutil, sys

BLOCKED = {
    "mlflow", "prefect", "pandas", "pydantic", "pydantic_settings", "great_expectations", "dvc",
    "scipy", "sqlalchemy", "sklearn", "skimage", "matplotlib", "imagehash", "cryptography",
    "click", "rich", "rfc8785", "flask", "fastapi",
}

class Finder:
    # as if the blocked packages were not installed

    def __init__(self, others):
        self.others = others

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            return None
        found = (one.find_spec(name, path, target) for one in self.others)
        return next((spec for spec in found if spec is not None), None)

sys.meta_path[:] = [Finder(sys.meta_path[:])]
for name in BLOCKED:
    assert importlib.util.find_spec(name) is None
os.environ["HF_HUB_OFFLINE"] = "1"
import clr.core
modules = [one.name for one in pkgutil.iter_modules(clr.core.__path__, "clr.core.")]
for name in modules:
    importlib.import_module(name)
print(len(modules), "modules")
assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}

import torch
from pathlib import Path
from clr.core.adapter import AdapterSpec, load_adapter, new_adapter, save_adapter
from clr.core.backbone import load_backbone
from clr.core.images import Preprocessing
from clr.core.network import ReprogrammedNetwork
from clr.errors import ServiceUnavailable

backbone = load_backbone("tf_efficientnet_lite0")
how = Preprocessing(96, backbone.mean, backbone.std)
spec = AdapterSpec("parts", ("a", "b"), backbone.name, backbone.digest, how)
path = Path(sys.argv[1])
digest = save_adapter(new_adapter(spec, backbone), path)
network = ReprogrammedNetwork(backbone)
network.attach(load_adapter(path, backbone, digest))
print("logits", tuple(network.logits(torch.zeros(2, 3, 96, 96), "parts").shape))

try:
    load_backbone("resnet18.a1_in1k")
except ServiceUnavailable as error:
    print("offline:", error)
"""


def test_the_core_works_without_the_rest_of_the_pipeline_and_offline(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM, str(tmp_path / "adapter")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "logits (2, 2)" in done.stdout
    assert "offline: The pretrained weights of resnet18.a1_in1k are not on this" in done.stdout
    assert "tf_efficientnet_lite0" in done.stdout
