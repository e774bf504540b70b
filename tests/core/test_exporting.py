"""One task's network by itself answers as the registered adapter does, in every form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clr.core import export_formats
from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.export_formats import FORMS, Form
from clr.core.exporting import standalone
from clr.core.network import Program
from clr.errors import IntegrityBroken
from tests.core.test_network import ARCHITECTURES, EXHAUSTIVE, FAMILIES

Load = Callable[[str], Backbone]
Shaken = Callable[..., Adapter]
SIDE = 48
SPEC = {
    "task": "parts",
    "version": 3,
    "labels": ["bolt", "nut", "washer"],
    "preprocessing": {"size": SIDE, "mean": [0.5], "std": [0.5], "interpolation": "bilinear"},
    "library": "1",
}


def images(count: int, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def agree(found: Tensor, wanted: Tensor) -> None:
    """Up to the last bits: 1.1e-5 on one processor, less on others."""
    assert float((found - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("variant", ["reduced", *EXHAUSTIVE])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_by_itself_answers_as_the_adapter_in_the_shared_backbone(
    family: str, variant: str, load: Load, shaken: Shaken
) -> None:
    backbone = load(ARCHITECTURES[family])
    adapter = shaken(backbone, variant=variant)
    network = standalone(backbone, adapter)
    with torch.inference_mode():
        agree(network(images(3, 64)), Program(backbone, adapter.tensors).logits(images(3, 64)))
    backbone.check()


def test_what_is_at_identity_is_left_out(backbone: Backbone, shaken: Shaken) -> None:
    adapter = shaken(backbone)
    kernel = adapter.tensors["kernels.conv1.0"]
    kernel.zero_()
    kernel[:, 0, 1, 1] = 1
    network = standalone(backbone, adapter)
    kernels = [n for n in adapter.tensors if n.startswith("kernels.")]
    found = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(found) == len(backbone.convolutions) + len(kernels) - 1
    with torch.inference_mode():
        agree(network(images(3)), Program(backbone, adapter.tensors).logits(images(3)))


@pytest.mark.parametrize("batch_norm", ["affine", "batch"])
@pytest.mark.parametrize("variant", ["reduced", *EXHAUSTIVE])
def test_batch_norms_of_the_task_s_own_go_with_it(
    variant: str, batch_norm: str, backbone: Backbone, shaken: Shaken
) -> None:
    adapter = shaken(backbone, variant=variant, batch_norm=batch_norm)
    with torch.inference_mode():
        wanted = Program(backbone, adapter.tensors).logits(images(3))
        agree(standalone(backbone, adapter)(images(3)), wanted)


def test_nothing_of_the_shared_backbone_is_changed_or_shared(
    backbone: Backbone, shaken: Shaken
) -> None:
    adapter = shaken(backbone)
    before = Program(backbone, adapter.tensors).logits(images(1))
    network = standalone(backbone, adapter)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    assert torch.equal(Program(backbone, adapter.tensors).logits(images(1)), before)
    backbone.check()


def test_an_adapter_of_another_backbone_is_refused(
    backbone: Backbone, load: Load, shaken: Shaken
) -> None:
    with pytest.raises(IntegrityBroken):
        standalone(backbone, shaken(load("resnet10t")))


def write(form: Form, folder: Path, network: torch.nn.Module) -> Path:
    path = folder / export_formats.name_of(form, "parts", 3)
    for name, data in export_formats.write(form, network, SIDE, SPEC).items():
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_read_back_gives_the_same_logits_for_any_number_of_images(
    form: Form, backbone: Backbone, shaken: Shaken, tmp_path: Path
) -> None:
    adapter = shaken(backbone, variant="mix", batch_norm="affine")
    path = write(form, tmp_path, standalone(backbone, adapter))
    again = export_formats.read(form, path)
    program = Program(backbone, adapter.tensors)
    with torch.inference_mode():
        for count in (1, 2, 5):
            agree(again(images(count)), program.logits(images(count)))


def test_onnx_says_what_it_is_for(backbone: Backbone, shaken: Shaken, tmp_path: Path) -> None:
    import onnxruntime

    path = write("onnx", tmp_path, standalone(backbone, shaken(backbone)))
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["task"] == "parts"
    assert json.loads(facts["labels"]) == SPEC["labels"]
    assert json.loads(facts["preprocessing"]) == SPEC["preprocessing"]
    (given,) = session.get_inputs()
    assert (given.name, given.shape[1:]) == ("images", [3, SIDE, SIDE])
    assert not isinstance(given.shape[0], int)


def test_a_bundle_needs_nothing_but_torch_and_safetensors(
    backbone: Backbone, shaken: Shaken, tmp_path: Path
) -> None:
    """As its README says it, in a process that cannot import anything of ours or timm."""
    adapter = shaken(backbone)
    path = write("safetensors-bundle", tmp_path, standalone(backbone, adapter))
    assert sorted(one.name for one in path.iterdir()) == [
        "README.md", "model.py", "spec.json", "weights.safetensors",
    ]  # fmt: skip
    _, _, code = (path / "README.md").read_text(encoding="utf-8").partition("```python\n")
    code = code.partition("```")[0]
    forbid = "import sys; sys.modules.update(dict.fromkeys(['clr', 'timm', 'torchvision']))\n"
    done = subprocess.run(
        [sys.executable, "-c", forbid + code], cwd=path, capture_output=True, text=True, check=True
    )
    with torch.inference_mode():
        wanted = Program(backbone, adapter.tensors).logits(torch.zeros(1, 3, SIDE, SIDE))
    assert done.stdout.strip() == SPEC["labels"][int(wanted.argmax())]
