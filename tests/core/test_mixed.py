"""Batches of many tasks: each image gets the logits that its task alone would give it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clr.core.adapter import Adapter
from clr.core.backbone import Backbone
from clr.core.mixed import MixedNetwork
from clr.core.mixing.batch import Part
from clr.core.mixing.fold import fold
from clr.core.mixing.lanes import Lanes
from clr.core.network import ReprogrammedNetwork
from clr.core.sites import late_sites
from clr.errors import IntegrityBroken, UsageError
from tests.core.test_network import (
    ARCHITECTURES,
    EXHAUSTIVE,
    FAMILIES,
    WITHOUT_BATCH_NORM,
    zoo,
)

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


@settings(max_examples=60)
@given(data=st.data())
def test_any_mix_in_any_order_gives_what_each_task_alone_gives(
    both: Both, data: st.DataObject
) -> None:
    known = data.draw(st.lists(st.sampled_from(both.mixed.names), min_size=1, max_size=9))
    names = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=12))
    side = data.draw(st.sampled_from([32, 48, 64, 79]))
    both.check(images(data.draw(st.integers(0, 99)), len(names), side), names)


@pytest.mark.parametrize("variant", ["reduced", *EXHAUSTIVE])
@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_whose_early_kernels_are_identity_mix_with_all_others(
    family: str, load: Load, shaken: Shaken
) -> None:
    backbone = load(ARCHITECTURES[family])
    without = any(name in backbone.name for name in WITHOUT_BATCH_NORM)
    kinds = ["frozen", "frozen" if without else "affine"]
    adapters = {
        str(seed): shaken(backbone, seed=seed, batch_norm=kinds[seed % 2]) for seed in range(4)
    }
    for seed in "012":
        begin_late(adapters[seed], backbone)
    both = Both(backbone, adapters)
    for names in ("000", "111", "0212", "1313", "012332"):
        both.check(images(1, len(names)), list(names))
    backbone.check()


def begin_late(adapter: Adapter, backbone: Backbone) -> None:
    """Make the kernels of early layers identity, in place."""
    late = late_sites(backbone, 8)
    for name, kernel in adapter.tensors.items():
        if name.startswith("kernels.") and name.removeprefix("kernels.") not in late:
            kernel.zero_()
            kernel[:, 0, 1, 1] = 1


def test_what_all_tasks_leave_as_it_is_costs_nothing(backbone: Backbone, shaken: Shaken) -> None:
    mixed = MixedNetwork(backbone)
    for name in "abc":
        adapter = shaken(backbone, seed=ord(name))
        if name != "c":
            begin_late(adapter, backbone)
        mixed.attach(adapter, name)

    def work(names: str) -> int:
        with FlopCounterMode(display=False) as counter:
            mixed.logits(images(0, len(names)), list(names))
        return counter.get_total_flops()

    assert work("aa") == work("ab") < work("ac") == work("cc")


@pytest.mark.parametrize("family", ["ResNet", "DenseNet"])
@pytest.mark.parametrize("batch_norm", ["affine", "batch"])
def test_batch_norms_of_the_tasks_own_stay_their_own(
    family: str, batch_norm: str, load: Load, shaken: Shaken
) -> None:
    backbone = load(ARCHITECTURES[family])
    adapters = {str(n): shaken(backbone, seed=n, batch_norm=batch_norm if n else "frozen")
                for n in range(4)}  # fmt: skip
    Both(backbone, adapters).check(images(2, 7), list("1230321"))


@pytest.mark.parametrize("names", [["a"] * 32, list("ab") * 16, [*"abcdefgh"] * 4])
def test_large_batches_of_few_and_of_many_tasks_agree_too(
    names: list[str], backbone: Backbone, shaken: Shaken
) -> None:
    """Here all the ways are taken in which kernels are applied."""
    adapters = {name: shaken(backbone, seed=ord(name)) for name in "abcdefgh"}
    Both(backbone, adapters).check(images(3, len(names), 32), names)


@pytest.fixture(params=[2, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads of PyTorch as there would be on a machine of so many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("names", ["abcdefgh", "aaaaab", "hgfaaaabce", "ab", "abc", "a"])
def test_several_cores_with_a_share_of_the_images_each_agree_too(
    names: str, cores: int, backbone: Backbone, shaken: Shaken
) -> None:
    adapters = {
        name: shaken(backbone, seed=ord(name), variant="mix" if name in "bf" else "reduced")
        for name in "abcdefgh"
    }
    both = Both(backbone, adapters)
    both.check(images(3, len(names), 32), list(names))
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(torch.get_num_threads).result()
    assert torch.get_num_threads() == new == cores, "what others compute is computed as before"


@pytest.mark.parametrize("sizes", [(1, 1), (5,), (3, 1, 1), (2, 4, 1, 1)])
def test_each_image_is_in_one_share_and_shares_are_halves(
    sizes: tuple[int, ...], cores: int, backbone: Backbone, shaken: Shaken
) -> None:
    adapter = fold(shaken(backbone), backbone)
    rows = iter(range(sum(sizes)))
    parts = [Part(adapter, [next(rows) for _ in range(size)]) for size in sizes]
    shares = Lanes(backbone.device).each(lambda s: [row for one in s for row in one.rows], parts)
    assert [row for share in shares for row in share] == list(range(sum(sizes)))
    assert [len(share) for share in shares] == [-(-sum(sizes) // 2), sum(sizes) // 2]


def test_an_error_in_one_share_is_the_callers(
    cores: int, backbone: Backbone, shaken: Shaken
) -> None:
    network = MixedNetwork(backbone)
    for name in "abcd":
        network.attach(shaken(backbone, seed=ord(name)), name)
    with pytest.raises(RuntimeError, match="channels"):
        network.logits(torch.zeros(4, 5, 32, 32), list("abcd"))
    agree(
        network.logits(images(3, 4), list("abcd")),
        [
            network.logits(image[None], [name])[0]
            for name, image in zip("abcd", images(3, 4), strict=True)
        ],
    )


# ---- attached, kept, detached -----------------------------------------------------------


def test_what_is_attached_is_given_back_bit_by_bit(backbone: Backbone, shaken: Shaken) -> None:
    """Also of an adapter that was never rounded to what its storage holds."""
    network = MixedNetwork(backbone)
    rough = shaken(backbone, seed=1, task="rough", storage="int4")
    for adapter in (rough, rough.compressed(), shaken(backbone, seed=2, variant="mix")):
        network.attach(adapter)
        again = network.adapter(adapter.spec.task)
        assert again.spec == adapter.spec
        assert again.tensors.keys() == adapter.tensors.keys()
        assert all(torch.equal(again.tensors[n], t) for n, t in adapter.tensors.items())


def test_what_the_caller_changes_afterwards_changes_nothing(
    backbone: Backbone, shaken: Shaken
) -> None:
    network, adapter = MixedNetwork(backbone, ready_bytes=0), shaken(backbone)
    network.attach(adapter)
    (before,) = network.logits(images(4, 1), ["parts"])
    for tensor in adapter.tensors.values():
        tensor.zero_()
    (after,) = network.logits(images(4, 1), ["parts"])
    assert torch.equal(before, after)


@pytest.mark.parametrize("ready_bytes", [0, 60_000, 10**9])
def test_however_few_fit_ready_into_memory_the_answers_are_the_same(
    ready_bytes: int, backbone: Backbone, shaken: Shaken
) -> None:
    network, plenty = MixedNetwork(backbone, ready_bytes=ready_bytes), MixedNetwork(backbone)
    for seed in range(6):
        for one in (network, plenty):
            one.attach(shaken(backbone, seed=seed), str(seed))
    for names in ("001122", "543210", "333333"):
        pairs = zip(*(n.logits(images(5, 6), list(names)) for n in (network, plenty)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_attaching_under_a_taken_name_replaces_it(backbone: Backbone, shaken: Shaken) -> None:
    network = MixedNetwork(backbone)
    first, second = shaken(backbone, seed=1), shaken(backbone, seed=2)
    network.attach(first)
    network.attach(second, "canary")
    assert network.names == ("canary", "parts")
    network.attach(second)
    agree(network.logits(images(6, 1), ["parts"]), network.logits(images(6, 1), ["canary"]))
    network.detach("canary")
    assert network.names == ("parts",)


@pytest.mark.parametrize("name", ["", "part", "PARTS", "canary"])
def test_an_unknown_task_is_an_error_never_the_bare_backbone(
    name: str, backbone: Backbone, shaken: Shaken
) -> None:
    network = MixedNetwork(backbone)
    network.attach(shaken(backbone))
    for ask in (
        network.adapter,
        network.detach,
        lambda n: network.logits(images(0, 2), ["parts", n]),
    ):
        with pytest.raises(UsageError, match="Attached: parts") as caught:
            ask(name)
        assert list(caught.value.data["known"]) == ["parts"]


def test_a_batch_needs_one_name_an_image(backbone: Backbone, shaken: Shaken) -> None:
    network = MixedNetwork(backbone)
    network.attach(shaken(backbone))
    for names in ([], ["parts"], ["parts"] * 3):
        with pytest.raises(UsageError, match="2 images"):
            network.logits(images(0, 2), names)
    assert network.logits(images(0, 2)[:0], []) == []


def test_an_adapter_of_another_backbone_is_not_attached(
    backbone: Backbone, load: Load, shaken: Shaken
) -> None:
    network, broken = MixedNetwork(backbone), shaken(backbone)
    broken.tensors["head.bias"][0] = float("nan")
    for adapter in (shaken(load("resnet10t")), broken):
        with pytest.raises(IntegrityBroken):
            network.attach(adapter)
    assert network.names == ()


def test_threads_ask_while_others_attach_and_detach(backbone: Backbone, shaken: Shaken) -> None:
    """Each batch is that of the adapters that were attached when it began, whole."""
    network = MixedNetwork(backbone, ready_bytes=200_000)
    kept = {str(seed): shaken(backbone, seed=seed) for seed in range(4)}
    versions = [shaken(backbone, seed=seed) for seed in (10, 11)]
    for name, adapter in kept.items():
        network.attach(adapter, name)
    network.attach(versions[0], "moving")
    batch, names = images(7, 5), [*kept, "moving"]
    allowed = []
    for version in versions:
        network.attach(version, "moving")
        allowed.append(network.logits(batch, names))
    stop = threading.Event()

    def move() -> None:
        while not stop.is_set():
            for version in versions:
                network.attach(version, "moving")
                network.attach(version, "passing")
                network.detach("passing")

    def ask(_: int) -> bool:
        found = network.logits(batch, names)
        return any(
            all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
            for wanted in allowed
        )

    mover = threading.Thread(target=move)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        mover.start()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(40)))
    finally:
        stop.set()
        mover.join()
        sys.setswitchinterval(interval)
    assert all(answers)
    backbone.check()
