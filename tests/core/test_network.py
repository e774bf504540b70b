"""One backbone, many tasks: exact at birth, exact beside others, and never changed."""

from __future__ import annotations

import copy
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clr.core.adapter import Adapter, AdapterSpec, new_adapter
from clr.core.backbone import Backbone, load_backbone, state_digest
from clr.core.network import Program, ReprogrammedNetwork, Step
from clr.core.sites import kernel_sites
from clr.errors import IntegrityBroken, UsageError

Load = Callable[[str], Backbone]
MakeSpec = Callable[..., AdapterSpec]
Shaken = Callable[..., Adapter]
Fresh = Callable[[], Backbone]

VARIANTS = ("reduced", "full", "mix")
EXHAUSTIVE = tuple(pytest.param(name, marks=pytest.mark.soak) for name in VARIANTS[1:])
"""Variants beside the usual one, where a test goes through all families of networks."""

BATCH_NORMS = ("frozen", "affine", "batch")
ARCHITECTURES = {
    "ResNet": "resnet10t",
    "ResNeXt": "resnext26ts",
    "DenseNet": "densenet121",
    "MobileNetV2": "mobilenetv2_035",
    "MobileNetV3": "mobilenetv3_small_050",
    "EfficientNet": "test_efficientnet",
    "EfficientNet-Lite": "efficientnet_lite0",
    "RegNet": "regnetx_002",
    "ConvNeXt": "convnext_atto",
    "RepVGG": "repvgg_a0",
    "NFNet, standardised weights": "test_nfnet",
    "VGG with batch norm, torchvision": "torchvision:vgg11_bn",
    "ResNet, torchvision": "torchvision:resnet18",
    "RegNet, torchvision": "torchvision:regnet_y_400mf",
    "ConvNeXt, torchvision": "torchvision:convnext_tiny",
    "ShuffleNet, torchvision": "torchvision:shufflenet_v2_x0_5",
    "SqueezeNet, torchvision": "torchvision:squeezenet1_1",
}
FAMILIES = [
    pytest.param(name, marks=pytest.mark.soak) if name.startswith("VGG") else name
    for name in ARCHITECTURES
]
"""For tests of what is done with a network: VGG's hundred million parameters take seconds each."""
WITHOUT_BATCH_NORM = ("convnext", "nfnet", "squeezenet")


# ---- identity at birth ------------------------------------------------------------------


def newborn(spec: AdapterSpec, backbone: Backbone) -> dict[str, Tensor]:
    """Return tensors as training begins with them: kernels at identity act, since they learn."""
    tensors = new_adapter(spec, backbone).tensors
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_at_birth_the_features_are_bit_equal_to_the_backbone_s(
    family: str, variant: str, load: Load, make_spec: MakeSpec, batch: Tensor
) -> None:
    backbone = load(ARCHITECTURES[family])
    batch = batch.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        bare = backbone.module(batch)
        for batch_norm in BATCH_NORMS:
            if batch_norm != "frozen" and any(n in backbone.name for n in WITHOUT_BATCH_NORM):
                continue
            spec = make_spec(backbone, variant=variant, batch_norm=batch_norm)
            program = Program(backbone, newborn(spec, backbone))
            assert torch.equal(program.features(batch), bare), batch_norm
        assert torch.equal(backbone.module(batch), bare)
    assert bool(bare.any())


