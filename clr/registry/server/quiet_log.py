"""What the access log of the registry server leaves out: questions that are asked all the time."""

from __future__ import annotations

import logging

from clr.registry.alias import POLLED


def leave_out_polls() -> None:
    """Keep successful polls of the release in force out of uvicorn's access log."""
    logging.getLogger("uvicorn.access").addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    """Say whether a line is written: uvicorn's are of address, method, path, version, status."""
    about = record.args if isinstance(record.args, tuple) else ()
    return not (len(about) == 5 and POLLED in str(about[2]) and about[4] == 200)
