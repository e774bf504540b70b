"""Train one adapter: from the linear probe, epoch by epoch, resumable at each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clr.core.adapter import Adapter, AdapterSpec, new_adapter
from clr.core.backbone import Backbone
from clr.core.baseline import Baseline
from clr.core.checkpoint import Checkpoint, Epoch, load_checkpoint, save_checkpoint
from clr.core.evaluate import run
from clr.core.files import canonical_json, sha256_bytes
from clr.core.heads import Head, Heads, mean_heads
from clr.core.images import ImageSet, Preprocessing
from clr.core.network import Program
from clr.core.prune import prune, pruned_share
from clr.core.rates import caution
from clr.core.recipe import Recipe, first_stride
from clr.core.sites import is_early, late_sites
from clr.core.training import OnStep, Training, is_worse

OnEpoch = Callable[[int, Epoch], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """The adapter, and how it came about.

    Attributes:
        adapter: on the CPU.
        history: per epoch, 0 being the start: train_loss (absent at 0); where somebody was told
            of it, val_loss and val_accuracy as well.
        best: the epoch that `adapter` is of: the last, or 0.
        resumed: the epoch after which an earlier process was cut off; -1: none was.
    """

    adapter: Adapter
    history: tuple[Epoch, ...]
    best: int
    resumed: int = -1


def spec_of(
    task: str,
    labels: tuple[str, ...],
    backbone: Backbone,
    preprocessing: Preprocessing,
    recipe: Recipe,
) -> AdapterSpec:
    """Return what an adapter that is trained by `recipe` is for."""
    return AdapterSpec(
        task=task,
        labels=labels,
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        preprocessing=preprocessing,
        variant=recipe.variant,  # type: ignore[arg-type]  # the recipe has checked these
        batch_norm=recipe.batch_norm,  # type: ignore[arg-type]
        rank=recipe.rank,
        storage=recipe.storage,  # type: ignore[arg-type]
        recipe=recipe.as_dict(),
    )


def fit(
    backbone: Backbone,
    images: ImageSet,
    baseline: Baseline,
    spec: AdapterSpec,
    recipe: Recipe,
    *,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    checkpoint: Path | None = None,
    seconds: float | None = None,
) -> Trained:
    """Train an adapter on the training part, to the end of the one-cycle schedule.

    The end has a mean head (`clr.core.heads`). The start (the probe's head, identity kernels)
    is epoch 0 and is returned instead where the end is worse on the validation part
    (`is_worse`). Epochs between do not compete: their learning rate has not come down, and
    the probe's penalty, chosen for its validation loss, makes that loss a poor judge of
    adapters, which are surer of themselves. Both are judged compressed, as they would be
    stored, and before their heads have seen that part.

    Args:
        backbone: frozen.
        images: the task's train split.
        baseline: of the same images and recipe.
        spec: what the adapter is for.
        recipe: how to train.
        on_epoch: called as (number, metrics) after every epoch, those of earlier processes too;
            without it, none but the end is validated.
        on_step: called as (epoch, step, steps of the epoch).
        checkpoint: file that is written after every epoch, and continued if it is there.
        seconds: of wall time to spend, instead of the recipe's epochs; a training that goes
            on from a checkpoint has all of them again.

    Raises:
        UsageError: the loss is not finite: a learning rate far too high.
    """
    probe = baseline.probe.weight, baseline.probe.bias
    start = new_adapter(spec, backbone, probe).compressed()
    # copies: the start stays what the end is judged against
    tensors = {name: t.to(backbone.device, copy=True) for name, t in start.tensors.items()}
    shares = caution(recipe, len(baseline.train), len(spec.labels))
    parameters = _parameters(tensors, recipe, learning_sites(backbone, recipe, baseline), *shares)
    fold = recipe.batch_norm == "frozen"
    program = Program(backbone, tensors, fold=fold)
    optimiser = torch.optim.Adam(
        [{"params": [tensors[name]], "lr": lr} for name, lr in parameters.items()],
        betas=(0.9, 0.99),
    )
    key = _key(spec, recipe, images, baseline)
    kept = load_checkpoint(checkpoint, key) if checkpoint else None
    history: list[Epoch] = list(kept.history) if kept else []
    if kept:
        _restore(kept, tensors, optimiser, parameters)
    for number, epoch in enumerate(history):
        _tell(on_epoch, number, epoch)
    training = Training(
        lambda batch: program.logits(batch, batch_statistics=recipe.batch_norm == "batch"),
        program.logits,
        images,
        baseline,
        spec.preprocessing,
        recipe,
        backbone.device,
        seconds,
        mixed_on_cpu=fold,
    )

    def sparse(progress: float) -> None:
        prune(tensors, pruned_share(progress, recipe.sparsity))

    for number in training.epochs(len(history)):
        loss = training.epoch(optimiser, number, on_step, sparse)
        epoch = {} if loss is None else {"train_loss": loss}
        if on_epoch:
            epoch |= training.validate()
        history.append(epoch)
        if checkpoint:
            moments = _moments(optimiser, parameters)
            save_checkpoint(Checkpoint(tensors, moments, tuple(history)), checkpoint, key)
        _tell(on_epoch, number, epoch)
    resumed = len(kept.history) - 1 if kept else -1
    prune(tensors, recipe.sparsity)  # which a training of few steps has not got to
    # half of a head that has learned all it can; of one that took few steps, less
    end = _end(start, tensors, program, training, shares[0] / 2)
    if end is not None:
        return Trained(end, tuple(history), len(history) - 1, resumed)
    whole = baseline.whole if recipe.refit else baseline.probe
    start = new_adapter(spec, backbone, (whole.weight, whole.bias)).compressed()
    return Trained(start, tuple(history), 0, resumed)


@torch.no_grad()
def _end(
    start: Adapter,
    tensors: dict[str, Tensor],
    program: Program,
    training: Training,
    share: float,
) -> Adapter | None:
    """Return the adapter at the end, with its mean head; None where the start is better.

    Args:
        start: the adapter at birth.
        tensors: at the end; what `program` and `training` compute with; overwritten.
        program: of these tensors.
        training: that is over.
        share: of the trained head in the mean head.
    """
    spec, images, baseline = start.spec, training.images, training.baseline
    ended = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    _copy(start.tensors, tensors)
    before = training.right()
    _copy(_stored(spec, ended).tensors, tensors)
    features = run(program.features, images, spec.preprocessing, training.device, baseline.images)
    labels, count = images.labels[baseline.images], len(baseline.train)
    trained = ended["head.weight"].cpu(), ended["head.bias"].cpu()
    heads = Heads(trained, trained)
    if training.recipe.refit:
        heads = mean_heads(trained, features, labels, baseline, share)
    judged = _stored(spec, ended, heads.judged).tensors
    logits = F.linear(features[count:], judged["head.weight"], judged["head.bias"])
    if is_worse(before, logits.argmax(1) == labels[count:]):
        return None
    return _stored(spec, ended, heads.kept)


def _stored(spec: AdapterSpec, tensors: dict[str, Tensor], head: Head | None = None) -> Adapter:
    """Return an adapter as its file will hold it, on the CPU; with another head where given."""
    weight, bias = head or (tensors["head.weight"], tensors["head.bias"])
    own = tensors | {"head.weight": weight, "head.bias": bias}
    return Adapter(spec, own).detached().compressed()


def learning_sites(backbone: Backbone, recipe: Recipe, baseline: Baseline) -> frozenset[str]:
    """Return the paths of the convolutions after which kernels may learn."""
    return late_sites(backbone, first_stride(recipe, len(baseline.images)))


def _parameters(
    tensors: dict[str, Tensor], recipe: Recipe, late: frozenset[str], head: float, kernels: float
) -> dict[str, float]:
    """Return the peak learning rate of every tensor that is trained."""
    rates: dict[str, float] = {}
    for name, tensor in tensors.items():
        if name.endswith((".running_mean", ".running_var")) or is_early(name, late):
            continue
        is_head = name.startswith("head.")
        rates[name] = head * recipe.head_lr if is_head else kernels * recipe.kernel_lr
        tensor.requires_grad_()
    return rates


def _key(spec: AdapterSpec, recipe: Recipe, images: ImageSet, baseline: Baseline) -> str:
    facts = {
        "spec": asdict(spec),
        "recipe": recipe.as_dict(),
        "files": [str(path) for path in images.paths],
        "train": baseline.train.tolist(),
        "turns": baseline.turns,
        "head": sha256_bytes(baseline.probe.weight.numpy().tobytes()),
    }
    return sha256_bytes(canonical_json(facts))


def _moments(optimiser: torch.optim.Optimizer, names: dict[str, float]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, group in zip(names, optimiser.param_groups, strict=True):
        for field, value in optimiser.state.get(group["params"][0], {}).items():
            found[f"{name}/{field}"] = torch.as_tensor(value)
    return found


@torch.no_grad()
def _restore(
    kept: Checkpoint,
    tensors: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    names: dict[str, float],
) -> None:
    _copy(kept.tensors, tensors)
    by_name = {
        name: group["params"][0] for name, group in zip(names, optimiser.param_groups, strict=True)
    }
    for key, value in kept.moments.items():
        name, _, field = key.rpartition("/")
        # Adam keeps its step count on the CPU
        moved = value if field == "step" else value.to(by_name[name].device)
        optimiser.state[by_name[name]][field] = moved.clone()


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _tell(on_epoch: OnEpoch | None, number: int, epoch: Epoch) -> None:
    if on_epoch:
        on_epoch(number, epoch)
