"""Whom the server tells of what happens: its release service, and ``mlflow/webhooks.yaml``.

The file is the whole truth: at each start the database's webhooks are made anew from it,
since nobody may change them through the API.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clr.errors import UsageError
from clr.registry.faults import calling
from clr.registry.policy_file import parse_yaml, read_text

SCHEMA = "clr.webhooks/1"
PROMOTE = "clr-promote"
EVENTS = frozenset(
    {
        "registered_model.created", "model_version.created", "model_version_tag.set",
        "model_version_tag.deleted", "model_version_alias.created", "model_version_alias.deleted",
    }
)  # fmt: skip
"""What MLflow can tell of that happens here."""

WEBHOOKS_TEMPLATE = """\
# Whom the registry server tells of what happens, besides its own release service.
# Read when the server starts; nobody can add a webhook through MLflow itself.
schema: clr.webhooks/1
webhooks: []
#  - name: chat
#    url: https://chat.example.com/hooks/models
#    events: [model_version.created, model_version_alias.created]
#    secret: CHAT_HOOK_SECRET   # name of the environment variable that holds it; signs each message
#
# Events: registered_model.created, model_version.created, model_version_tag.set,
# model_version_tag.deleted, model_version_alias.created, model_version_alias.deleted.
"""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Subscription:
    """One webhook.

    Attributes:
        name: of it.
        url: http(s) address that gets a POST.
        events: members of `EVENTS`.
        secret: signs each message (HMAC-SHA256); None: unsigned.
    """

    name: str
    url: str
    events: tuple[str, ...]
    secret: str | None = None


def webhooks_path(workspace: Path) -> Path:
    """Return where the webhooks of a workspace are listed."""
    return workspace / "mlflow" / "webhooks.yaml"


def promotions(url: str, secret: str) -> Subscription:
    """Return what tells the release service at `url` that a review was given."""
    return Subscription(PROMOTE, f"{url}/webhook", ("model_version_tag.set",), secret)


def load_subscriptions(
    path: Path, environment: Mapping[str, str] = os.environ
) -> tuple[Subscription, ...]:
    """Return the webhooks listed in `path`; none where there is no file.

    Args:
        path: YAML of the form clr.webhooks/1.
        environment: where the secrets are.

    Raises:
        UsageError: names what is wrong.
    """
    text = read_text(path)
    if text is None:
        return ()
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA or set(raw) - {
        "schema", "webhooks",
    }:  # fmt: skip
        raise UsageError(
            f"{path} does not consist of `schema: {SCHEMA}` and `webhooks: [...]`.",
            fix="Start from the file that `clr init` writes.",
        )
    listed = raw.get("webhooks") or []
    if not isinstance(listed, list):
        raise UsageError(f"{path}: webhooks is no list.", fix="Write `webhooks: []`.")
    found = tuple(_subscription(one, f"{path}: webhook {1 + index}", environment)
                  for index, one in enumerate(listed))  # fmt: skip
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{path} has two webhooks {name}.", fix="Give each its own name.")
    return found


def _subscription(raw: Any, where: str, environment: Mapping[str, str]) -> Subscription:
    problem = next(_problems(raw, environment), "")
    if problem:
        raise UsageError(
            f"{where}: {problem}.",
            fix="A webhook has a name, a url, a list of events and, if its messages are to be "
            "signed, the name of the environment variable with the secret.",
        )
    secret = environment[raw["secret"]] if "secret" in raw else None
    return Subscription(str(raw["name"]), str(raw["url"]), tuple(map(str, raw["events"])), secret)


def _problems(raw: Any, environment: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(raw, Mapping) or not {"name", "url", "events"} <= set(raw):
        yield "it lacks name, url or events"
        return
    unknown = set(raw) - {"name", "url", "events", "secret"}
    if unknown:
        yield f"unknown field {sorted(map(str, unknown))[0]!r}"
    if not _NAME.fullmatch(str(raw["name"])) or raw["name"] == PROMOTE:
        yield f"{str(raw['name'])[:80]!r} cannot be its name"
    if not _is_address(str(raw["url"])):
        yield "its url is no http(s) address"
    events = raw["events"]
    if not isinstance(events, list) or not events or not set(map(str, events)) <= EVENTS:
        yield f"its events are not among {', '.join(sorted(EVENTS))}"
    if "secret" in raw and not environment.get(str(raw["secret"])):
        yield f"the environment has no variable {str(raw['secret'])[:80]!r} with its secret"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:  # a bracket that nothing closes
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and len(text) <= 500


def subscribe(url: str, wanted: tuple[Subscription, ...]) -> None:
    """Make the webhooks in MLflow's database exactly the `wanted` ones; no server may run.

    Args:
        url: database of the registry, for SQLAlchemy.
        wanted: all of them.

    Raises:
        UsageError: MLflow does not take one of them.
        ServiceUnavailable: the database cannot be written.
    """
    from mlflow.entities.webhook import WebhookEvent
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.dbmodels.models import SqlWebhook, SqlWebhookEvent
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    with calling(url, "write the webhooks"):
        store = SqlAlchemyStore(url)  # type: ignore[no-untyped-call]
        try:
            # unread: secrets that another key encrypted could not be decrypted
            with store.ManagedSessionMaker(read_only=False) as session:
                session.query(SqlWebhookEvent).delete()
                session.query(SqlWebhook).delete()
            for one in wanted:
                events = [WebhookEvent.from_str(event) for event in one.events]  # type: ignore[arg-type]
                store.create_webhook(one.name, one.url, events, secret=one.secret)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise UsageError(
                f"MLflow does not take a webhook: {error.message}",
                fix="Correct it in mlflow/webhooks.yaml.",
            ) from error
        finally:
            store.engine.dispose()
