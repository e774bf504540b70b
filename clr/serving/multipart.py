"""Bodies of ``multipart/form-data`` (RFC 7578), read whole from memory (pure).

Starlette's reader is not used: it takes a body that was cut off for a complete one, so that the
last images of a request would be missing without a word.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from clr.serving.errors import Problem

MAX_FIELDS = 1024
"""Parts that are no files."""

# what is wrong with a form is told to who sent it, not to the log
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_HEADERS = 8
_HEADER_BYTES = 2048
_FIELD_BYTES = 4096


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes:
        name: of the field.
        filename: as the sender calls the file; None: it is no file.
        data: the file, or the field's value.
    """

    name: str
    filename: str | None
    data: bytes

    @property
    def text(self) -> str:
        """The value of a field.

        Raises:
            Problem: it is not UTF-8.
        """
        return _text(self.data, f"The field {self.name}")


def read_form(body: bytes, content_type: str, max_files: int) -> list[Part]:
    """Return the parts of a form in their order.

    Args:
        body: all of it.
        content_type: the header, with the boundary.
        max_files: more are refused before they are read.

    Raises:
        Problem: it is not a whole form, has too many parts, or has a part that is no field.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Problem("malformed", "The header Content-Type names no boundary.")
    reader = _Reader(max_files)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_headers_finished": reader.headers_end,
                "on_part_data": reader.take,
                "on_part_end": reader.end,
                "on_end": reader.finish,
            },
            max_header_count=_HEADERS,
            max_header_size=_HEADER_BYTES,
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Problem("malformed", "The body is not multipart/form-data.") from error
    if not reader.complete:
        raise Problem("malformed", "The body ends before its last boundary: it was cut off.")
    return reader.parts


class _Reader:
    """What python-multipart calls while it reads."""

    def __init__(self, max_files: int) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._max_files, self._files, self._fields = max_files, 0, 0

    def begin(self) -> None:
        self._name: bytes = b""
        self._value: bytes = b""
        self._disposition = b""
        self._data = bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            if self._disposition:
                raise Problem("malformed", "A part of the form says twice what it is.")
            self._disposition = self._value
        self._name = self._value = b""

    def headers_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise Problem("malformed", "A part of the form has no name.")
        self._field = _text(options[b"name"], "The name of a field")
        self._filename = None
        if b"filename" in options:
            self._filename = _text(options[b"filename"], "The name of a file")
            self._files += 1
        else:
            self._fields += 1
        if self._files > self._max_files:
            raise too_many(self._max_files)
        if self._fields > MAX_FIELDS:
            raise Problem("too-large", f"A form may have {MAX_FIELDS} fields.")

    def take(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]
        if self._filename is None and len(self._data) > _FIELD_BYTES:
            raise Problem(
                "too-large",
                f"The field {self._field} may have {_FIELD_BYTES} bytes.",
                fix="Send an image as a file: with a filename.",
            )

    def end(self) -> None:
        self.parts.append(Part(self._field, self._filename, bytes(self._data)))

    def finish(self) -> None:
        self.complete = True


def too_many(limit: int) -> Problem:
    """Return the problem of a request with more than `limit` images."""
    return Problem(
        "too-large",
        f"A request may have {limit} images.",
        fix="Send them in several requests.",
    )


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem("malformed", f"{what} is not UTF-8.") from error
