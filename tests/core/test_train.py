"""Training: seeded and repeatable bit for bit, also where it is cut off and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clr.core.adapter import Adapter, AdapterSpec, adapter_bytes, new_adapter, parse_adapter
from clr.core.backbone import Backbone
from clr.core.baseline import Baseline, measure_baseline
from clr.core.compress import kernels_kept
from clr.core.evaluate import predicted, run
from clr.core.images import ImageSet, Preprocessing
from clr.core.network import Program
from clr.core.probe import Probe, fit_probe_at
from clr.core.rates import FEW, STEPS, caution
from clr.core.recipe import FEW_IMAGES, Recipe, first_stride
from clr.core.sites import is_early, is_idle, late_sites
from clr.core.train import Trained, fit
from clr.core.training import is_worse, one_cycle
from clr.errors import UsageError

Task = Callable[..., Trained]
Files = tuple[list[Path], list[int]]
RECIPE = Recipe(
    epochs=3, batch_size=32, image_size=32, from_stride=1, kernel_lr=0.02, head_lr=0.01,
    storage="float32",
)  # fmt: skip
"""Of a backbone of random weights, whose first layers have nothing to lose."""
HARMFUL = replace(RECIPE, epochs=4, batch_size=2, kernel_lr=1.0, head_lr=1.0)
"""Kernels jump by far too much, until nothing is left."""
VARIANTS = ("reduced", "full", "mix")
BATCH_NORMS = ("frozen", "affine", "batch")


def ignore(number: int, epoch: dict[str, float]) -> None:
    """Be told of an epoch."""


class Interrupted(Exception):
    """Raised from within a training."""


@pytest.fixture(scope="module")
def baseline(backbone: Backbone, images: ImageSet, preprocessing: Preprocessing) -> Baseline:
    return measure_baseline(backbone, images, preprocessing, RECIPE, 3)


@pytest.fixture(scope="module")
def train(
    backbone: Backbone,
    images: ImageSet,
    baseline: Baseline,
    make_spec: Callable[..., AdapterSpec],
) -> Task:
    """Train on the stripes with the settings given."""

    def go(recipe: Recipe = RECIPE, **options: Any) -> Trained:
        spec = make_spec(
            backbone,
            variant=recipe.variant,
            batch_norm=recipe.batch_norm,
            rank=recipe.rank,
            storage=recipe.storage,
            recipe=recipe.as_dict(),
        )
        using = options.pop("images", images)
        start = options.pop("baseline", baseline)
        options.setdefault("on_epoch", ignore)
        return fit(backbone, using, start, spec, recipe, **options)

    return go


@pytest.fixture(scope="module")
def unbroken(train: Task) -> Trained:
    trained = train()
    assert trained.best == RECIPE.epochs  # else equal bits would show nothing
    return trained


# ---- repeatable -------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(
    train: Task, unbroken: Trained
) -> None:
    torch.manual_seed(12345)
    again = train()
    assert adapter_bytes(again.adapter) == adapter_bytes(unbroken.adapter)
    assert again.history == unbroken.history


def test_another_seed_gives_another_adapter(train: Task, unbroken: Trained) -> None:
    other = train(replace(RECIPE, seed=1))
    assert not torch.equal(
        other.adapter.tensors["head.weight"], unbroken.adapter.tensors["head.weight"]
    )


def test_training_draws_nothing_from_the_global_generator(train: Task) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    train(replace(RECIPE, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_images_from_memory_and_from_disk_give_the_same_bits(
    train: Task, unbroken: Trained, task_files: Files, preprocessing: Preprocessing
) -> None:
    streaming = ImageSet(*task_files, preprocessing, cache_mb=0)
    found = train(images=streaming)
    assert adapter_bytes(found.adapter) == adapter_bytes(unbroken.adapter)


def test_the_head_is_the_mean_of_the_trained_and_of_one_fitted_to_the_new_features(
    train: Task,
    unbroken: Trained,
    backbone: Backbone,
    images: ImageSet,
    baseline: Baseline,
    preprocessing: Preprocessing,
) -> None:
    trained = train(replace(RECIPE, refit=False)).adapter.tensors
    found = unbroken.adapter.tensors
    kernels = [name for name in trained if not name.startswith("head.")]
    assert all(torch.equal(trained[name], found[name]) for name in kernels)
    chosen = baseline.images
    features = run(
        Program(backbone, dict(found)).features, images, preprocessing, backbone.device, chosen
    )
    labels, strength = images.labels[chosen], baseline.probe.strength
    fitted = fit_probe_at(features, labels, baseline.weights, strength)
    share = caution(RECIPE, len(baseline.train), 3)[0] / 2
    mean = torch.lerp(fitted.weight, trained["head.weight"], share)
    # the folded network, which training computes with, differs in the last bits
    torch.testing.assert_close(found["head.weight"], mean, atol=0.01, rtol=0.01)
    assert not torch.allclose(found["head.weight"], trained["head.weight"], atol=0.1)


def test_epochs_that_nobody_is_told_of_are_not_validated(train: Task, unbroken: Trained) -> None:
    alone = train(on_epoch=None)
    assert [set(epoch) for epoch in alone.history] == [set(), *[{"train_loss"}] * RECIPE.epochs]
    assert adapter_bytes(alone.adapter) == adapter_bytes(unbroken.adapter)


# ---- cut off and resumed ----------------------------------------------------------------


def cut_off(train: Task, after: int, checkpoint: Path, recipe: Recipe = RECIPE) -> None:
    """Train until the end of epoch `after`, and die there."""

    def die(number: int, _: dict[str, float]) -> None:
        if number == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(recipe, checkpoint=checkpoint, on_epoch=die)


@pytest.mark.parametrize("after", range(RECIPE.epochs + 1))
def test_cut_off_after_any_epoch_it_ends_in_the_same_bits(
    after: int, train: Task, unbroken: Trained, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "state"
    cut_off(train, after, checkpoint)
    told: list[int] = []
    resumed = train(checkpoint=checkpoint, on_epoch=lambda number, _: told.append(number))
    assert resumed.resumed == after
    assert told == list(range(RECIPE.epochs + 1))
    assert resumed.history == unbroken.history
    assert resumed.best == unbroken.best
    assert adapter_bytes(resumed.adapter) == adapter_bytes(unbroken.adapter)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_every_kind_of_adapter_is_resumed_bit_for_bit(
    variant: str, batch_norm: str, train: Task, backbone: Backbone, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, epochs=2, variant=variant, batch_norm=batch_norm)
    whole = train(recipe)
    cut_off(train, 1, tmp_path / "state", recipe)
    resumed = train(recipe, checkpoint=tmp_path / "state")
    assert resumed.resumed == 1
    assert resumed.history == whole.history
    assert adapter_bytes(resumed.adapter) == adapter_bytes(whole.adapter)
    back = parse_adapter(adapter_bytes(whole.adapter), backbone)
    assert back.spec.variant == variant
    backbone.check()


def test_cut_off_at_every_epoch_in_turn_it_ends_in_the_same_bits(
    train: Task, unbroken: Trained, tmp_path: Path
) -> None:
    for after in range(RECIPE.epochs + 1):
        cut_off(train, after, tmp_path / "state")
    resumed = train(checkpoint=tmp_path / "state")
    assert adapter_bytes(resumed.adapter) == adapter_bytes(unbroken.adapter)


def test_cut_off_within_an_epoch_it_goes_on_from_the_last_whole_one(
    train: Task, unbroken: Trained, tmp_path: Path
) -> None:
    def die(epoch: int, step: int, _: int) -> None:
        if (epoch, step) == (2, 2):
            raise Interrupted

    with pytest.raises(Interrupted):
        train(checkpoint=tmp_path / "state", on_step=die)
    resumed = train(checkpoint=tmp_path / "state")
    assert resumed.resumed == 1
    assert adapter_bytes(resumed.adapter) == adapter_bytes(unbroken.adapter)


KILLED = """
import sys, time
from pathlib import Path
from clr.core.adapter import AdapterSpec
from clr.core.backbone import load_backbone
from clr.core.baseline import measure_baseline
from clr.core.images import ImageSet, Preprocessing
from clr.core.probe import Probe, fit_probe_at
from clr.core.rates import FEW, STEPS, caution
from clr.core.recipe import FEW_IMAGES, Recipe, first_stride
from clr.core.train import fit

