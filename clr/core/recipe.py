"""How an adapter is trained: every number in one place, checked when it is made."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from clr.core.compress import STORAGES
from clr.core.sites import BATCH_NORMS, Variant
from clr.errors import UsageError

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"fast": {"epochs": 4}, "standard": {}, "best": {"epochs": 30}}
)
"""Settings by the name that ``recipe.preset`` gives: time for accuracy (docs/recipe.md)."""

FEW_IMAGES = 1000
"""Of a task, up to which the kernels of the first layers stay identity."""


@dataclass(frozen=True)
class Recipe:
    """Training settings; ``recipe:`` in ``task.yaml`` overrides them by name.

    Attributes:
        variant: where kernels act: ``reduced``, ``full`` or ``mix``.
        from_stride: kernels learn after convolutions whose output is this many times smaller than
            the image, or smaller; those before stay identity. 1: all learn; 0: by the number of
            images (see `first_stride`).
        image_size: side in pixels; 0: from the task's own images (see `image_size`).
        epochs: passes over the training part.
        batch_size: images a step.
        kernel_lr: peak learning rate of kernels, mixing and batch norm.
        head_lr: peak learning rate of the head, which starts as the linear probe.
        refit: average the head with one that is fitted anew to the adapted features.
        label_smoothing: Szegedy et al. 2016, section 7.
        validation_share: part of train that chooses the probe's penalty and judges the end.
        batch_norm: ``frozen``, ``affine`` or ``batch``.
        rank: of the channel mixing of ``mix``.
        storage: of the adapter file: ``float32``, ``float16``, ``int8``, ``int4``, ``ternary``.
        sparsity: share of the kernels that end at identity and are not stored; training
            prunes them step by step (see `clr.core.prune`).
        flips: try mirrored and turned images, and use those that keep their label.
        shift: largest shift in both directions, as a share of the side.
        balance: weigh classes by the inverse of their frequency where it is uneven.
        seed: of validation part, order, augmentation.
    """

    variant: str = "reduced"
    from_stride: int = 0
    image_size: int = 0
    epochs: int = 12
    batch_size: int = 16
    kernel_lr: float = 1e-2
    head_lr: float = 1e-3
    refit: bool = True
    label_smoothing: float = 0.1
    validation_share: float = 0.15
    batch_norm: str = "frozen"
    rank: int = 4
    storage: str = "int4"
    sparsity: float = 0.0
    flips: bool = True
    shift: float = 0.08
    balance: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("variant", self.variant, get_args(Variant))
        _one_of("batch_norm", self.batch_norm, BATCH_NORMS)
        _within("from_stride", self.from_stride, 0, 32)
        _within("image_size", self.image_size, 0, 1024)
        if 0 < self.image_size < 32:
            raise UsageError(f"recipe.image_size is {self.image_size}: use 0 or 32 … 1024.")
        _within("epochs", self.epochs, 1, 1000)
        _within("batch_size", self.batch_size, 2, 4096)
        _within("kernel_lr", self.kernel_lr, 0, 1)
        _within("head_lr", self.head_lr, 0, 1)
        _within("label_smoothing", self.label_smoothing, 0, 0.5)
        _within("validation_share", self.validation_share, 0.05, 0.5)
        _within("rank", self.rank, 1, 64)
        _one_of("storage", self.storage, STORAGES)
        _within("sparsity", self.sparsity, 0, 0.99)
        _within("shift", self.shift, 0, 0.5)
        _within("seed", self.seed, 0, 2**31 - 1)

    @classmethod
    def of(cls, overrides: Mapping[str, Any], **defaults: Any) -> Recipe:
        """Return the default recipe with `defaults`, then `overrides`, put in.

        A `preset` among the overrides stands for the settings of `PRESETS`; those that are
        named beside it win.

        Raises:
            UsageError: an unknown name (near ones are named) or a value of the wrong kind.
        """
        kinds = get_type_hints(cls)
        own = dict(overrides)
        preset = own.pop("preset", "standard")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise UsageError(
                f"recipe.preset is {preset!r}.", fix=f"Use one of {', '.join(PRESETS)}."
            )
        values = defaults | dict(PRESETS[preset])
        for name, value in own.items():
            if name not in kinds:
                near = difflib.get_close_matches(str(name), kinds, n=3)
                raise UsageError(
                    f"recipe.{name} in task.yaml is not a setting of the recipe.",
                    fix=f"Did you mean {', '.join(near)}?"
                    if near
                    else f"Known: {', '.join(kinds)}",
                )
            values[name] = _cast(name, value, kinds[name])
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return every setting by name, JSON-serialisable."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def image_size(side: float) -> int:
    """Return the input size for images whose typical longer side is `side` pixels.

    The next multiple of 32 (the stride of the usual backbones), at least 96 so that the
    last feature map is not a single pixel, at most 160 for the sake of training time.
    """
    return int(min(160, max(96, -(-side // 32) * 32)))


def first_stride(recipe: Recipe, images: int) -> int:
    """Return from which stride on kernels learn from so many images of a task.

    Those of the first layers bring nothing to `FEW_IMAGES`, and cost a tenth of the time; to
    more they bring a little (docs/recipe.md).
    """
    return recipe.from_stride or (4 if images <= FEW_IMAGES else 1)


def _cast(name: str, value: Any, kind: type) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        with contextlib.suppress(OverflowError):  # of a whole number that no float holds
            return float(value)
    if isinstance(value, kind) and (kind is bool) == isinstance(value, bool):
        return value
    raise UsageError(
        f"recipe.{name} is {value!r}, not a value of type {kind.__name__}.",
        fix="Correct it in task.yaml.",
    )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"recipe.{name} is {value!r}.", fix=f"Use one of {', '.join(allowed)}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"recipe.{name} is {value}, not between {low} and {high}.")
