"""The same forbidden act, the trainer's approval of her own version, in other clothes."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import urlencode

import requests

from tests.house import AJAX
from tests.server.attempts.model import (
    APPROVAL,
    BAD,
    FORBIDDEN,
    SET_TAG,
    UNAUTHENTICATED,
    UNKNOWN,
    VERSION,
    Attempt,
    How,
    Stage,
    approve,
    post,
    raw,
    send,
)

NO = "may not review"
LOST = (BAD, FORBIDDEN, UNKNOWN, 405, 415)
"""Answers to a request that MLflow does not understand; what counts is that nothing changes."""


def form(stage: Stage) -> requests.Response:
    """A body as a web form sends it."""
    return stage.call("POST", "model-versions/set-tag", data=APPROVAL)


def text(body: Any, kind: str = "text/plain", **headers: str) -> How:
    """A body of another content type."""

    def do(stage: Stage) -> requests.Response:
        data = body(stage) if callable(body) else body
        return stage.call(
            "POST", "model-versions/set-tag", data=data, headers={"Content-Type": kind, **headers}
        )

    return do


def as_json(stage: Stage) -> str:
    """The approval as JSON."""
    return json.dumps(stage.fill(APPROVAL))


def quoted(stage: Stage) -> bytes:
    """JSON that is a string, which holds JSON."""
    return json.dumps(as_json(stage)).encode()


def doubled(stage: Stage) -> bytes:
    """One name twice: harmless first, then the one that a parser keeps."""
    return as_json(stage).replace('"key"', '"key": "note", "key"').encode()


def turned(stage: Stage) -> bytes:
    """One name twice, the other way round."""
    return as_json(stage).replace('"review"', '"review", "key": "review"').encode()


def padded(stage: Stage) -> bytes:
    """JSON as UTF-16."""
    return as_json(stage).encode("utf-16")


def packed(stage: Stage) -> bytes:
    """JSON, compressed."""
    return gzip.compress(as_json(stage).encode())


def in_query(stage: Stage) -> requests.Response:
    """Everything in the address."""
    return stage.call("POST", f"model-versions/set-tag?{urlencode(stage.fill(APPROVAL))}")


def half_in_query(stage: Stage) -> requests.Response:
    """A harmless key in the address, the real one in the body."""
    query = urlencode({**stage.fill(VERSION), "key": "note", "value": "x"})
    return stage.call("POST", f"model-versions/set-tag?{query}", APPROVAL)


def with_headers(**headers: str) -> How:
    """The approval with further headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda stage: stage.call("POST", "model-versions/set-tag", APPROVAL, headers=named)


def overridden(stage: Stage) -> requests.Response:
    """A deletion that calls itself a POST."""
    headers = {"X-HTTP-Method-Override": "DELETE"}
    return stage.call("POST", "registered-models/delete", {"name": "{model}"}, headers=headers)


def asked(query: str, **options: Any) -> How:
    """A GraphQL request."""
    return send("POST", "/graphql", {"query": query, **options})


MUTATION = (
    ('mutation {{ mlflowSetTag(input: {{key: "review", value: "approved"}}) {{ __typename }} }}')
    .replace("{{", "{")
    .replace("}}", "}")
)
QUERY = "query { mlflowSearchModelVersions(input: {}) { modelVersions { name version } } }"

READING, FOREIGN = "by GET", "from another web page (`Origin: https://evil.example`)"
SILENT = (READING, FOREIGN)
"""What MLflow refuses before anybody is signed in, or what would only read: in no ledger."""

