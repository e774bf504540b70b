"""Where an adapter acts in a backbone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clr.core.backbone import Backbone
from clr.core.sites import batch_norm_sites, is_idle, kernel_sites, late_sites, mixing_sites
from clr.errors import UsageError
from tests.benchmarks.backbones import as_row, measure

Load = Callable[[str], Backbone]
NAMES = ("test_resnet", "test_efficientnet", "test_convnext", "torchvision:mobilenet_v3_small")


def output_shapes(backbone: Backbone, side: int) -> dict[str, tuple[int, int]]:
    """Return height and width of each convolution's output for an image of this side."""
    shapes: dict[str, tuple[int, int]] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, out, path=path: shapes.__setitem__(path, tuple(out.shape[2:]))
        )
        for path, module in backbone.convolutions.items()
    ]
    backbone.module(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_reduced_and_mix_follow_every_spatial_convolution(name: str, load: Load) -> None:
    backbone = load(name)
    spatial = tuple(p for p, m in backbone.convolutions.items() if max(m.kernel_size) > 1)
    assert kernel_sites(backbone, "reduced") == kernel_sites(backbone, "mix") == spatial


@pytest.mark.parametrize("name", NAMES)
def test_full_follows_every_convolution_that_gives_more_than_a_pixel(name: str, load: Load) -> None:
    backbone = load(name)
    shapes = output_shapes(backbone, 160)
    assert kernel_sites(backbone, "full") == tuple(
        path for path in backbone.convolutions if shapes[path] != (1, 1)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_late_ones_are_those_whose_output_is_small(name: str, stride: int, load: Load) -> None:
    backbone = load(name)
    shapes = output_shapes(backbone, 256)
    assert late_sites(backbone, stride) == {
        path for path, (side, _) in shapes.items() if side * stride <= 256
    }


def test_where_no_kernel_would_be_late_all_are(load: Load) -> None:
    backbone = load("test_resnet")
    assert late_sites(backbone, 1000) == {*backbone.convolutions}


def test_idle_is_what_is_identity_and_learns_nothing() -> None:
    identity = torch.zeros(4, 1, 3, 3)
    identity[:, 0, 1, 1] = 1
    assert is_idle(identity)
    assert not is_idle(identity.clone().requires_grad_())
    assert not is_idle(2 * identity)
    for place in ((0, 0, 1, 1), (3, 0, 0, 0), (1, 0, 2, 1)):
        moved = identity.clone()
        moved[place] += 1e-6
        assert not is_idle(moved)
        moved[place] = float("nan")
        assert not is_idle(moved)


def test_sites_do_not_depend_on_what_others_compute_meanwhile(
    fresh: Callable[[], Backbone],
) -> None:
    expected = kernel_sites(fresh(), "full")
    stop, backbone = threading.Event(), fresh()

    def disturb() -> None:
        while not stop.is_set():
            backbone.module(torch.zeros(1, 3, 1, 1))  # every map is a single pixel

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        found = kernel_sites(backbone, "full")
    finally:
        stop.set()
        thread.join()
    assert found == expected


def test_finding_sites_leaves_no_hook(fresh: Callable[[], Backbone]) -> None:
    backbone = fresh()
    kernel_sites(backbone, "full")
    assert not any(m._forward_hooks for m in backbone.module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_mixing_is_once_in_each_module_that_holds_spatial_convolutions(
    name: str, load: Load
) -> None:
    backbone = load(name)
    spatial, mixing = kernel_sites(backbone, "reduced"), mixing_sites(backbone)
    holders = [path.rpartition(".")[0] for path in mixing]
    assert len(set(holders)) == len(holders)
    assert set(holders) == {path.rpartition(".")[0] for path in spatial}
    assert set(mixing) <= set(spatial)


def test_batch_norms_are_found_by_path(load: Load) -> None:
    backbone = load("test_resnet")
    state = backbone.module.state_dict()
    paths = {name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")}
    assert set(batch_norm_sites(backbone)) == paths
    with pytest.raises(UsageError, match="no batch norm"):
        batch_norm_sites(load("test_convnext"))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_the_table_of_backbones_in_the_documentation_is_what_the_code_does(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "backbones.md"
    row = as_row(measure(name))
    assert row in page.read_text(encoding="utf-8").splitlines()
    assert "broken" not in row
