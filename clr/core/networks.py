"""Networks by their name in timm or torchvision, with the facts that come with their weights."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from clr.core import weights
from clr.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def named_network(name: str, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network as it is published, head included, and facts of a `Backbone` about it.

    Args:
        name: of timm, else of torchvision; ``timm:`` or ``torchvision:`` before it decides.
        pretrained: False gives random weights from a fixed seed.

    Raises:
        UsageError: unknown name; near ones are named.
        ServiceUnavailable: weights that are not here and cannot be fetched.
    """
    import timm
    from torchvision import models

    library, _, plain = name.rpartition(":")
    if library in ("", "timm") and timm.is_model(plain):
        return _from_timm(plain, pretrained)
    if library in ("", "torchvision") and plain in models.list_models(module=models):
        return _from_torchvision(plain, pretrained)
    known = {*timm.list_models(), *models.list_models(module=models)}
    near = difflib.get_close_matches(plain, known, n=5, cutoff=0.5)
    raise UsageError(
        f"There is no backbone {name!r} in timm or torchvision.",
        fix=f"Did you mean {', '.join(near)}?" if near else "See timm.list_models().",
        near=near,
    )


def _from_timm(name: str, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    try:
        with _seeded():
            network = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UsageError(
            f"timm cannot make {name}: {error}.",
            fix=f"Known weights: {', '.join(tags) or 'none'}.",
            near=tags,
        ) from error
    config = getattr(network, "pretrained_cfg", None) or {}
    source = "random"
    if pretrained:
        packaged = weights.packaged_state(name, network)
        if packaged is not None:
            state, source = packaged
            network.load_state_dict(state)
        else:
            try:
                network = timm.create_model(name, pretrained=True)
            except Exception as error:
                raise weights.no_weights(name, str(error)) from error
            source = f"timm:{config.get('hf_hub_id') or config.get('url') or name}"
    return network, {
        "mean": tuple(config.get("mean", IMAGENET_MEAN)),
        "std": tuple(config.get("std", IMAGENET_STD)),
        "interpolation": _interpolation(config.get("interpolation", "bicubic")),
        "source": source,
        "licence": str(config.get("license") or "") if pretrained else "",
        "pretrained": pretrained,
    }


def _from_torchvision(name: str, pretrained: bool) -> tuple[nn.Module, dict[str, Any]]:
    from torchvision import models

    with _seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on how random weights are drawn
        network = models.get_model(name, weights=None)
    source, interpolation = "random", "bilinear"
    if pretrained:
        chosen = models.get_model_weights(name).DEFAULT
        try:
            state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:
            raise weights.no_weights(name, str(error)) from error
        network.load_state_dict(weights.renamed(state))
        if hasattr(network, "transform_input"):  # these weights were trained on -1 … 1
            network.transform_input = True
        source, interpolation = f"torchvision:{chosen}", chosen.transforms().interpolation.value
    return network, {
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "interpolation": _interpolation(interpolation),
        "source": source,
        "licence": "BSD-3-Clause" if pretrained else "",
        "pretrained": pretrained,
    }


@contextmanager
def _seeded() -> Iterator[None]:
    """Random weights that are the same every time, without touching the caller's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _interpolation(name: str) -> str:
    return name if name in ("bilinear", "bicubic") else "bicubic"


def drop_head(network: nn.Module) -> None:
    """Replace the classifier by identity, so that the network ends in its features.

    Raises:
        UsageError: there is none.
    """
    for branch in ("aux1", "aux2", "AuxLogits"):  # GoogLeNet, Inception: training only
        if hasattr(network, branch):
            setattr(network, branch, None)
    reset: Callable[[int], None] | None = getattr(network, "reset_classifier", None)
    if reset is not None:
        reset(0)
        return
    kinds = dict(network.named_modules())
    heads = [path for path, module in kinds.items() if isinstance(module, nn.Linear)]
    if not heads:  # SqueezeNet classifies by a convolution before the pooling
        heads = [path for path, module in kinds.items() if isinstance(module, nn.Conv2d)]
    if not heads:
        raise UsageError("The network has no head to replace.", fix="Choose another CNN.")
    parent, _, leaf = heads[-1].rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