ROWS = [
    Attempt("tess", f"approves {words}", how, sentence, status,
            actor="-" if words in SILENT else "")
    for words, how, sentence, status in [
        ("at the page's own address, /ajax-api", send("POST", f"{AJAX}/model-versions/set-tag",
         APPROVAL), NO, FORBIDDEN),
        ("with a slash at the end of the address", send("POST", f"{SET_TAG}/", APPROVAL), ".",
         LOST),
        ("with the address in capitals", send("POST", SET_TAG.upper(), APPROVAL), ".", LOST),
        ("with two slashes in front", raw("POST", f"/{SET_TAG}", APPROVAL), ".", LOST),
        ("with dots in the address", raw("POST", SET_TAG.replace("mlflow/", "mlflow/x/../"),
         APPROVAL), ".", LOST),
        ("with `%2D` for the dash", raw("POST", SET_TAG.replace("set-tag", "set%2Dtag"), APPROVAL),
         NO, FORBIDDEN),
        ("with `;x=1` after the address", raw("POST", f"{SET_TAG};x=1", APPROVAL), ".", LOST),
        ("below another prefix, /mlflow", send("POST", f"/mlflow{SET_TAG}", APPROVAL), ".", LOST),
        ("with everything in the address", in_query, ".", LOST),
        ("with a harmless key in the address, the real one in the body", half_in_query, NO,
         FORBIDDEN),
        ("as a web form", form, ".", LOST),
        ("as plain text", text(as_json), ".", LOST),
        ("as application/x-www-form-urlencoded with JSON in it",
         text(as_json, "application/x-www-form-urlencoded"), ".", LOST),
        ("as a JSON string that holds JSON", text(quoted, "application/json"), ".", LOST),
        ("with `key` twice in the JSON", text(doubled, "application/json"), NO, FORBIDDEN),
        ("with `key` twice, `review` both times", text(turned, "application/json"), NO, FORBIDDEN),
        ("as UTF-16", text(padded, "application/json"), ".", LOST),
        ("compressed", text(packed, "application/json", **{"Content-Encoding": "gzip"}), ".",
         LOST),
        ("with the version `01`", post("model-versions/set-tag", name="{model}", version="01",
         key="review", value="approved"), ".", LOST),
        ("with the version `１` in full width", post("model-versions/set-tag", name="{model}",
         version="１", key="review", value="approved"), ".", LOST),
        ("with the version as a number", post("model-versions/set-tag", name="{model}", version=1,
         key="review", value="approved"), ".", LOST),
        (READING, lambda stage: stage.call("GET", "model-versions/set-tag", params=APPROVAL), ".",
         LOST),
        ("by PATCH", send("PATCH", SET_TAG, APPROVAL), ".", LOST),
        ("by PUT", send("PUT", SET_TAG, APPROVAL), ".", LOST),
        ("and calls herself alice in `X-Forwarded-User`", with_headers(
            X_Forwarded_User="alice", X_Remote_User="alice", Remote_User="alice"), NO, FORBIDDEN),
        (FOREIGN,
         with_headers(Origin="https://evil.example"), ".", FORBIDDEN),
    ]
] + [
    Attempt("alice", "approves, sent by another web page that she has open",
            with_headers(Origin="https://evil.example", Sec_Fetch_Site="cross-site"),
            "Cross-origin", actor="-"),
    Attempt("alice", "approves, at a foreign name of the server (DNS rebinding)",
            with_headers(Host="evil.example"), "Host", actor="-"),
    Attempt("admin", "deletes a model with `X-HTTP-Method-Override`", overridden, ".", LOST),
    Attempt("", "approves as alice with an empty password",
            lambda stage: stage.call("POST", "model-versions/set-tag", APPROVAL,
                                     auth=("alice", "")), ".", UNAUTHENTICATED, actor="-"),
    Attempt("", "approves as alice with a wrong password",
            lambda stage: stage.call("POST", "model-versions/set-tag", APPROVAL,
                                     auth=("alice", "alice-alice-alice")), ".", UNAUTHENTICATED,
            actor="-"),
    Attempt("", "approves as alice with a bearer token", with_headers(
            Authorization="Bearer YWxpY2U6YWxpY2U="), ".", UNAUTHENTICATED, actor="-"),
    *(
        Attempt("", f"signs in with `Authorization: {header}`", with_headers(Authorization=header),
                ".", UNAUTHENTICATED, actor="-")
        for header in ("Basic", "Basic !!!", "Basic YWxpY2U=", "Digest username=alice", "alice")
    ),
    Attempt("", "approves with a forged session cookie", with_headers(
            Cookie="session=eyJ1c2VyIjoiYWxpY2UifQ.ZZZZZZ.forged"), ".", UNAUTHENTICATED,
            actor="-"),
    Attempt("tess", "registers a version, fields in both spellings",
            post("model-versions/create", name="clr-plain", source="{source}", runId="{run}",
                 modelId="{model_id}", tags=[{"key": "review", "value": "approved"}]), "."),
    Attempt("tess", "approves by a GraphQL mutation", asked(MUTATION), ".", LOST),
    Attempt("tess", "sends a GraphQL mutation behind a query, by name",
            asked(QUERY.replace("query", "query a") + MUTATION.replace("mutation", "mutation b"),
                  operationName="b"), ".", LOST),
    Attempt("otto", "reads versions by GraphQL", asked(QUERY), shows="read"),
    Attempt("nina", "reads versions by GraphQL", asked(QUERY), "no role", actor="-"),
    Attempt("", "reads versions by GraphQL", asked(QUERY), ".", UNAUTHENTICATED, actor="-"),
]  # fmt: skip
_ = approve
