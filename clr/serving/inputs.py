"""What callers send to ``/v1``, turned into images to label (pure)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clr.serving.errors import Problem, shown
from clr.serving.multipart import Part, read_form, too_many
from clr.serving.values import Item

FORM, JSON, BINARY = "multipart/form-data", "application/json", "application/octet-stream"

TEXT = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""No control characters, which could forge lines of a log or a header."""

BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

TaskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", max_length=63)]
Unit = Annotated[str, Field(pattern=TEXT, min_length=1, max_length=200)]
FileName = Annotated[str, Field(pattern=TEXT, max_length=255)]
Label = Annotated[str, Field(pattern=TEXT, min_length=1, max_length=255)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]

_ERRORS_SHOWN = 20
_NAMES = 256
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """JSON that has exactly the fields and types that it may have."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Instance(Strict):
    """One image."""

    image: Annotated[
        str,
        Field(min_length=4, description="The image file, base64 (RFC 4648, section 4)."),
    ]
    task: TaskName | None = Field(None, description="Its task; without it the router finds one.")
    unit: Unit | None = Field(None, description="What an A/B test keeps in one arm.")
    name: FileName | None = Field(None, description="Comes back as file; default: its index.")


class PredictRequest(Strict):
    """Images in JSON."""

    instances: Annotated[list[Instance], Field(min_length=1)]


class FeedbackRequest(Strict):
    """What an image really was."""

    request_id: RequestId = Field(description="Of the answer that it is about.")
    label: Label = Field(description="A class of the answer's task.")


class _Fields(Strict):
    task: list[TaskName]
    unit: list[Unit]
    names: list[FileName]


def read_items(body: bytes, content_type: str, max_files: int) -> list[Item]:
    """Return the images of a request to ``/v1/predict``.

    Args:
        body: all of it.
        content_type: the header, of a form or of JSON.
        max_files: images in one request.

    Raises:
        Problem: it cannot be read, or says something impossible.
    """
    if media_type(content_type) == FORM:
        return _form_items(read_form(body, content_type, max_files))
    value = read_json(body)
    given = value.get("instances") if isinstance(value, dict) else None
    if isinstance(given, list) and len(given) > max_files:  # before each is told what is wrong
        raise too_many(max_files)
    return _json_items(parse(PredictRequest, value))


def wrong_type(given: str, *accepted: str) -> Problem:
    """Return the problem of a body of another type than those that are accepted.

    Args:
        given: its type; empty: the request names none.
        *accepted: an empty one: none has to be named.
    """
    accepted = tuple(filter(None, accepted))
    known = " or ".join(accepted)
    return Problem(
        "unsupported-media-type",
        f"The content type {shown(given)} is not {known}."
        if given
        else "There is no content type.",
        fix=f"Send {known}, and say so in Content-Type.",
        headers={"Accept": ", ".join(accepted)},
    )


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259), strictly.

    Raises:
        Problem: no JSON, not UTF-8, too deep, a name twice in one object or too many of them,
            NaN or Infinity, or an integer of thousands of digits.
    """
    try:
        return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Problem("malformed", "The body is not UTF-8.") from error
    except RecursionError as error:
        raise Problem("malformed", "The JSON is nested too deep.") from error
    except json.JSONDecodeError as error:
        raise Problem(
            "malformed", f"The body is not JSON: line {error.lineno}, column {error.colno}."
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise Problem("malformed", "The JSON has a number that is too long.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Problem("malformed", "The JSON has a name twice in one object.")
    if len(made) > _NAMES:  # each of them may be wrong, which takes a thousand bytes to say
        raise Problem("too-large", f"An object of the JSON may have {_NAMES} names.")
    return made


def _constant(name: str) -> Any:
    raise Problem("malformed", f"{name} is no JSON.")


def parse(model: type[Model], value: Any) -> Model:
    """Return a JSON value as what it has to be.

    Raises:
        Problem: it is not; names each field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [
            {"where": ".".join(map(_place, one["loc"])) or "body", "what": one["msg"]}
            for one in found[:_ERRORS_SHOWN]
        ]
        first = told[0]
        raise Problem("invalid", f"{first['where']}: {first['what']}.", errors=told) from error


def _place(part: int | str) -> str:
    return str(part) if isinstance(part, int) else shown(part)[1:-1]


def _json_items(request: PredictRequest) -> list[Item]:
    return [
        Item(
            str(index) if one.name is None else one.name,
            decode_base64(one.image, f"instances.{index}.image"),
            one.task,
            one.unit,
        )
        for index, one in enumerate(request.instances)
    ]


def decode_base64(text: str, where: str) -> bytes:
    """Return the bytes that a text of base64 stands for.

    Raises:
        Problem: it is not base64, or empty.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(where, "This is not base64.") from error
    if not data:
        raise invalid(where, "The image is empty.")
    return data


def invalid(where: str, what: str) -> Problem:
    """Return the problem of one field."""
    return Problem("invalid", f"{where}: {what}", errors=[{"where": where, "what": what}])


def _form_items(parts: Sequence[Part]) -> list[Item]:
    files = [one for one in parts if one.name == "files" and one.filename is not None]
    texts: dict[str, list[str]] = {"task": [], "unit": []}
    for one in parts:
        if one.name == "files":
            if one.filename is None:
                raise invalid("files", "A field files has no filename, so it is no file.")
        elif one.name not in texts or one.filename is not None:
            raise invalid(shown(one.name)[1:-1], "There is no such field; see files, task, unit.")
        else:
            texts[one.name].append(one.text)
    if not files:
        raise invalid("files", "There is no image.")
    names = [one.filename or "" for one in files]
    fields = parse(_Fields, {**texts, "names": names})
    tasks = _one_each(fields.task, len(files), "task")
    units = _one_each(fields.unit, len(files), "unit")
    return [
        Item(name, one.data, task, unit)
        for name, one, task, unit in zip(names, files, tasks, units, strict=True)
    ]


def _one_each(values: Sequence[str], count: int, where: str) -> Sequence[str | None]:
    if not values:
        return [None] * count
    if len(values) == 1:
        return list(values) * count
    if len(values) != count:
        raise invalid(where, f"There are {len(values)} for {count} files; give one, or one each.")
    return values
