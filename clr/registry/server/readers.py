"""Read acts from the present Flask request, with the parsers of MLflow's own handlers.

What a handler would understand in two ways is refused as malformed: versions other than plain
decimal numbers (MLflow takes ``01`` and ``+1`` for 1), a tag given twice, a body of which
protobuf understands only a part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import request
from mlflow.protos import model_registry_pb2 as proto

from clr.registry.acts import Act, Kind
from clr.registry.server.asked import Asked, Malformed, Reader
from clr.registry.server.inside import request_json, request_message, whole

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_MODEL_SOURCE = re.compile(r"models:/m-[0-9a-f]{32}")


def body() -> dict[str, Any]:
    """Return the JSON object of the request, as MLflow's parser sees it.

    Raises:
        Malformed: it is no JSON object.
        MlflowException: not of a type that MLflow takes.
    """
    found = request_json()
    if not isinstance(found, dict):
        raise Malformed("The request's body must be one JSON object.")
    return found


def message(kind: Callable[[], Any]) -> Any:
    """Return the request as the protobuf message that its handler will see.

    Raises:
        Malformed: protobuf understands only a part of it, which MLflow would act on.
        MlflowException: MLflow's parser refuses it.
    """
    raw = body()
    found = request_message(kind)
    if not whole(raw, kind):
        raise Malformed("A field of the request's body has a wrong type.")
    return found


def registry(kind: Kind, form: Callable[[], Any]) -> Reader:
    """Return the reader of an act about a model or version, whose message has `form`."""

    def reader(endpoint: str) -> Asked:
        found = message(form)
        act = Act(
            kind,
            endpoint=endpoint,
            model=found.name,
            version=_number(found),
            name=_first(found, "key", "alias"),
            value=_first(found, "value", "description", "stage"),
        )
        return Asked(act)

    return reader


def _first(found: Any, *names: str) -> str:
    there = found.DESCRIPTOR.fields_by_name
    return next((str(getattr(found, name)) for name in names if name in there), "")


def _number(found: Any) -> int:
    """Return the version of a message; MLflow reads it with ``int()``, which takes much more."""
    if "version" not in found.DESCRIPTOR.fields_by_name:
        return 0
    if not _NUMBER.fullmatch(found.version):
        raise Malformed(
            f"{found.version[:40]!r} is not the number of a version. Write it as 1, 2, 3, …"
        )
    return int(found.version)


def new_model(endpoint: str) -> Asked:
    """Read the creation of a registered model."""
    found = message(proto.CreateRegisteredModel)
    act = Act(
        Kind.CREATE_MODEL,
        endpoint=endpoint,
        model=found.name,
        value=found.description,
        tags=_tags(found.tags),
    )
    return Asked(act)


def model_text(endpoint: str) -> Asked:
    """Read the change of a registered model's description, the only thing it can change."""
    found = message(proto.UpdateRegisteredModel)
    return Asked(
        Act(Kind.UPDATE_MODEL, endpoint=endpoint, model=found.name, value=found.description)
    )


def new_name(endpoint: str) -> Asked:
    """Read the renaming of a registered model."""
    found = message(proto.RenameRegisteredModel)
    return Asked(Act(Kind.RENAME_MODEL, endpoint=endpoint, model=found.name, name=found.new_name))


def new_version(endpoint: str) -> Asked:
    """Read the creation of a version: of a logged model, or as a copy of another version."""
    found = message(proto.CreateModelVersion)
    copies = found.source.strip().casefold().startswith("models:")
    logged = _MODEL_SOURCE.fullmatch(found.source) is not None
    act = Act(
        Kind.COPY_VERSION if copies and not logged else Kind.CREATE_VERSION,
        endpoint=endpoint,
        model=found.name,
        value=found.description,
        tags=_tags(found.tags),
        source=found.source,
    )
    return Asked(act, run_id=found.run_id, model_id=found.model_id)


def _tags(found: Iterable[Any]) -> dict[str, str]:
    pairs = [(tag.key, tag.value) for tag in found]
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise Malformed("The request gives the same tag twice.")
    return tags


def webhook(endpoint: str) -> Asked:
    """Read an act on a webhook."""
    name = str((request.view_args or {}).get("webhook_id", "")) or str(body().get("name", ""))
    return Asked(Act(Kind.WEBHOOK, endpoint=endpoint, name=name))


def user(kind: Kind) -> Reader:
    """Return the reader of an act on a user, whose name stands where MLflow looks for it."""

    def reader(endpoint: str) -> Asked:
        from mlflow.exceptions import MlflowException
        from mlflow.server.auth import _get_request_param

        try:
            name: Any = _get_request_param("username")
        except MlflowException:
            name = ""
        if not isinstance(name, str):
            raise Malformed("The name of a user is a text.")
        return Asked(Act(kind, endpoint=endpoint, name=name))

    return reader


def user_form(endpoint: str) -> Asked:
    """Read the sign-up page, or the form on it."""
    name = request.form.get("username", "") or "a new user"
    return Asked(Act(Kind.MANAGE_USER, endpoint="create_user", name=name))


def graphql(endpoint: str) -> Asked:
    """Read a GraphQL document: a query reads, any other operation in it makes it `OTHER`.

    Raises:
        Malformed: it is not GraphQL.
    """
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    query = body().get("query")
    if not isinstance(query, str):
        raise Malformed("The request has no GraphQL query.")
    try:
        document = parse(query, max_tokens=10_000, no_location=True)
    except (GraphQLError, RecursionError) as error:
        raise Malformed("The GraphQL query cannot be read.") from error
    operations = [n for n in document.definitions if isinstance(n, OperationDefinitionNode)]
    reads = all(one.operation is OperationType.QUERY for one in operations)
    return Asked(Act(Kind.READ if reads else Kind.OTHER, endpoint=endpoint))
