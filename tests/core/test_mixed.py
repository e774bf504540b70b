"""Batches of many tasks: each image gets the logits that its task alone would give it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.mixed import MixedNetwork
from clr.core.network import ReprogrammedNetwork
from tests.core.test_network import ARCHITECTURES, zoo

Load = Callable[[str], Backbone]
Shaken = Callable[..., Adapter]


def agree(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Differences are below 1e-5 of the largest logit, and no label is another one's."""
    assert [one.shape for one in found] == [one.shape for one in wanted]
    limit = 1e-5 * max(float(one.abs().max()) for one in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) <= limit
        tied = float(other.max() - other[one.argmax()]) <= 2 * limit  # so near that either is right
        assert int(one.argmax()) == int(other.argmax()) or tied


class Both:
    """The same adapters in a mixed network and, to compare, in one that takes one at a time."""

    def __init__(self, backbone: Backbone, adapters: dict[str, Adapter]) -> None:
        self.mixed, self.single = MixedNetwork(backbone), ReprogrammedNetwork(backbone)
        for name, adapter in adapters.items():
            self.mixed.attach(adapter, name)
            self.single.attach(adapter, name)

    def one_by_one(self, batch: Tensor, names: list[str]) -> list[Tensor]:
        pairs = zip(batch, names, strict=True)
        return [self.single.logits(image[None], name)[0] for image, name in pairs]

    def check(self, batch: Tensor, names: list[str]) -> None:
        agree(self.mixed.logits(batch, names), self.one_by_one(batch, names))


def images(seed: int, count: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def both(backbone: Backbone, shaken: Shaken) -> Both:
    """Adapters of every kind, three of each, with heads of different sizes."""
    adapters = {
        f"{name}-{copy}": shaken(
            backbone,
            seed=100 * copy + number,
            task=f"{name}-{copy}",
            variant=one.spec.variant,
            batch_norm=one.spec.batch_norm,
            labels=tuple("abcdefgh"[: 2 + copy]),
        )
        for number, (name, one) in enumerate(zoo(backbone, shaken).items())
        for copy in range(3)
    }
    return Both(backbone, adapters)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_mix_in_any_order_gives_what_each_task_alone_gives(
    both: Both, data: st.DataObject
) -> None:
    known = data.draw(st.lists(st.sampled_from(both.mixed.names), min_size=1, max_size=9))
    names = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=12))
    side = data.draw(st.sampled_from([32, 48, 64, 79]))
    both.check(images(data.draw(st.integers(0, 99)), len(names), side), names)


@pytest.mark.parametrize("variant", ["reduced", "full", "mix"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_of_networks_takes_mixed_batches(
    family: str, variant: str, load: Load, shaken: Shaken
) -> None:
    backbone = load(ARCHITECTURES[family])
    adapters = {
        str(seed): shaken(backbone, seed=seed, variant=variant if seed else "reduced")
        for seed in range(5)
    }
    both = Both(backbone, adapters)
    bare = both.mixed.features(images(0, 2))
    both.check(images(1, 6), list("243120"))
    both.check(images(1, 3), list("333"))
    assert torch.equal(both.mixed.features(images(0, 2)), bare)
    backbone.check()


@pytest.mark.parametrize("family", ["ResNet", "DenseNet"])
@pytest.mark.parametrize("batch_norm", ["affine", "batch"])
def test_batch_norms_of_the_tasks_own_stay_their_own(
    family: str, batch_norm: str, load: Load, shaken: Shaken
) -> None:
    backbone = load(ARCHITECTURES[family])
    adapters = {str(n): shaken(backbone, seed=n, batch_norm=batch_norm if n else "frozen")
                for n in range(4)}  # fmt: skip
    Both(backbone, adapters).check(images(2, 7), list("1230321"))
