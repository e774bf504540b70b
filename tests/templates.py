"""The templates of Great Expectations' reports are compiled once in a process.

It makes a new Jinja environment for every page of every report, and each compiles what it
uses; that is a third of what a validation costs.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import jinja2


class Memory(jinja2.BytecodeCache):
    """Compiled templates, by name and source."""

    def __init__(self) -> None:
        self.compiled: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Fill in what was compiled from this very source."""
        if bucket.key in self.compiled:
            bucket.bytecode_from_string(self.compiled[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Keep it."""
        self.compiled[bucket.key] = bucket.bytecode_to_string()


def compile_once() -> None:
    """Let all later environments share their compiled templates."""
    memory, born = Memory(), jinja2.Environment.__init__

    @wraps(born)
    def sharing(self: jinja2.Environment, *arguments: Any, **named: Any) -> None:
        born(self, *arguments, **named)
        self.bytecode_cache = self.bytecode_cache or memory

    jinja2.Environment.__init__ = sharing  # type: ignore[method-assign]
