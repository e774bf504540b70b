"""Where a program acts in a shared backbone: after and instead of modules, in one thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
_PREPARING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Places:
    """What acts at which of the backbone's modules.

    Attributes:
        after: on a module's output.
        instead: in place of a module's forward.
    """

    after: Mapping[nn.Module, Function] = field(default_factory=dict)
    instead: Mapping[nn.Module, Function] = field(default_factory=dict)


_ACTIVE: ContextVar[Places | None] = ContextVar("clr_active", default=None)
"""What acts in this thread; the backbone itself never changes."""


def prepare(places: Places) -> None:
    """Let programs act at these modules: once each, also for a copied backbone."""
    with _PREPARING:
        _hook(places.after)
        for module in places.instead:
            if "forward" not in vars(module):
                vars(module)["forward"] = functools.partial(_forward, module)


def _hook(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if _after not in module._forward_hooks.values():
            module.register_forward_hook(_after)


@contextmanager
def acting(places: Places) -> Iterator[None]:
    """Let `places` act while this thread is inside."""
    token = _ACTIVE.set(places)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def _after(module: nn.Module, _: object, output: Tensor) -> Tensor | None:
    places = _ACTIVE.get()
    function = places.after.get(module) if places else None
    return function(output) if function is not None else None


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    places = _ACTIVE.get()
    function = places.instead.get(module) if places else None
    return function(x) if function is not None else plain(module, x)


def plain(module: nn.Module, x: Tensor) -> Tensor:
    """Return what a module itself gives: the forward of its class asks nobody what acts instead."""
    output: Tensor = type(module).forward(module, x)
    return output
