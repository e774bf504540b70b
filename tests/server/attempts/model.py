"""One attempt: who, what in words, how over the wire, and what must come of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.candidate import Candidate, Prepared
from tests.house import API, USERS, House

FORBIDDEN, UNKNOWN, UNAUTHENTICATED, BAD = 403, 404, 401, 400


@dataclass(frozen=True)
class Stage:
    """Where an attempt is made.

    Attributes:
        house: the running registry.
        who: user who tries; "" is nobody at all.
        on: what it is tried on.
    """

    house: House
    who: str
    on: Any

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send one request, with ``{model}``, ``{number}`` … filled in from `on`."""
        filled = {name: self.fill(value) for name, value in options.items()}
        return self.house.call(self.who, method, self.fill(path), self.fill(body), **filled)

    def fill(self, value: Any) -> Any:
        """Return `value` with the facts of `on` in the place of their names in braces."""
        if isinstance(value, str):
            for name, fact in facts(self.on).items():
                value = value.replace("{" + name + "}", str(fact))
            return value
        if isinstance(value, dict):
            return {self.fill(key): self.fill(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        return value

    def raw(self, method: str, target: str, body: bytes = b"", **headers: str) -> requests.Response:
        """Send a request whose path no library puts in order on its way."""
        connection = http.client.HTTPConnection(urlsplit(self.house.url).netloc, timeout=60)
        login = requests.Request("GET", self.house.url, auth=self.house.as_(self.who).auth)
        headers = {**dict(login.prepare().headers), **headers}
        connection.putrequest(method, self.fill(target), skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        return _answer(connection.getresponse())


def _answer(found: http.client.HTTPResponse) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer._content = found.status, found.read()
    answer.headers.update(found.getheaders())
    return answer


def facts(on: Any) -> dict[str, str]:
    """Return what a request may need to know of what it is tried on."""
    if isinstance(on, Candidate):
        names = ("model", "number", "experiment", "run", "model_id", "digest", "source")
        return {name: str(getattr(on, name)) for name in (*names, "folder", "run_folder")}
    if isinstance(on, Prepared):
        return {
            **{name: getattr(on, name) for name in ("experiment", "run", "model_id", "digest")},
            "folder": f"{on.experiment}/models/{on.model_id}/artifacts",
        }
    return dict(on) if isinstance(on, dict) else {}


How = Callable[[Stage], requests.Response]
Given = Callable[[House], Any]


def shared(name: str, **about: Any) -> Given:
    """A version that several attempts share, made when the first asks for it."""
    return lambda house: house.version(name, **about)


PLAIN = shared("plain")
"""Version 1 of ``clr-plain``, by the trainer tess: passed the gate, nobody has decided."""


@dataclass(frozen=True)
class Attempt:
    """One row.

    Attributes:
        who: user; "" is nobody signed in.
        tries: what, in words.
        how: the request.
        refusal: regular expression of the sentence of refusal; empty where it is allowed.
        status: of the answer.
        given: makes what it is tried on; done before the photograph.
        actor: who the ledger says was refused; "-" where nothing is recorded, since MLflow
            itself answered, or nobody was signed in.
        then: what must hold after an allowed act.
        shows: what the table says after an allowed act.
    """

    who: str
    tries: str
    how: How
    refusal: str = ""
    status: int = FORBIDDEN
    given: Given = PLAIN
    actor: str = ""
    then: Callable[[Stage], Any] | None = None
    shows: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it must succeed."""
        return not self.refusal

    @property
    def label(self) -> str:
        """Who tries, with the role."""
        if not self.who:
            return "nobody signed in"
        known = {
            "admin": "administrator of MLflow",
            "clr-release": "release service",
            "clr-trainer": "flows",
            "nina": "no role",
        }
        return f"{self.who} ({known.get(self.who) or USERS[self.who].replace(' ', ', ')})"


def send(method: str, path: str, body: Any = None, **options: Any) -> How:
    """A request with a JSON body."""
    return lambda stage: stage.call(method, path, body, **options)


def post(path: str, /, **body: Any) -> How:
    """A POST with a JSON object."""
    return send("POST", path, body)


def tag(key: str, value: str) -> How:
    """Set a tag of the version, as the page's form does."""
    return post("model-versions/set-tag", **VERSION, key=key, value=value)


def alias(name: str) -> How:
    """Point an alias of the model at the version."""
    return post("registered-models/alias", **VERSION, alias=name)


def drop_alias(name: str) -> How:
    """Take an alias of the model away."""
    return send("DELETE", "registered-models/alias", {"name": "{model}", "alias": name})


def put(path: str, data: bytes = b"other bytes") -> How:
    """Upload a file through the server; `path` is below its artifacts."""
    return send("PUT", f"{FILES}/{path}", data=data)


def raw(method: str, target: str, body: Any = None, **headers: str) -> How:
    """A request with path and body exactly as they are; a dict as body is sent as JSON."""

    def do(stage: Stage) -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(stage.fill(body)).encode()
        return stage.raw(method, target, data, **{"Content-Type": "application/json", **headers})

    return do


VERSION = {"name": "{model}", "version": "{number}"}
FILES = "/api/2.0/mlflow-artifacts/artifacts"
APPROVAL = {**VERSION, "key": "review", "value": "approved"}
SET_TAG = f"{API}/model-versions/set-tag"
approve = tag("review", "approved")