folder, checkpoint, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
paths = sorted(folder.glob("*.png"))
backbone = load_backbone("test_resnet", pretrained=False)
how = Preprocessing(32, backbone.mean, backbone.std)
images = ImageSet(paths, [int(path.name[0]) for path in paths], how)
recipe = Recipe(epochs=3, batch_size=32, kernel_lr=0.02, head_lr=0.01)
baseline = measure_baseline(backbone, images, how, recipe, 3)
spec = AdapterSpec("parts", ("a", "b", "c"), backbone.name, backbone.digest, how)

def trained(**options):
    return fit(backbone, images, baseline, spec, recipe, checkpoint=checkpoint, **options)

def tell(number, _):
    print("epoch", number, flush=True)

if __name__ == "__main__":
    trained(on_epoch=tell, on_step=lambda *_: time.sleep(slow))
"""


def test_a_process_killed_in_training_is_resumed_bit_for_bit(
    task_files: Files, tmp_path: Path
) -> None:
    script, checkpoint = tmp_path / "train.py", tmp_path / "state"
    script.write_text(KILLED)
    folder = task_files[0][0].parent
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(checkpoint), "0.2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line == "epoch 1\n":
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    scope: dict[str, Any] = {"__name__": "again"}
    arguments, sys.argv = sys.argv, ["", str(folder), str(checkpoint), "0"]
    try:
        exec(compile(KILLED, "train.py", "exec"), scope)
    finally:
        sys.argv = arguments
    resumed = scope["trained"](on_epoch=scope["tell"])
    assert resumed.resumed in (1, 2)  # the signal may come a little late
    checkpoint.unlink()
    whole = scope["trained"](on_epoch=scope["tell"])
    assert whole.resumed == -1
    assert resumed.history == whole.history
    assert adapter_bytes(resumed.adapter) == adapter_bytes(whole.adapter)


def spoilt(data: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut": data[:-1],
        "one bit flipped": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "text": b"not a checkpoint",
        "random": bytes(range(256)) * 20,
    }


@pytest.mark.parametrize("fault", spoilt(bytes(9)))
def test_a_damaged_checkpoint_is_ignored(
    fault: str, train: Task, unbroken: Trained, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "state"
    cut_off(train, 1, checkpoint)
    checkpoint.write_bytes(spoilt(checkpoint.read_bytes())[fault])
    found = train(checkpoint=checkpoint)
    assert found.resumed == -1
    assert adapter_bytes(found.adapter) == adapter_bytes(unbroken.adapter)


def test_the_checkpoint_of_another_training_is_ignored(
    train: Task, baseline: Baseline, unbroken: Trained, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "state"
    cut_off(train, 1, checkpoint, replace(RECIPE, kernel_lr=0.001))
    assert train(checkpoint=checkpoint).resumed == -1
    checkpoint.unlink()
    cut_off(train, 1, checkpoint)
    fewer = replace(baseline, train=baseline.train[:-1])
    assert train(checkpoint=checkpoint, baseline=fewer).resumed == -1


def test_a_finished_training_is_not_done_again(
    train: Task, unbroken: Trained, tmp_path: Path
) -> None:
    train(checkpoint=tmp_path / "state")
    steps: list[int] = []
    again = train(checkpoint=tmp_path / "state", on_step=lambda *at: steps.append(at[0]))
    assert steps == []
    assert adapter_bytes(again.adapter) == adapter_bytes(unbroken.adapter)


# ---- learning ---------------------------------------------------------------------------


def accuracy(
    backbone: Backbone, adapter: Adapter, images: ImageSet, preprocessing: Preprocessing
) -> float:
    logits = run(
        Program(backbone, adapter.tensors).logits, images, preprocessing, torch.device("cpu")
    )
    return float((predicted(logits) == images.labels.numpy()).mean())


@pytest.fixture(scope="module")
def unseen(
    tmp_path_factory: pytest.TempPathFactory,
    preprocessing: Preprocessing,
    stripes: Callable[[Path, int, int], Files],
) -> ImageSet:
    """Stripes that were not trained on."""
    return ImageSet(*stripes(tmp_path_factory.mktemp("unseen"), 1, 60), preprocessing)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_learns_what_the_probe_alone_does_not(
    variant: str,
    backbone: Backbone,
    train: Task,
    baseline: Baseline,
    unseen: ImageSet,
    preprocessing: Preprocessing,
) -> None:
    features = run(backbone.module, unseen, preprocessing, torch.device("cpu"))
    probe = float((predicted(baseline.probe.logits(features)) == unseen.labels.numpy()).mean())
    trained = train(replace(RECIPE, epochs=12, variant=variant))
    assert trained.best == 12
    found = accuracy(backbone, trained.adapter, unseen, preprocessing)
    assert found > max(0.9, probe + 0.05)
    assert trained.history[12]["train_loss"] < trained.history[1]["train_loss"]


def test_the_history_tells_every_epoch_from_the_start(unbroken: Trained) -> None:
    assert len(unbroken.history) == RECIPE.epochs + 1
    assert "train_loss" not in unbroken.history[0]
    assert all("train_loss" in epoch for epoch in unbroken.history[1:])
    assert all(0 <= epoch["val_accuracy"] <= 1 for epoch in unbroken.history)
    assert unbroken.resumed == -1


def test_the_start_is_the_probe_and_is_returned_where_training_does_harm(
    train: Task, backbone: Backbone, baseline: Baseline, make_spec: Callable[..., AdapterSpec]
) -> None:
    """Epoch 0 competes, and wins."""
    trained = train(HARMFUL)
    assert trained.history[-1]["val_accuracy"] < trained.history[0]["val_accuracy"]
    assert trained.best == 0
    birth = new_adapter(
        trained.adapter.spec, backbone, (baseline.whole.weight, baseline.whole.bias)
    )
    assert adapter_bytes(trained.adapter) == adapter_bytes(birth)


def test_what_is_returned_is_what_its_file_holds_and_what_was_judged(
    train: Task, images: ImageSet, baseline: Baseline, backbone: Backbone
) -> None:
    trained = train(replace(RECIPE, storage="ternary", sparsity=0.5))
    adapter = trained.adapter
    assert trained.best == RECIPE.epochs
    back = parse_adapter(adapter_bytes(adapter), backbone)
    assert all(torch.equal(back.tensors[name], t) for name, t in adapter.tensors.items())
    kernels = torch.cat([t for n, t in adapter.tensors.items() if n.startswith("kernels.")])
    assert 0 < kernels_kept({"kernels.all": kernels}) <= 0.5 * len(kernels)
    held = baseline.validation
    logits = run(
        Program(backbone, adapter.tensors).logits, images, adapter.spec.preprocessing,
        torch.device("cpu"), held,
    )  # fmt: skip
    right = logits.argmax(1) == images.labels[held]
    probe = run(
        lambda batch: baseline.probe.logits(backbone.module(batch)),
        images, adapter.spec.preprocessing, torch.device("cpu"), held,
    )  # fmt: skip
    start = probe.argmax(1) == images.labels[held]
    assert not is_worse(start, right)  # else the start would have been returned


def test_a_start_that_wins_is_compressed_too(
    train: Task, backbone: Backbone, baseline: Baseline
) -> None:
    trained = train(replace(HARMFUL, storage="int4"))
    assert trained.best == 0
    probe = baseline.whole.weight
    moved = float((trained.adapter.tensors["head.weight"] - probe).abs().max())
    assert 0 < moved < 1.01 * float(probe.abs().max()) / 127 / 2  # its head has 8 bits
    assert trained.adapter.added_parameters == 0
    assert parse_adapter(adapter_bytes(trained.adapter), backbone).spec == trained.adapter.spec


def test_the_adapter_that_is_returned_changes_no_more(train: Task, unbroken: Trained) -> None:
    for tensor in unbroken.adapter.tensors.values():
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert bool(torch.isfinite(tensor).all())


def test_the_backbone_is_as_it_was(train: Task, backbone: Backbone) -> None:
    for batch_norm in BATCH_NORMS:
        train(replace(RECIPE, epochs=1, batch_norm=batch_norm))
    backbone.check()
    assert not any(m.training for m in backbone.module.modules())
    assert all(p.grad is None for p in backbone.module.parameters())


def test_statistics_move_only_where_the_recipe_says_so(
    train: Task, backbone: Backbone, baseline: Baseline
) -> None:
    blank = Probe(torch.zeros(3, backbone.channels), torch.zeros(3), 0.1)  # easily beaten
    state = backbone.module.state_dict()
    for batch_norm, moves in (("affine", False), ("batch", True)):
        recipe = replace(RECIPE, batch_norm=batch_norm)
        trained = train(recipe, baseline=replace(baseline, probe=blank))
        assert trained.best > 0
        own = trained.adapter.tensors
        same = [torch.equal(t, state[n.removeprefix("bn.")]) for n, t in own.items()
                if n.endswith(("running_mean", "running_var"))]  # fmt: skip
        assert same
        assert all(same) is not moves


def test_a_learning_rate_of_nought_changes_nothing(train: Task, baseline: Baseline) -> None:
    trained = train(replace(RECIPE, kernel_lr=0.0, head_lr=0.01))
    kernels = [t for n, t in trained.adapter.tensors.items() if n.startswith("kernels.")]
    assert all(float(t.sum()) == len(t) for t in kernels)
    trained = train(replace(RECIPE, kernel_lr=0.001, head_lr=0.0, refit=False))
    assert torch.equal(trained.adapter.tensors["head.weight"], baseline.probe.weight)


def test_the_weights_of_classes_count_in_the_loss(
    train: Task, baseline: Baseline, images: ImageSet
) -> None:
    """With all weight on one class, everything becomes that class."""
    one = replace(baseline, weights=torch.tensor([0.001, 0.001, 3.0]))
    spread = train(replace(RECIPE, head_lr=0.05), baseline=baseline)
    pulled = train(replace(RECIPE, head_lr=0.05), baseline=one)
    assert pulled.history[-1]["val_loss"] != spread.history[-1]["val_loss"]
    assert pulled.history[1]["train_loss"] != spread.history[1]["train_loss"]


def test_progress_is_told_step_by_step(train: Task, baseline: Baseline) -> None:
    steps: list[tuple[int, int, int]] = []
    train(replace(RECIPE, epochs=2), on_step=lambda *at: steps.append(at))
    each = -(-len(baseline.train) // RECIPE.batch_size)
    assert steps == [(epoch, step, each) for epoch in (1, 2) for step in range(1, each + 1)]


def test_a_loss_that_is_not_finite_is_an_error_with_advice(
    backbone: Backbone,
    images: ImageSet,
    baseline: Baseline,
    make_spec: Callable[..., AdapterSpec],
) -> None:
    spec = make_spec(backbone, preprocessing=Preprocessing(32, (0.5,) * 3, (1e-38,) * 3))
    with pytest.raises(UsageError, match="kernel_lr"):
        fit(backbone, images, baseline, spec, RECIPE)


def test_the_learning_rate_rises_falls_and_ends_at_nought() -> None:
    rates = [one_cycle(n / 1000) for n in range(1001)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[0] < 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_training_works_on_a_backbone_without_batch_norm(
    load: Callable[[str], Backbone], images: ImageSet, make_spec: Callable[..., AdapterSpec]
) -> None:
    backbone = load("test_convnext")
    recipe = replace(RECIPE, epochs=1)
    spec = make_spec(backbone)
    start = measure_baseline(backbone, images, spec.preprocessing, recipe, 3)
    trained = fit(backbone, images, start, spec, recipe)
    assert len(trained.history) == 2
    backbone.check()


def test_of_one_backbone_many_tasks_are_trained_at_once_with_the_same_bits(
    train: Task, unbroken: Trained
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    other = replace(RECIPE, batch_norm="batch")
    alone = adapter_bytes(train(other).adapter)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(train, recipe) for recipe in (RECIPE, other)]
    found = [adapter_bytes(job.result().adapter) for job in jobs]
    assert found == [adapter_bytes(unbroken.adapter), alone]


def test_trainings_of_few_steps_go_slowly_in_proportion() -> None:
    recipe = Recipe(epochs=8, batch_size=16)
    assert caution(recipe, 25, 1) == (8 * 2 / STEPS, 8 * 2 / STEPS)
    assert caution(recipe, 250, 10) == (8 * 16 / STEPS, 8 * 16 / STEPS)
    assert caution(recipe, 32 * 16, 20) == (1, 1)


@pytest.mark.parametrize("times", [2, 4, 40])
def test_kernels_go_more_slowly_where_they_take_many_steps(times: int) -> None:
    recipe = Recipe(epochs=STEPS * times // 16, batch_size=16)
    head, kernels = caution(recipe, 16 * 16, 2)
    assert head == 1
    assert 1 / times < kernels < times**-0.5


def test_kernels_go_more_slowly_still_where_a_class_has_few_images() -> None:
    recipe = Recipe(epochs=2, batch_size=16)
    for images, share in ((FEW // 4, 1 / 16), (FEW // 2, 1 / 4), (FEW, 1), (5 * FEW, 1)):
        head, kernels = caution(recipe, 10 * images, 10)
        assert kernels == pytest.approx(share * head)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_before_the_stride_stay_identity(
    variant: str, train: Task, backbone: Backbone, tmp_path: Path
) -> None:
    late = late_sites(backbone, 8)
    recipe = replace(RECIPE, variant=variant, from_stride=8, refit=False)
    adapter = train(recipe).adapter
    idle = {
        name.removeprefix("kernels."): is_idle(tensor)
        for name, tensor in adapter.tensors.items()
        if name.startswith("kernels.")
    }
    assert idle == {path: path not in late for path in idle}
    assert {*idle.values()} == {True, False}
    ups = {n.split(".", 1)[1][:-3]: t for n, t in adapter.tensors.items() if n.endswith(".up")}
    assert all(bool(up.any()) == (path in late) for path, up in ups.items())
    assert adapter.added_parameters < train(replace(recipe, from_stride=1)).adapter.added_parameters
    cut_off(train, 1, tmp_path / "state", recipe)
    resumed = train(recipe, checkpoint=tmp_path / "state")
    assert adapter_bytes(resumed.adapter) == adapter_bytes(adapter)


def test_few_images_leave_kernels_of_the_first_layers_identity() -> None:
    assert [first_stride(Recipe(), images) for images in (20, FEW_IMAGES, FEW_IMAGES + 1)] == [
        4,
        4,
        1,
    ]
    assert {first_stride(Recipe(from_stride=8), images) for images in (20, 5000)} == {8}


def test_by_default_what_learns_follows_the_number_of_images(
    train: Task, backbone: Backbone
) -> None:
    adapter = train(replace(RECIPE, from_stride=0)).adapter
    assert adapter_bytes(adapter) != adapter_bytes(train().adapter)
    idle = {
        name for name, tensor in adapter.tensors.items() if is_early(name, late_sites(backbone, 4))
    }
    assert idle
    assert all(is_idle(adapter.tensors[name]) for name in idle)


def test_few_images_leave_the_kernels_near_identity(
    train: Task, baseline: Baseline, unbroken: Trained
) -> None:
    few = replace(baseline, train=baseline.train[::16])
    moved = [
        max(float(t.abs().max()) for n, t in _deviations(one.adapter).items())
        for one in (train(replace(RECIPE, storage="float32"), baseline=few), unbroken)
    ]
    assert moved[0] < moved[1] / 4


def _deviations(adapter: Adapter) -> dict[str, torch.Tensor]:
    kernels = {n: t.clone() for n, t in adapter.tensors.items() if n.startswith("kernels.")}
    for kernel in kernels.values():
        kernel[:, 0, 1, 1] -= 1
    return kernels
