"""What one process holds open for a workspace: settings, backbone, registry, ledger, locks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.errors import IntegrityBroken
from clr.registry.evidence import EVIDENCE_FILE as EVIDENCE_FILE
from clr.settings import Settings, load_settings
from flows import embedded, locks

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.audit.ledger import Ledger
    from clr.core.backbone import Backbone
    from clr.core.evidence import Evidence
    from clr.core.network import ReprogrammedNetwork
    from clr.core.routing import Router
    from clr.data.folder import TaskFolder
    from clr.registry.release import ChampionRef, Release
    from clr.registry.store import Registry

LOG = logging.getLogger("clr")
GATE_FILE = "gate.json"
"""Beside ``release.json``."""


@dataclass(frozen=True, eq=False)
class Session:
    """Handles of one workspace, each opened on first use and only once."""

    settings: Settings

    @cached_property
    def device(self) -> str:
        """Where torch computes: the setting, or the best that is there.

        Raises:
            UsageError: the setting names what this machine does not have.
        """
        from clr.core.backbone import find_device

        return find_device(self.settings.device, self.settings.threads)

    @cached_property
    def backbone(self) -> Backbone:
        """The one frozen backbone of the workspace."""
        from clr.core.backbone import load_backbone

        LOG.info("backbone  loading %s", self.settings.backbone)
        return load_backbone(
            self.settings.backbone,
            architecture=self.settings.backbone_architecture,
            sha256=self.settings.backbone_sha256,
            device=self.device,
        )

    @cached_property
    def registry(self) -> Registry:
        """The MLflow registry: SQLite under ``CLR_HOME``, or the server of ``CLR_REGISTRY_URL``."""
        from clr.registry.store import open_registry

        return open_registry(self.settings)

    @cached_property
    def ledger(self) -> Ledger:
        """The append-only ledger: ours, or read through the guarded server of another machine."""
        from clr.audit.ledger import open_ledger
        from clr.registry.served import ServedLedger, is_elsewhere

        if is_elsewhere(self.settings) and self.registry.guarded:
            return ServedLedger(self.registry, self.settings.state)
        return open_ledger(self.settings.state, self.settings.ledger_url)

    def record(
        self, action: str, subject: str, payload: Mapping[str, Any], key: str | None = None
    ) -> Entry:
        """Write an act into the ledger, by whoever acts here (see `Ledger.append`)."""
        from flows.provenance import identity

        actor, authentication = identity(self.registry)
        return self.ledger.append(
            action, subject, payload, actor=actor, authentication=authentication, key=key
        )

    def assumptions(self, task: TaskFolder) -> dict[str, Any]:
        """Return what is assumed of a task's business, unchecked: by itself, else by settings."""
        return {**self.settings.business(), **task.business}

    @cached_property
    def network(self) -> ReprogrammedNetwork:
        """The backbone with adapters: champions under their task's name, others by digest."""
        from clr.core.network import ReprogrammedNetwork

        return ReprogrammedNetwork(self.backbone)

    def champion_network(self, champion: ChampionRef) -> ReprogrammedNetwork:
        """Return the network with this champion attached under its task's name.

        Raises:
            IntegrityBroken: the registered adapter is not the one that the release names.
        """
        from clr.core.adapter import load_adapter
        from clr.registry.fetch import adapter_path

        if self._attached.get(champion.task) != champion.adapter_digest:
            path = adapter_path(
                self.registry, champion.task, champion.version, champion.adapter_digest
            )
            adapter = load_adapter(path, self.backbone, champion.adapter_digest)
            self.network.attach(adapter, champion.task)
            self._attached[champion.task] = champion.adapter_digest
        return self.network

    @cached_property
    def _attached(self) -> dict[str, str]:
        return {}

    def evidence(self, champion: ChampionRef) -> Evidence:
        """Return the evidence recorded with a champion, from the local copy or the registry.

        Raises:
            IntegrityBroken: it is missing, or its bytes are not those that were recorded.
        """
        from clr.registry.evidence import champion_evidence, copies_of_evidence

        return champion_evidence(self.registry, copies_of_evidence(self.settings.state), champion)

    def evidence_copy(self, digest: str) -> Path:
        """Return where the local copy of an evidence file is kept."""
        from clr.registry.evidence import copies_of_evidence, evidence_copy

        return evidence_copy(copies_of_evidence(self.settings.state), digest)

    def router(self, release: Release) -> Router:
        """Return the router of a release, made from its tasks' evidence; kept for the next call.

        Raises:
            IntegrityBroken: its digest is not the one that the release names.
        """
        from clr.registry.evidence import copies_of_evidence, release_router

        if release.router not in self._routers:
            router = release_router(self.registry, copies_of_evidence(self.settings.state), release)
            self.keep_router(release, router)
        return self._routers[release.router]

    def keep_router(self, release: Release, router: Router) -> None:
        """Keep the router of a release, made elsewhere, for the next call of `router`.

        Raises:
            IntegrityBroken: its digest is not the one that the release names.
        """
        from clr.registry.evidence import checked_router

        checked_router(release, router)
        self._routers.clear()  # a long-lived process sees many releases, one at a time
        self._routers[release.router] = router

    @cached_property
    def held(self) -> dict[str, Evidence]:
        """Evidence, `slim`, by digest, that a gate in this process holds while it runs."""
        return {}

    @cached_property
    def _routers(self) -> dict[str, Router]:
        return {}

    def gate_report(self, release: Release) -> dict[str, Any]:
        """Return the gate report that admitted a release.

        Raises:
            IntegrityBroken: it is missing, or its bytes are not those that were recorded.
        """
        from clr.core.files import sha256_bytes
        from clr.registry.fetch import fetch_file
        from clr.registry.local import scratch
        from clr.registry.store import RELEASE_MODEL

        with scratch(self.registry) as folder:
            path = fetch_file(self.registry, RELEASE_MODEL, release.version, GATE_FILE, folder)
            data = path.read_bytes() if path.is_file() else b""
        if sha256_bytes(data) != release.gate:
            raise IntegrityBroken(
                f"The gate report of release {release.version} is missing or has been changed.",
                fix="Restore it from a backup of the registry.",
            )
        report: dict[str, Any] = json.loads(data)
        return report

    def cache(self, name: str) -> Path:
        """Return the folder of one kind of local copies."""
        folder = self.settings.state / "cache" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def sweep(self, task: str) -> None:
        """Remove the half-written files of killed onboardings of `task`; hold its lock."""
        for kind in ("tasks", "trainings", "validations"):
            for left in (self.settings.state / kind / task).rglob(".*.tmp"):
                left.unlink(missing_ok=True)

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock `name` (flows/locks.py); it is free again if this process dies.

        Raises:
            ServiceUnavailable: somebody else held it for an hour, or Prefect's server, which
                lends those that machines share, cannot be reached.
        """
        return locks.hold(self.settings, name)


@lru_cache(maxsize=4)
def _session(workspace: Path) -> Session:
    settings = load_settings(workspace)
    embedded.prepare(settings)
    return Session(settings)


def open_session(workspace: Path | str | None = None) -> Session:
    """Return this process's session of `workspace` (default: the one around the current folder).

    Raises:
        UsageError: no workspace there, or a bad setting.
    """
    return _session(Path(workspace) if workspace else load_settings().workspace)
