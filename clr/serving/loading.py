"""Load a release for serving: only what is new, every digest checked before it answers.

What cannot be trusted is refused by name, and the rest is served: an adapter whose file is
damaged takes its own task away and no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from clr.core.adapter import Adapter, load_adapter
from clr.core.backbone import Backbone, find_device, load_backbone
from clr.errors import ClrError, IntegrityBroken, ServiceUnavailable
from clr.registry.alias import release_in_force
from clr.registry.evidence import champion_evidence, copies_of_evidence, release_router
from clr.registry.fetch import adapter_path, kept_adapter
from clr.registry.release import check_backbone
from clr.registry.releases import get_release
from clr.registry.store import open_registry
from clr.serving.remembered import remember, remembered
from clr.serving.snapshot import Loaded, Snapshot

if TYPE_CHECKING:
    from clr.core.evidence import Evidence
    from clr.core.routing import Router
    from clr.registry.release import ChampionRef, Release
    from clr.registry.store import Registry
    from clr.settings import Settings

Keep = Callable[["ChampionRef", Adapter], None]


class Registered:
    """The releases of one registry, opened when it first answers."""

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        """Open nothing yet.

        Args:
            settings: of the workspace.
            backbone: that serves.
        """
        self.keep: Keep = lambda ref, adapter: None
        self._settings, self._backbone = settings, backbone
        self._registry: Registry | None = None
        self._asking = threading.Lock()

    def in_force(self) -> int:
        """Return the number of the release in force; 0: none.

        Raises:
            ServiceUnavailable: the registry cannot be asked, or has not yet answered the last
                question.
        """
        if not self._asking.acquire(blocking=False):
            raise ServiceUnavailable("The registry has not answered yet.")
        try:
            return release_in_force(self.open())
        finally:
            self._asking.release()

    def load(self, number: int, before: Snapshot | None) -> Snapshot:
        """Return a release, verified; what `before` has, too, is not read again.

        Raises:
            IntegrityBroken: its file is damaged, or it is of another backbone.
            ServiceUnavailable: the registry cannot be asked.
        """
        registry = self.open()
        snapshot = self._verify(registry, get_release(registry, number), before)
        with suppress(OSError):  # without it the next start needs the registry
            remember(self._settings.state, snapshot.release)
        return snapshot

    def last(self) -> Snapshot | None:
        """Return the release that was verified last, from this machine's copies of its files.

        Raises:
            IntegrityBroken: it is damaged, or of another backbone.
        """
        release = remembered(self._settings.state)
        return None if release is None else self._verify(None, release, None)

    def read(self, ref: ChampionRef) -> Adapter:
        """Return an adapter, checked.

        Raises:
            IntegrityBroken: missing, other bytes, or of another backbone or task.
            ServiceUnavailable: the registry has to be asked and cannot be.
        """
        return self._read(self._registry, ref)

    def evidence(self, ref: ChampionRef) -> Evidence:
        """Return the evidence of a champion, from this machine's copy or the registry.

        Raises:
            IntegrityBroken: it is missing, or its bytes are not those that were recorded.
        """
        return champion_evidence(self._registry, copies_of_evidence(self._settings.state), ref)

    def open(self) -> Registry:
        """Return the registry.

        Raises:
            ServiceUnavailable: it cannot be reached.
        """
        if self._registry is None:
            self._registry = open_registry(self._settings)
        return self._registry

    def _verify(
        self, registry: Registry | None, release: Release, before: Snapshot | None
    ) -> Snapshot:
        check_backbone(release, self._backbone.digest)
        tasks: dict[str, Loaded] = {}
        refused: dict[str, str] = {}
        for task, ref in sorted(release.tasks.items()):
            had = before.tasks.get(task) if before else None
            if had is not None and had.ref.adapter_digest == ref.adapter_digest:
                tasks[task] = Loaded(ref, had.spec)
                continue
            try:
                adapter = self._read(registry, ref)
                self.keep(ref, adapter)
                tasks[task] = Loaded(ref, adapter.spec)
            except ClrError as error:
                refused[task] = error.message
        router, routing = self._router(registry, release, before)
        return Snapshot(release, tasks, refused, router, routing, cached=registry is None)

    def _read(self, registry: Registry | None, ref: ChampionRef) -> Adapter:
        path = (
            kept_adapter(self._settings.state, ref.adapter_digest)
            if registry is None
            else adapter_path(registry, ref.task, ref.version, ref.adapter_digest)
        )
        if not path.is_file():
            raise IntegrityBroken(
                f"There is no copy of the adapter of {ref.task} version {ref.version} here.",
                fix="It is fetched when the registry answers.",
            )
        adapter = load_adapter(path, self._backbone, ref.adapter_digest)
        if adapter.spec.task != ref.task:
            raise IntegrityBroken(
                f"The adapter {ref.adapter_digest} is of {adapter.spec.task}, not of {ref.task}.",
                fix="Run `clr verify`.",
            )
        return adapter

    def _router(
        self, registry: Registry | None, release: Release, before: Snapshot | None
    ) -> tuple[Router | None, str]:
        """Return the router, or why there is none; one task alone needs none."""
        if len(release.tasks) < 2:
            return None, ""
        if before and before.router is not None and before.router.digest == release.router:
            return before.router, ""
        try:
            folder = copies_of_evidence(self._settings.state)
            router = release_router(registry, folder, release)
        except (IntegrityBroken, ServiceUnavailable) as error:
            return None, error.message
        router.calibrate(self._settings.router_doubt, self._settings.router_unknown)
        return router, ""


def open_backbone(settings: Settings) -> Backbone:
    """Load the backbone that the settings name.

    Raises:
        UsageError: a setting is wrong.
        IntegrityBroken: its file is not the one whose digest is pinned.
        ServiceUnavailable: its weights are not here and cannot be fetched.
    """
    return load_backbone(
        settings.backbone,
        architecture=settings.backbone_architecture,
        sha256=settings.backbone_sha256,
        device=find_device(settings.device, settings.threads),
    )
