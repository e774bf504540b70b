"""All settings, in one table: environment variables with the prefix ``CLR_``.

A workspace is a folder that holds ``data.dvc``. Its file ``clr.env`` may set
the same names for everybody who works there; the environment wins over it.
"""

from __future__ import annotations

import json
import os
import string
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clr import env_file
from clr.business import LARGEST, LONGEST_YEARS, LOWEST_RATE
from clr.errors import UsageError
from clr.secret_files import adopt

LARGEST_SEED = 2**31 - 1
_Amount = Annotated[float, Field(ge=0, le=LARGEST)] | None
"""Of an assumption of the business case."""

_YEAR = 366 * 86_400
_Seconds = Annotated[float, Field(gt=0, le=_YEAR)]
_Minutes = Annotated[float, Field(gt=0, le=_YEAR / 60)]
"""Of waiting: centuries are more than the system can count."""

_KEPT = ("data", ".git", ".dvc", "mlflow", "quarantine")
"""Folders of a workspace that no task may be dropped into."""


class Settings(BaseSettings):
    """What can be configured; ``clr settings`` prints the values in force."""

    model_config = SettingsConfigDict(
        env_prefix="CLR_",
        env_file_encoding="utf-8",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    workspace: Path = Field(Path(), description="folder that holds data.dvc (found, not set)")
    home: Path | None = Field(None, description="all state, in the workspace; default .clr/")
    registry_url: str = Field("", description="MLflow server; empty: this workspace's own")
    registry_host: str = Field("127.0.0.1", description="address that clr up registry listens on")
    registry_port: int = Field(5000, ge=1, le=65535, description="port of clr up registry")
    registry_database: str = Field(
        "", description="its database: postgresql://…; empty: SQLite under CLR_HOME"
    )
    registry_workers: int = Field(1, ge=1, le=64, description="its processes")
    reconcile_seconds: _Seconds = Field(
        30.0, description="how often approvals whose webhook was lost are looked for"
    )
    ledger_url: str = Field("", description="ledger: postgresql://…; empty: SQLite under CLR_HOME")
    registry_artifacts: str = Field(
        "", description="where its files are: s3://bucket/path; empty: CLR_HOME/artifacts"
    )
    release_service: str = Field(
        "", description="address of the release service; empty: what clr up wrote"
    )
    prefect_host: str = Field("127.0.0.1", description="address that the Prefect server listens on")
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of the Prefect server")
    prefect_database: str = Field(
        "", description="its database: postgresql://…; empty: SQLite under CLR_HOME"
    )
    metrics_host: str = Field("127.0.0.1", description="address that /metrics listens on")
    metrics_port: int = Field(
        9108, ge=0, le=65535, description="port of /metrics for Prometheus; 0: none"
    )
    log_format: Literal["text", "json"] = Field("text", description="lines of the log on stderr")

    incoming: Path | None = Field(None, description="folder that is watched; default incoming/")
    settle_seconds: _Seconds = Field(
        5.0, description="a folder there without READY is complete when unchanged so long"
    )
    git_remote: str = Field("", description="git repository watched for a new data.dvc, too")
    git_poll_seconds: _Seconds = Field(30.0, description="how often git is looked at")
    archive_max_mb: int = Field(20_000, ge=1, description="unpacked size of an archive, at most")
    archive_max_files: int = Field(500_000, ge=1, description="files in an archive, at most")

    parallel: int = Field(
        0, ge=0, description="onboardings at once on this machine; 0: half the cores, at most 4"
    )
    run_attempts: int = Field(5, ge=1, description="how often a run that died is started in all")
    step_minutes: _Minutes = Field(60.0, description="time-out of a step other than training")
    train_minutes: _Minutes = Field(1440.0, description="time-out of training")
    task_runner: Literal["threads", "dask", "ray"] = Field(
        "threads", description="what gate replays and bulk work fan out through"
    )
    task_runner_address: str = Field("", description="of the Dask scheduler or Ray cluster")
    replay_cron: str = Field(
        "0 3 * * 0", description="when every task is evaluated again; empty: never"
    )
    drift_cron: str = Field("0 4 * * *", description="when drift is looked for; empty: never")
    keep_days: int = Field(90, ge=1, description="files that nothing names are kept so long")
    keep_logs_days: int = Field(
        0, ge=0, description="old logs and crash reports; 0: as long as the policy asks"
    )
    keep_evidence_days: int = Field(
        0, ge=0, description="files of deleted runs; 0: as long as the policy asks"
    )
    keep_backups_days: int = Field(
        0, ge=0, description="snapshots that clr backup removes when they are older; 0: none"
    )

    serve_port: int = Field(
        8080, ge=0, le=65535, description="port of the prediction server; 0: none in clr up"
    )
    serve_host: str = Field(
        "127.0.0.1", description="address that the prediction server listens on"
    )
    serve_keys: bool = Field(
        True, description="ask for API keys; false is possible on loopback addresses alone"
    )
    serve_rate: float = Field(
        1000.0, ge=0, description="requests a second with one API key, at most; 0: any number"
    )
    serve_images: int = Field(64, ge=1, le=1024, description="images in one request, at most")
    serve_body_mb: int = Field(32, ge=1, le=1024, description="size of one request, at most")
    serve_seconds: _Seconds = Field(
        30.0, description="time for a request to arrive, and as much again for its answer"
    )
    serve_poll_seconds: _Seconds = Field(
        2.0, description="how often the release in force is looked for at rest"
    )
    serve_fresh_seconds: float = Field(
        0.0,
        ge=0,
        le=_YEAR,
        description="a release in force so long before a request may answer it, too",
    )
    serve_batch: int = Field(32, ge=1, le=4096, description="images in one batch, at most")
    serve_wait_ms: float = Field(
        5.0, ge=0, le=1000, description="how long an image waits for others to make a batch"
    )
    serve_queue_items: int = Field(1024, ge=1, description="images in work at once, at most")
    serve_queue_mb: int = Field(256, ge=1, description="of their files in memory, at most")
    serve_drain_seconds: _Seconds = Field(
        10.0, description="how long requests in work have to end when the server is stopped"
    )
    serve_adapters: int = Field(2000, ge=1, description="adapters in memory, at most")
    keep_answers_days: int = Field(90, ge=1, description="answers stay so long in the journal")
    keep_answers: int = Field(10_000_000, ge=1, description="answers in the journal, at most")
    dvc_remote: str = Field("", description="DVC remote (folder or s3://…); empty: CLR_HOME/remote")

    backbone: str = Field(
        "tf_efficientnet_lite0", description="timm or torchvision name, or file:<path>"
    )
    backbone_architecture: str = Field("", description="architecture of a file: backbone")
    backbone_sha256: str = Field("", description="pinned sha256 of a file: backbone (required)")

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to compute")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads of torch; 0: all cores")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="seed of splits, order and augmentation"
    )
    image_cache_mb: int = Field(2048, ge=0, description="decoded images held in memory")

    min_images_per_class: int = Field(10, ge=1, description="per class and split")
    max_image_pixels: int = Field(50_000_000, ge=1, description="larger images are refused")

    gate_margin: float = Field(0.02, gt=0, lt=1, description="δ: largest drop a paired test allows")
    gate_alpha: float = Field(0.05, gt=0, lt=0.5, description="error rate of each one-sided test")
    gate_replay_tasks: int = Field(20, ge=0, description="up to so many tasks all are replayed")
    gate_replay_every: int = Field(10, ge=1, description="beyond: once every so many promotions")
    gate_routing_margin: float = Field(
        0.05, gt=0, lt=1, description="largest fall of routed accuracy of an earlier task"
    )
    router_doubt: float = Field(
        0.05, gt=0, lt=1, description="share of a task's images given to another without a word"
    )
    router_unknown: float = Field(
        0.02, gt=0, lt=1, description="share of a task's images that may be called unknown"
    )
    gate_max_params_pct: float = Field(
        2.0, gt=0, description="added kernel parameters, % of backbone"
    )
    gate_max_adapter_mb: float = Field(4.0, gt=0, description="adapter file size in MB")
    gate_max_latency_ratio: float = Field(
        2.0, gt=1, description="p95 with adapter over p95 of the bare backbone"
    )

    business_currency: str = Field("", description="e.g. EUR")
    business_items_per_year: _Amount = Field(None, description="decisions a year")
    business_error_cost: _Amount = Field(None, description="cost of one wrong decision")
    business_current_error_rate: float | None = Field(None, ge=0, le=1, description="before")
    business_label_cost_per_image: _Amount = Field(None, description="labelling")
    business_compute_cost_per_hour: _Amount = Field(None, description="machine")
    business_engineer_hours: _Amount = Field(None, description="once, to adopt")
    business_hourly_rate: _Amount = Field(None, description="of that engineer")
    business_maintenance_hours_per_month: _Amount = Field(None, description="running")
    business_horizon_years: float | None = Field(
        None, gt=0, le=LONGEST_YEARS, description="of the business case"
    )
    business_discount_rate: float | None = Field(
        None, ge=LOWEST_RATE, le=LARGEST, description="a year, 0.08 = 8 %"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _unset(cls, value: Any, info: ValidationInfo) -> Any:
        """Read ``CLR_HOME=`` as it stands in the template: nothing is set, not the folder here."""
        unset = info.field_name is not None and cls.model_fields[info.field_name].default is None
        return None if unset and value == "" else value

    @field_validator("home", "incoming")
    @classmethod
    def _of_a_user(cls, value: Path | None) -> Path | None:
        try:
            return value and value.expanduser()
        except RuntimeError as error:  # ~ of nobody known
            raise ValueError(str(error)) from error

    @field_validator("incoming")
    @classmethod
    def _of_its_own(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """What is refused moves out of the watched folder: it must hold nothing else."""
        if value is None:
            return None
        root = info.data["workspace"].absolute()
        place = Path(os.path.realpath(root / value))
        own = [Path(os.path.realpath(root / name)) for name in _KEPT]
        state = Path(os.path.realpath(root / (info.data.get("home") or ".clr")))
        if any(one.is_relative_to(place) for one in (*own, state)) or any(
            place.is_relative_to(one) for one in own
        ):
            raise ValueError(f"it holds, or lies in, one of {', '.join(_KEPT)}, or is CLR_HOME")
        return value

    @field_validator("registry_url", "release_service")
    @classmethod
    def _of_a_server(cls, value: str) -> str:
        parts = urlsplit(value)  # this and the port are a ValueError where they cannot be
        there = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        labels = (parts.hostname or "").removesuffix(".").split(".")
        if there and not all(0 < len(label) < 64 for label in labels):
            raise ValueError("a part of a host's name has 1 to 63 characters (RFC 1035, 2.3.4)")
        if value and (not there or set(value) & set(string.whitespace)):
            raise ValueError("write http://host:port, or leave it empty")
        return value

    @cached_property
    def state(self) -> Path:
        """Absolute folder of all state (``CLR_HOME``, relative to the workspace)."""
        return self.workspace.absolute() / (self.home or Path(".clr"))

    @property
    def inbox(self) -> Path:
        """Absolute folder where data is dropped (``CLR_INCOMING``, relative to the workspace)."""
        return self.workspace.absolute() / (self.incoming or Path("incoming"))

    @property
    def unpacked(self) -> Path:
        """Absolute folder of what came in an archive or a commit, until it is onboarded."""
        return self.state / "unpacked"

    @property
    def registry(self) -> str:
        """Address of the registry server; empty where the registry is a file under ``CLR_HOME``.

        It is ``CLR_REGISTRY_URL``, or what ``clr up registry`` of this workspace last wrote:
        once a server was started here, its database is never opened behind its back.

        Raises:
            UsageError: the file that it wrote is not readable.
        """
        return self.registry_url.rstrip("/") or self._own_server()

    @property
    def registry_file(self) -> Path:
        """Where ``clr up registry`` writes the address of its server."""
        return self.state / "registry.json"

    def _own_server(self) -> str:
        try:
            return str(json.loads(self.registry_file.read_text(encoding="utf-8"))["url"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.registry_file} cannot be read: {type(error).__name__}.",
                fix="Start the server of this workspace again: clr up registry.",
            ) from error

    def business(self) -> dict[str, float | str]:
        """Return the business assumptions that are set, by their name in ``task.yaml``."""
        prefix = "business_"
        values = {
            name.removeprefix(prefix): getattr(self, name)
            for name in type(self).model_fields
            if name.startswith(prefix)
        }
        return {name: value for name, value in values.items() if value not in (None, "")}


def absolute(path: Path) -> Path:
    """Return an absolute path without ``..``: its parents are the folders that it lies in.

    Raises:
        UsageError: the folder that one stands in was deleted.
    """
    try:
        place = path.absolute()
    except FileNotFoundError as error:
        raise UsageError(
            "The folder that this was started in is gone.", fix="Change into one that is there."
        ) from error
    return place.resolve() if ".." in place.parts else place


def find_workspace(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` that holds ``data.dvc``.

    Raises:
        UsageError: there is none.
    """
    start = absolute(start or Path(os.environ.get("CLR_WORKSPACE", ".")))
    for folder in (start, *start.parents):
        if (folder / "data.dvc").is_file():
            return folder
    raise UsageError(
        f"{start} is not inside a workspace: no data.dvc here or above.",
        fix="Make one with `clr init DIR` and work inside it.",
    )


def load_settings(workspace: Path | None = None) -> Settings:
    """Read the settings of a workspace: environment over ``clr.env`` over defaults.

    Secrets that the environment gives as files are read, too (clr/secret_files.py).

    Raises:
        UsageError: no workspace, a setting has a bad value or an unknown name, or ``clr.env``
            cannot be read whole.
    """
    adopt()
    root = find_workspace() if workspace is None else absolute(workspace)
    path = root / "clr.env"
    env_file.check(path, {f"CLR_{name.upper()}" for name in Settings.model_fields})
    try:
        return Settings(_env_file=path, workspace=root)
    except ValidationError as error:
        first = error.errors()[0]
        name = "CLR_" + "_".join(str(part) for part in first["loc"]).upper().removeprefix("CLR_")
        raise UsageError(
            f"Setting {name} is not valid: {first['msg'].removeprefix('Value error, ')}.",
            fix=f"Correct it in the environment or in {path}.",
            setting=name,
        ) from error
