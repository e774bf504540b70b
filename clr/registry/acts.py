"""What somebody asks of the registry server, and what is known when that is decided (pure).

The server (clr/registry/server/) turns each request into an `Act` and looks up a `State`;
the policy (clr/registry/policy.py) answers with a `Decision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

AUTHENTICATED, LOCAL = "mlflow-basic-auth", "local-os-user"
"""How somebody is known: by the server's password check, or, weaker, by the operating system."""

RELEASE_USER, TRAINER_USER, SERVER_USER = "clr-release", "clr-trainer", "clr-server"
"""Users that the registry makes: for the release service, flows, and the prediction server."""


class Kind(StrEnum):
    """The kinds of act, as the ledger names them."""

    READ = "read"
    CREATE_MODEL = "model.create"
    UPDATE_MODEL = "model.update"
    RENAME_MODEL = "model.rename"
    DELETE_MODEL = "model.delete"
    SET_MODEL_TAG = "model.set-tag"
    DELETE_MODEL_TAG = "model.delete-tag"
    CREATE_VERSION = "version.create"
    COPY_VERSION = "version.copy"
    UPDATE_VERSION = "version.update"
    STAGE_VERSION = "version.stage"
    DELETE_VERSION = "version.delete"
    SET_VERSION_TAG = "version.set-tag"
    DELETE_VERSION_TAG = "version.delete-tag"
    SET_ALIAS = "alias.set"
    DELETE_ALIAS = "alias.delete"
    TRACK = "tracking.write"
    FINISH_RUN = "tracking.finish"
    DELETE_TRACKED = "tracking.delete"
    WRITE_FILE = "file.write"
    DELETE_FILE = "file.delete"
    WEBHOOK = "webhook.change"
    MANAGE_USER = "user.change"
    SET_PASSWORD = "user.password"  # noqa: S105
    EXPORT = "audit.exported"
    OTHER = "other"


@dataclass(frozen=True)
class Act:
    """One request.

    Attributes:
        kind: what is asked.
        endpoint: MLflow's name of the handler, for the sentence about unknown acts.
        model: registered model it is about, as the request wrote it.
        version: number of the version; 0 without.
        name: key of the tag, the alias, the new name of a model, or the user it is about.
        value: value of the tag, or the new text.
        tags: tags given at creation.
        source: where a new version comes from, ``models:/m-…`` as a rule.
        path: file of the artifact store, ``<experiment>/<run>/artifacts/…``.
    """

    kind: Kind
    endpoint: str = ""
    model: str = ""
    version: int = 0
    name: str = ""
    value: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    path: str = ""

    @property
    def subject(self) -> str:
        """What the ledger says it was about: ``clr-animals/3``, ``clr-animals``, a path, a user."""
        if self.model:
            return f"{self.model}/{self.version}" if self.version else self.model
        return self.path or self.name or self.endpoint or "-"


@dataclass(frozen=True)
class Principal:
    """Who asks: the authenticated user and the roles that ``policy.yaml`` gives."""

    name: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Review:
    """One person's decision, as the ledger has it.

    Attributes:
        reviewer: authenticated user.
        decision: ``approved`` or ``rejected``.
        adapter: digest of the adapter that it was given for.
        source: ``models:/m-…`` that it was given for; never given out twice.
        reason: the person's words.
        time: UTC, ISO 8601.
        authentication: ``mlflow-basic-auth`` or ``local-os-user``, which is weaker.
    """

    reviewer: str
    decision: str
    adapter: str
    source: str
    reason: str = ""
    time: str = ""
    authentication: str = ""


@dataclass(frozen=True)
class VersionFacts:
    """A registered version as it is now.

    Attributes:
        model: ``clr-<task>``.
        number: of the version.
        creator: authenticated user who registered it; empty where unknown.
        verdict: tag ``clr.verdict``.
        adapter: tag ``clr.adapter_digest``.
        actual: digest of the adapter file's bytes in the registry now; empty if missing.
        source: ``models:/m-…``.
        gate_release: digest of the release its gate was run against; empty at the first.
        reviews: decisions about any version of this model and number, oldest first.
        ever_champion: whether a release that served named it.
        twin: whether an older version of the model has the same idempotency key.
    """

    model: str
    number: int
    creator: str = ""
    verdict: str = ""
    adapter: str = ""
    actual: str = ""
    source: str = ""
    gate_release: str = ""
    reviews: tuple[Review, ...] = ()
    ever_champion: bool = False
    twin: bool = False


@dataclass(frozen=True)
class ReleaseFacts:
    """A version of ``clr-release``.

    Attributes:
        number: of the version.
        digest: tag ``clr.release_digest``.
        actual: digest of the bytes of ``release.json`` now; empty if missing.
        previous: digest of the release before, as it says.
        tasks: {task: (version, adapter digest)}.
        served: whether it was in force once, as the ledger says.
        backbone: digest of its backbone, as it says.
    """

    number: int
    digest: str
    actual: str
    previous: str
    tasks: Mapping[str, tuple[int, str]]
    served: bool = False
    backbone: str = ""


@dataclass(frozen=True)
class State:
    """What is known about the things an act is about; what an act does not need stays empty.

    Attributes:
        version: the version it is about.
        aliases: aliases of the model it is about.
        serving: the release in force.
        target: the release it is about.
        joining: facts of every version that `target` names and `serving` does not, by task.
        model_ever_champion: whether any version of the model was champion once.
        model_reviewed: whether any version of the model was reviewed; None: not looked up,
            which counts as yes.
        actual: digest of the file that a new version would register; empty if missing.
        registered: whether file, run or logged model belongs to a registered version.
        user_roles: roles of the user it is about.
    """

    version: VersionFacts | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    serving: ReleaseFacts | None = None
    target: ReleaseFacts | None = None
    joining: Mapping[str, VersionFacts | None] = field(default_factory=dict)
    model_ever_champion: bool = False
    model_reviewed: bool | None = None
    actual: str = ""
    registered: bool = False
    user_roles: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """The answer.

    Attributes:
        allowed: whether it may happen.
        sentence: where refused, why, and what to do instead; shown in MLflow's own error box.
        value: for a review, the word as it is stored: ``approved`` or ``rejected``.
    """

    allowed: bool
    sentence: str = ""
    value: str = ""