@pytest.mark.parametrize("shape", [(1, 3, 33, 33), (3, 3, 64, 40), (2, 3, 97, 96)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_at_birth_it_is_exact_for_any_size_and_layout(
    shape: tuple[int, ...], layout: torch.memory_format, backbone: Backbone, make_spec: MakeSpec
) -> None:
    images = torch.randn(shape).contiguous(memory_format=layout)
    program = Program(backbone, newborn(make_spec(backbone, variant="mix"), backbone))
    with torch.inference_mode():
        assert torch.equal(program.features(images), backbone.module(images))


def test_the_default_backbone_with_its_published_weights_is_exact_too(
    make_spec: MakeSpec, batch: Tensor
) -> None:
    backbone = load_backbone("tf_efficientnet_lite0")
    program = Program(backbone, newborn(make_spec(backbone, variant="full"), backbone))
    with torch.inference_mode():
        assert torch.equal(program.features(batch), backbone.module(batch))


@pytest.mark.parametrize("fold", [False, True])
def test_a_kernel_at_identity_that_learns_nothing_costs_nothing(
    fold: bool, backbone: Backbone, make_spec: MakeSpec, batch: Tensor
) -> None:
    spec = make_spec(backbone)
    still, learning = new_adapter(spec, backbone).tensors, newborn(spec, backbone)
    with torch.inference_mode(), FlopCounterMode(display=False) as bare:
        backbone.module(batch)
    counted = []
    for tensors in (still, learning):
        program = Program(backbone, tensors, fold=fold)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            program.features(batch)
        counted.append(counter.get_total_flops())
    assert counted[0] == bare.get_total_flops() < counted[1]


# ---- the mathematics --------------------------------------------------------------------

Array = np.ndarray[Any, np.dtype[np.float64]]
FLOATS = st.floats(-4, 4, width=32)


def depthwise(x: Array, kernel: Array) -> Array:
    """Cross-correlate each channel with its own 3×3 kernel, zeros around: [C, H, W]."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = x
    result = np.zeros_like(x)
    for down in range(3):
        for right in range(3):
            part = padded[:, down : down + height, right : right + width]
            result += kernel[:, down, right, None, None] * part
    return result


def dense(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """Cross-correlate with a dense kernel [O, I, k, k], naively: [O, H', W']."""
    size = weight.shape[2]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows = (padded.shape[1] - size) // stride + 1
    columns = (padded.shape[2] - size) // stride + 1
    result = np.zeros((weight.shape[0], rows, columns))
    for r in range(rows):
        for c in range(columns):
            patch = padded[:, r * stride : r * stride + size, c * stride : c * stride + size]
            result[:, r, c] = (weight * patch).sum((1, 2, 3))
    return result


@settings(max_examples=100)
@given(
    data=st.data(), channels=st.integers(1, 5), height=st.integers(1, 7), width=st.integers(1, 7)
)
def test_a_kernel_is_a_zero_padded_depthwise_cross_correlation(
    data: st.DataObject, channels: int, height: int, width: int
) -> None:
    x = data.draw(arrays.arrays(np.float32, (channels, height, width), elements=FLOATS))
    kernel = data.draw(arrays.arrays(np.float32, (channels, 3, 3), elements=FLOATS))
    found = Step(torch.from_numpy(kernel)[:, None])(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(found, depthwise(x.astype(float), kernel), atol=1e-4)


@settings(max_examples=60)
@given(data=st.data(), channels=st.integers(1, 5), rank=st.integers(1, 4))
def test_a_mixing_adds_a_low_rank_product_over_channels(
    data: st.DataObject, channels: int, rank: int
) -> None:
    x = data.draw(arrays.arrays(np.float32, (channels, 4, 3), elements=FLOATS))
    kernel = data.draw(arrays.arrays(np.float32, (channels, 3, 3), elements=FLOATS))
    down = data.draw(arrays.arrays(np.float32, (rank, channels), elements=FLOATS))
    up = data.draw(arrays.arrays(np.float32, (channels, rank), elements=FLOATS))
    step = Step(
        torch.from_numpy(kernel)[:, None],
        torch.from_numpy(down)[..., None, None],
        torch.from_numpy(up)[..., None, None],
    )
    found = step(torch.from_numpy(x)[None])[0].numpy()
    after = depthwise(x.astype(float), kernel)
    expected = after + np.einsum("cr,rd,dhw->chw", up, down, after)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


class Two(nn.Module):
    """Two convolutions with batch norm: small enough to be computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x)))).mean((2, 3))


