"""What a request asks for, read from it, and the two ways in which reading can end early."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from clr.registry.acts import Act

_ID = re.compile(r"(?:m-)?[0-9a-f]{32}")


@dataclass(frozen=True)
class Asked:
    """An act together with what is needed to look up its facts.

    Attributes:
        act: what is asked.
        ids: run ids and ids of logged models (``m-…``) that it touches.
        experiment: id of the experiment that it touches as a whole.
        run_id: run that a new version names.
        model_id: logged model that a new version names.
    """

    act: Act
    ids: tuple[str, ...] = ()
    experiment: str = ""
    run_id: str = ""
    model_id: str = ""


Reader = Callable[[str], Asked]
"""Reads the present request to an endpoint, named as MLflow names it."""

UNDECIDED = "Nothing was done: this could not be decided. The server's log says why."


def error_body(code: str, sentence: str) -> str:
    """Return the body of an answer that says no, as MLflow's page and client read it."""
    return json.dumps({"error_code": code, "message": sentence}, ensure_ascii=False)


def plain(ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `ids` that MLflow can have given out; others name nothing."""
    return tuple(one for one in ids if _ID.fullmatch(one))


class Malformed(Exception):
    """The request cannot be read, or says two things at once; answered with status 400."""


class Refusal(Exception):
    """It can be read, and is refused whatever else holds; answered with status 403.

    Attributes:
        asked: what was asked, for the ledger.
    """

    def __init__(self, sentence: str, asked: Asked) -> None:
        super().__init__(sentence)
        self.asked = asked
