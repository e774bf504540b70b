"""What an engine is made of, opened: backbone, adapters, router, threads. It imports PyTorch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from clr.core.mixed import MixedNetwork
from clr.serving.adapters import Attached
from clr.serving.answering import Desk
from clr.serving.batching import Batcher
from clr.serving.challengers import Challengers
from clr.serving.following import Follower
from clr.serving.loading import Registered, open_backbone
from clr.serving.passes import compute
from clr.serving.watching import Watcher

if TYPE_CHECKING:
    from clr.settings import Settings

MOST_DECODERS = 8


def open_parts(settings: Settings) -> tuple[Desk, Follower, Watcher]:
    """Return what answers, what knows the release in force, and what watches the answers.

    Raises:
        ClrError: a setting is wrong, or the backbone cannot be loaded.
    """
    backbone = open_backbone(settings)
    source = Registered(settings, backbone)
    attached = Attached(MixedNetwork(backbone), source.read, settings.serve_adapters)
    source.keep = attached.add
    batcher = Batcher(
        partial(compute, attached), settings.serve_batch, settings.serve_wait_ms / 1000
    )
    challengers = Challengers(
        settings.state, source.open, attached.prepare, settings.serve_poll_seconds
    )
    decoders = ThreadPoolExecutor(min(MOST_DECODERS, os.cpu_count() or 1), "clr-decode")
    desk = Desk(backbone, batcher, decoders, settings.max_image_pixels, challengers)
    follower = Follower(source, settings.serve_poll_seconds, settings.serve_fresh_seconds)
    return desk, follower, Watcher(settings, desk, lambda: follower.snapshot, source.evidence)
