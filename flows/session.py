"""What one process holds open for a workspace: settings, backbone, registry, ledger, locks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ServiceUnavailable
from clr.settings import Settings, load_settings
from flows import embedded

if TYPE_CHECKING:
    from clr.audit.ledger import Ledger
    from clr.core.backbone import Backbone
    from clr.registry.store import Registry

LOG = logging.getLogger("clr")
LOCK_SECONDS = 3600.0


@dataclass(frozen=True, eq=False)
class Session:
    """Handles of one workspace, each opened on first use and only once."""

    settings: Settings

    @cached_property
    def device(self) -> str:
        """Where torch computes: the setting, or the best that is there."""
        import torch

        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        if self.settings.device != "auto":
            return self.settings.device
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

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
        """The append-only ledger."""
        from clr.audit.ledger import open_ledger

        return open_ledger(self.settings.state)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the workspace-wide lock `name`; the system frees it if this process dies.

        Raises:
            ServiceUnavailable: somebody else held it for an hour.
        """
        from filelock import FileLock, Timeout

        folder = self.settings.state / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / f"{name}.lock", timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise ServiceUnavailable(
                f"The lock {name} of {self.settings.workspace} was not free within an hour.",
                fix="See which clr process still runs there.",
            ) from error


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