def by_hand(module: nn.Module, **fields: Any) -> Backbone:
    module.eval().requires_grad_(False)
    convolutions = {p: m for p, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    features = module(torch.zeros(1, 3, 16, 16)).shape[1]
    return Backbone(
        "by hand", module, state_digest(module), features, 1000, (0.5,) * 3, (0.5,) * 3,
        "bilinear", "random", convolutions=convolutions, **fields,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_a_whole_network_agrees_with_a_dense_reference(
    seed: int, make_spec: MakeSpec, shaken: Shaken
) -> None:
    torch.manual_seed(seed)
    module = Two()
    backbone = by_hand(module)
    tensors = shaken(backbone, seed=seed, batch_norm="affine").tensors
    for name, tensor in tensors.items():
        if name.startswith("kernels."):
            tensor.copy_(torch.randn(tensor.shape))
    image = torch.randn(1, 3, 11, 9)
    x = dense(image[0].double().numpy(), module.first.weight.double().numpy(), 2, 1)
    x += module.first.bias.double().numpy()[:, None, None]
    x = depthwise(x, tensors["kernels.first"][:, 0].double().numpy())
    own = {n: tensors[f"bn.norm.{n}"].double().numpy()[:, None, None]
           for n in ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    x = (x - own["running_mean"]) / np.sqrt(own["running_var"] + 1e-5)
    x = np.maximum(own["weight"] * x + own["bias"], 0)
    x = dense(x, module.second.weight.double().numpy(), 1, 0)
    features = depthwise(x, tensors["kernels.second"][:, 0].double().numpy()).mean((1, 2))
    logits = tensors["head.weight"].double().numpy() @ features
    logits += tensors["head.bias"].double().numpy()
    program = Program(backbone, tensors)
    np.testing.assert_allclose(program.features(image)[0].numpy(), features, atol=1e-4)
    np.testing.assert_allclose(program.logits(image)[0].numpy(), logits, atol=1e-4)


# ---- many tasks -------------------------------------------------------------------------


def zoo(backbone: Backbone, shaken: Shaken) -> dict[str, Adapter]:
    """One adapter of every kind, each unlike the others."""
    kinds = [(v, b) for v in VARIANTS for b in BATCH_NORMS]
    return {
        f"{v}-{b}": shaken(backbone, seed=n, task=f"{v}-{b}", variant=v, batch_norm=b)
        for n, (v, b) in enumerate(kinds)
    }


def alone(backbone: Backbone, adapter: Adapter, batch: Tensor) -> Tensor:
    network = ReprogrammedNetwork(backbone)
    network.attach(adapter)
    return network.logits(batch, adapter.spec.task)


def test_attaching_switching_and_detaching_leave_the_backbone_bit_identical(
    shaken: Shaken, batch: Tensor, fresh: Fresh
) -> None:
    backbone = fresh()
    network = ReprogrammedNetwork(backbone)
    before = {n: t.clone() for n, t in backbone.module.state_dict().items()}
    bare = network.features(batch)
    adapters = zoo(backbone, shaken)
    for adapter in adapters.values():
        network.attach(adapter)
        assert torch.equal(network.features(batch), bare)
    for name in [*adapters, *reversed(adapters)]:
        assert not torch.equal(network.features(batch, name), bare)
        assert torch.equal(network.features(batch), bare)
    for name in adapters:
        network.detach(name)
    assert network.names == ()
    after = backbone.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[n], t) for n, t in before.items())
    assert state_digest(backbone.module) == backbone.digest
    backbone.check()
    assert torch.equal(network.features(batch), bare)
    assert not any(m.training for m in backbone.module.modules())


def test_adapters_side_by_side_give_the_bits_that_they_give_alone(
    backbone: Backbone, shaken: Shaken, batch: Tensor, fresh: Fresh
) -> None:
    adapters = zoo(backbone, shaken)
    expected = {name: alone(fresh(), adapter, batch) for name, adapter in adapters.items()}
    network = ReprogrammedNetwork(backbone)
    for adapter in adapters.values():
        network.attach(adapter)
    for name in [*adapters, *reversed(adapters), *sorted(adapters)]:
        assert torch.equal(network.logits(batch, name), expected[name])
    network.detach("full-batch")
    network.attach(adapters["full-batch"])
    assert all(torch.equal(network.logits(batch, n), e) for n, e in expected.items())


def test_many_threads_at_once_give_the_bits_that_each_gives_alone(
    backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    """Also the bare backbone's, and while a task with batch statistics is in training."""
    network = ReprogrammedNetwork(backbone)
    adapters = zoo(backbone, shaken)
    expected: dict[str | None, Tensor] = {None: network.features(batch)}
    for name, adapter in adapters.items():
        network.attach(adapter)
        expected[name] = network.features(batch, name)
    learner = Program(backbone, shaken(backbone, seed=77, batch_norm="batch").tensors)
    stop = threading.Event()

    def learn() -> None:
        while not stop.is_set():
            learner.features(batch, batch_statistics=True)

    def ask(seed: int) -> list[str]:
        names = [*expected, *expected]
        np.random.default_rng(seed).shuffle(names)
        return [str(n) for n in names if not torch.equal(network.features(batch, n), expected[n])]

    learning = threading.Thread(target=learn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        learning.start()
        with ThreadPoolExecutor(4) as pool:
            wrong = [name for names in pool.map(ask, range(8)) for name in names]
    finally:
        stop.set()
        learning.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    backbone.check()


def test_programs_that_are_made_at_once_act_once(
    shaken: Shaken, batch: Tensor, fresh: Fresh
) -> None:
    for _ in range(3):
        backbone = fresh()
        adapter = shaken(backbone, batch_norm="affine")
        barrier = threading.Barrier(8)

        def make(
            backbone: Backbone = backbone,
            adapter: Adapter = adapter,
            barrier: threading.Barrier = barrier,
        ) -> Program:
            barrier.wait()
            return Program(backbone, adapter.tensors)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(8) as pool:
                programs = [f.result() for f in [pool.submit(make) for _ in range(8)]]
        finally:
            sys.setswitchinterval(interval)
        sites = kernel_sites(backbone, "reduced")
        hooks = [len(backbone.convolutions[path]._forward_hooks) for path in sites]
        assert set(hooks) == {1}
        again = alone(fresh(), adapter, batch)
        assert all(torch.equal(p.logits(batch), again) for p in programs)


def test_a_copy_of_the_backbone_is_programmed_like_the_original(
    shaken: Shaken, batch: Tensor, fresh: Fresh
) -> None:
    """Fine-tuning starts from a copy: nothing of the original may act in it, nor twice."""
    backbone = fresh()
    adapter = shaken(backbone, batch_norm="batch")
    logits = Program(backbone, adapter.tensors).logits(batch)
    module = copy.deepcopy(backbone.module)
    convolutions = {path: module.get_submodule(path) for path in backbone.convolutions}
    twin = replace(backbone, module=module, convolutions=convolutions)
    assert torch.equal(module(batch), backbone.module(batch))
    assert torch.equal(Program(twin, adapter.tensors).logits(batch), logits)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(Program(backbone, adapter.tensors).logits(batch), logits)
    assert not bool(module(batch).any())


def test_an_error_in_the_middle_leaves_nothing_behind(
    backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    network = ReprogrammedNetwork(backbone)
    network.attach(shaken(backbone, batch_norm="batch"))
    bare = network.features(batch)
    with pytest.raises(RuntimeError):
        network.features(batch[:, :1], "parts")
    assert torch.equal(network.features(batch), bare)


def test_attaching_under_a_taken_name_replaces_it(
    backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    network = ReprogrammedNetwork(backbone)
    first, second = shaken(backbone, seed=1), shaken(backbone, seed=2)
    network.attach(first)
    network.attach(second, "canary")
    assert network.names == ("canary", "parts")
    network.attach(second)
    assert torch.equal(network.logits(batch, "parts"), network.logits(batch, "canary"))
    assert network.adapter("parts").spec == second.spec


@pytest.mark.parametrize("name", ["", "part", "PARTS", "parts ", "canary"])
def test_an_unknown_task_is_an_error_never_the_bare_backbone(
    name: str, backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    network = ReprogrammedNetwork(backbone)
    network.attach(shaken(backbone))
    for ask in (network.logits, network.features, lambda _, n: network.adapter(n),
                lambda _, n: network.detach(n)):  # fmt: skip
        with pytest.raises(UsageError, match="Attached: parts") as caught:
            ask(batch, name)
        assert list(caught.value.data["known"]) == ["parts"]
    network.detach("parts")
    with pytest.raises(UsageError):
        network.logits(batch, "parts")


def test_an_adapter_of_another_backbone_is_not_attached(
    backbone: Backbone, load: Load, shaken: Shaken
) -> None:
    network = ReprogrammedNetwork(backbone)
    with pytest.raises(IntegrityBroken):
        network.attach(shaken(load("resnet10t")))
    broken = shaken(backbone)
    broken.tensors["head.bias"][0] = float("nan")
    with pytest.raises(IntegrityBroken):
        network.attach(broken)
    assert network.names == ()


# ---- one backbone in memory -------------------------------------------------------------


def storages() -> dict[int, int]:
    """Bytes of every storage of a tensor that Python can reach, by address."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """Keep the million objects of other tests and libraries from being looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_objects")
def test_adapters_never_copy_the_backbone(shaken: Shaken, batch: Tensor, fresh: Fresh) -> None:
    backbone = fresh()
    addresses = {n: t.data_ptr() for n, t in backbone.module.state_dict().items()}
    adapters = [shaken(backbone, seed=n, task=f"t{n}", batch_norm="affine") for n in range(20)]
    network = ReprogrammedNetwork(backbone)
    before = storages()
    for adapter in adapters:
        network.attach(adapter)
        network.logits(batch, adapter.spec.task)
    added = {address: size for address, size in storages().items() if address not in before}
    assert sum(added.values()) < 20_000  # of the backbone's 1.9 MB
    assert {n: t.data_ptr() for n, t in backbone.module.state_dict().items()} == addresses


@pytest.mark.usefixtures("only_new_objects")
def test_a_detached_adapter_is_freed(shaken: Shaken, fresh: Fresh) -> None:
    backbone = fresh()
    network = ReprogrammedNetwork(backbone)
    before = sum(storages().values())
    for number in range(3):
        network.attach(shaken(backbone, seed=number, batch_norm="batch"))
    network.detach("parts")
    assert sum(storages().values()) - before < 20_000


# ---- training ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_the_adapter_s_tensors_and_no_other(
    variant: str, batch_norm: str, backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    tensors = shaken(backbone, variant=variant, batch_norm=batch_norm).tensors
    learned = {n: t.requires_grad_() for n, t in tensors.items() if "running_" not in n}
    program = Program(backbone, tensors)
    logits = program.logits(batch, batch_statistics=batch_norm == "batch")
    F.cross_entropy(logits, torch.tensor([0, 2])).backward()
    without = [n for n, t in learned.items() if t.grad is None or not bool(t.grad.any())]
    assert without == []
    assert all(p.grad is None and not p.requires_grad for p in backbone.module.parameters())
    backbone.check()


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_kernel_of_every_family_of_networks_changes_what_is_computed(
    family: str, load: Load, shaken: Shaken, batch: Tensor
) -> None:
    """Also where the convolution follows the norm, is depthwise, or is drawn by a function."""
    backbone = load(ARCHITECTURES[family])
    tensors = shaken(backbone, variant="full").tensors
    kernels = {n: t.requires_grad_() for n, t in tensors.items() if n.startswith("kernels.")}
    Program(backbone, tensors).features(batch).sum().backward()
    assert [n for n, t in kernels.items() if t.grad is None or not bool(t.grad.any())] == []
    backbone.check()


def test_what_an_optimiser_changes_is_what_the_program_computes(
    backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    tensors = shaken(backbone, batch_norm="affine").tensors
    program = Program(backbone, tensors)
    before = program.logits(batch)
    for name in ("kernels.conv1.0", "bn.conv1.1.weight", "head.bias"):
        tensors[name].mul_(1.5)
        after = program.logits(batch)
        assert not torch.equal(after, before), name
        before = after


def test_batch_statistics_are_the_task_s_own_and_those_of_pytorch(
    backbone: Backbone, make_spec: MakeSpec, batch: Tensor, fresh: Fresh
) -> None:
    reference = copy.deepcopy(fresh().module)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    first = new_adapter(make_spec(backbone, batch_norm="batch"), backbone)
    second = new_adapter(make_spec(backbone, batch_norm="batch"), backbone)
    program, other = Program(backbone, first.tensors), Program(backbone, second.tensors)
    untouched = other.features(batch)
    for _ in range(3):
        found = program.features(batch, batch_statistics=True)
        assert torch.equal(found, reference(batch))
    state = reference.state_dict()
    for name, tensor in first.tensors.items():
        if name.startswith("bn."):
            assert torch.equal(tensor, state[name.removeprefix("bn.")]), name
    reference.eval()
    assert torch.equal(program.features(batch), reference(batch))
    assert torch.equal(other.features(batch), untouched)
    backbone.check()


def test_affine_batch_norm_keeps_its_statistics(
    backbone: Backbone, shaken: Shaken, batch: Tensor
) -> None:
    adapter = shaken(backbone, batch_norm="affine")
    before = {n: t.clone() for n, t in adapter.tensors.items()}
    Program(backbone, adapter.tensors).logits(batch)
    assert all(torch.equal(adapter.tensors[n], t) for n, t in before.items())
