"""Batch norm folded into convolutions and kernels: the same numbers with less work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from clr.core.adapter import Adapter, AdapterSpec
from clr.core.backbone import Backbone, state_digest
from clr.core.folding import folded
from clr.core.network import Program
from clr.errors import UsageError
from tests.core.test_network import ARCHITECTURES, FAMILIES

Load = Callable[[str], Backbone]
Shaken = Callable[..., Adapter]
MakeSpec = Callable[..., AdapterSpec]
FOLDED = {  # convolutions whose batch norm can be folded, of all
    "resnet10t": (14, 14),
    "densenet121": (59, 120),
    "mobilenetv2_035": (52, 52),
    "convnext_atto": (0, 40),
    "torchvision:shufflenet_v2_x0_5": (56, 56),
}


@pytest.mark.parametrize("variant", ["reduced", "full", "mix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_folded_and_unfolded_agree(
    family: str, variant: str, load: Load, shaken: Shaken, batch: Tensor
) -> None:
    backbone = load(ARCHITECTURES[family])
    tensors = shaken(backbone, variant=variant).tensors
    plain, fold = Program(backbone, tensors), Program(backbone, tensors, fold=True)
    with torch.inference_mode():
        wanted = plain.features(batch)
        difference = (fold.features(batch) - wanted).abs().max() / wanted.abs().max()
        assert float(difference) < 2e-5  # 1.0e-5 on one processor, less on others
        assert torch.equal(plain.features(batch), wanted)
    backbone.check()


@pytest.mark.parametrize(("name", "counts"), FOLDED.items())
def test_every_batch_norm_right_behind_a_convolution_is_folded(
    name: str, counts: tuple[int, int], load: Load
) -> None:
    backbone = load(name)
    assert (len(folded(backbone)), len(backbone.convolutions)) == counts


def test_gradients_agree_too(backbone: Backbone, shaken: Shaken, batch: Tensor) -> None:
    found = []
    for fold in (False, True):
        tensors = {n: t.requires_grad_() for n, t in shaken(backbone).tensors.items()}
        Program(backbone, tensors, fold=fold).logits(batch).square().sum().backward()
        found.append({name: tensor.grad for name, tensor in tensors.items()})
    for name, gradient in found[0].items():
        assert gradient is not None
        scale = float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(
            found[1][name],
            gradient,
            rtol=1e-4,
            atol=1e-4 * scale,
            msg=lambda m, n=name: f"{n}: {m}",
        )


class ReadTwice(nn.Module):
    """A network whose first convolution feeds a batch norm and a branch around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.last(self.second(self.norm(x).relu() + x[:, :]))
        return x.mean((2, 3))


def test_a_convolution_that_something_else_reads_too_is_left_alone(backbone: Backbone) -> None:
    torch.manual_seed(0)
    module = ReadTwice().eval().requires_grad_(False)
    for norm in (module.norm, module.last):
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    convolutions = {"first": module.first, "second": module.second}
    other = replace(backbone, module=module, convolutions=convolutions, digest=state_digest(module))
    assert list(folded(other)) == ["second"]


def test_a_training_after_serving_finds_tensors_that_it_can_differentiate(
    fresh: Callable[[], Backbone], shaken: Shaken, batch: Tensor
) -> None:
    backbone = fresh()
    with torch.inference_mode():
        folded(backbone)
    tensors = {n: t.requires_grad_() for n, t in shaken(backbone).tensors.items()}
    Program(backbone, tensors, fold=True).logits(batch).sum().backward()
    assert all(tensor.grad is not None for tensor in tensors.values())


def test_batch_norms_of_the_task_s_own_are_not_folded(backbone: Backbone, shaken: Shaken) -> None:
    tensors = shaken(backbone, batch_norm="affine").tensors
    with pytest.raises(UsageError, match="cannot be folded"):
        Program(backbone, tensors, fold=True)
