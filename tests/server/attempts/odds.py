"""Webhooks, what MLflow has besides a registry, and hostile words."""

from __future__ import annotations

from tests.candidate import ok
from tests.house import API, House
from tests.server.attempts.model import (
    FORBIDDEN,
    UNKNOWN,
    Attempt,
    Stage,
    post,
    put,
    raw,
    send,
    shared,
    tag,
)

V3, PAGE3 = "/api/3.0/mlflow", "/ajax-api/3.0/mlflow"
LOST = (400, FORBIDDEN, UNKNOWN, 405, 501)
HOOK = {
    "name": "mine",
    "url": "https://evil.example/",
    "events": [{"entity": "MODEL_VERSION_TAG", "action": "SET"}],
}
SCRIPT = "<script>alert(document.cookie)</script><img src=x onerror=alert(1)>"
WORDS = shared("words")


def registered_hook(house: House) -> dict[str, str]:
    """The webhook that the server has registered for the release service."""
    found = ok(house.call("admin", "GET", "webhooks"))["webhooks"]
    return {"hook": found[0]["webhook_id"]}


def as_words(stage: Stage) -> None:
    """Stored letter by letter, and never answered as a page."""
    house, version = stage.house, stage.on
    assert house.tags(version.model, version.number)["note"] == SCRIPT
    query = {"name": version.model, "version": version.number}
    answer = house.call("otto", "GET", "model-versions/get", params=query)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def described(stage: Stage) -> None:
    """The same, of a model's description."""
    answer = stage.house.call("otto", "GET", "registered-models/get?name=clr-words")
    assert answer.json()["registered_model"]["description"] == SCRIPT
    assert answer.headers["Content-Type"].startswith("application/json")


WEBHOOKS = [
    Attempt(who, words, send(method, f"webhooks{path}", body), "webhooks.yaml",
            given=registered_hook)
    for who, words, method, path, body in [
        ("admin", "registers a webhook", "POST", "", HOOK),
        ("tess", "registers a webhook", "POST", "", HOOK),
        ("alice", "registers a webhook", "POST", "", HOOK),
        ("clr-release", "registers a webhook", "POST", "", HOOK),
        ("admin", "points a webhook at another address", "PATCH", "/{hook}", {"url": "https://evil.example/"}),
        ("tess", "switches a webhook off", "PATCH", "/{hook}", {"status": "DISABLED"}),
        ("admin", "deletes a webhook", "DELETE", "/{hook}", {}),
        ("tess", "sends a test delivery of a webhook", "POST", "/{hook}/test", {}),
    ]
]  # fmt: skip

OTHERS = [
    Attempt(who, words, send(method, path, body), sentence, status)
    for who, words, method, path, body, sentence, status in [
        ("tess", "calls an address that MLflow does not have (`registered-models/bless`)",
         "POST", f"{API}/registered-models/bless", {"name": "clr-plain"}, ".", LOST),
        ("tess", "calls a next version of the interface (`/api/4.0/…/set-tag`)", "POST",
         "/api/4.0/mlflow/model-versions/set-tag", {}, ".", LOST),
        ("admin", "makes a gateway secret", "POST", f"{V3}/gateway/secrets/create",
         {"secret_name": "a", "secret_value": {"key": "b"}}, "not part|policy|allow", FORBIDDEN),
        ("admin", "makes a gateway endpoint", "POST", f"{V3}/gateway/endpoints/create",
         {"name": "a"}, ".", FORBIDDEN),
        ("alice", "puts a version into a review queue of MLflow", "POST",
         f"{V3}/review-queues/create", {"name": "a", "experiment_id": "{experiment}"}, ".",
         FORBIDDEN),
        ("tess", "registers a scorer (code that the server runs)", "POST",
         f"{V3}/scorers/register", {"experiment_id": "0", "name": "a", "serialized_scorer": "{}"},
         ".", FORBIDDEN),
        ("tess", "starts a job on the server", "POST", "/ajax-api/3.0/jobs/",
         {"job_name": "a", "params": {}}, ".", LOST),
        ("tess", "makes MLflow's demo", "POST", f"{PAGE3}/demo/generate", {}, ".", LOST),
        ("tess", "asks the assistant to change its configuration", "PUT",
         "/ajax-api/3.0/mlflow/assistant/config", {"providers": {}}, ".", LOST),
        ("tess", "registers a server of tools (MCP)", "POST", "/api/3.0/mlflow/mcp-servers",
         {"name": "a"}, ".", LOST),
        ("tess", "makes an issue", "POST", f"{V3}/issues", {"title": "a"}, ".", FORBIDDEN),
        ("tess", "sends traces by OpenTelemetry", "POST", "/v1/traces", {}, ".", LOST),
        ("admin", "makes a workspace of MLflow", "POST", f"{V3}/workspaces", {"name": "a"}, ".",
         LOST),
        ("otto", "logs a metric", "POST", f"{API}/runs/log-metric",
         {"run_id": "{run}", "key": "a", "value": 1, "timestamp": 1}, "reads", FORBIDDEN),
        ("alice", "starts a run", "POST", f"{API}/runs/create", {"experiment_id": "0"}, "trainer",
         FORBIDDEN),
        ("otto", "makes an experiment", "POST", f"{API}/experiments/create", {"name": "clr/otto"},
         "reads", FORBIDDEN),
        ("nina", "makes an experiment", "POST", f"{API}/experiments/create", {"name": "clr/nina"},
         "no role", FORBIDDEN),
    ]
]  # fmt: skip

TEXTS = [
    Attempt("tess", "tags a version with HTML and a script", tag("note", SCRIPT), given=WORDS,
            then=as_words, shows="kept as words; the page shows them as words"),
    Attempt("alice", "describes a model with HTML and a script",
            send("PATCH", "registered-models/update", {"name": "{model}", "description": SCRIPT}),
            given=WORDS, then=described, shows="kept as words"),
    Attempt("tess", "tags a version with a key of HTML", tag("<b>note</b>", "x"), ".",
            (400, FORBIDDEN), actor="-"),
    Attempt("tess", "tags a version with a million letters", tag("note", "x" * 1_000_000),
            "5000|5,000"),
    Attempt("tess", "tags a version with a key of 251 letters", tag("k" * 251, "x"), "250"),
    Attempt("tess", "tags a version with a NUL in the key", tag("no\x00te", "x"), ".", LOST),
    Attempt("tess", "tags a version with a NUL in the value", tag("note", "a\x00b"), ".", LOST),
    Attempt("tess", "tags a version with half a letter (a lone surrogate)",
            raw("POST", f"{API}/model-versions/set-tag",
                b'{"name": "clr-words", "version": "1", "key": "note", "value": "\\ud800"}'),
            ".", LOST, given=WORDS),
    Attempt("alice", "approves with a lone surrogate as the word",
            raw("POST", f"{API}/model-versions/set-tag",
                b'{"name": "clr-words", "version": "1", "key": "review", "value": "\\ud800"}'),
            ".", LOST, given=WORDS),
    Attempt("tess", "tags a version with SQL in the key", tag("a'; DROP TABLE tags; --", "x"), ".",
            (400, FORBIDDEN), actor="-"),
    Attempt("tess", "names an alias with SQL", post("registered-models/alias", name="{model}",
            version="{number}", alias="a'; DROP TABLE tags; --"), ".", LOST),
    Attempt("tess", "asks about a model named by a path",
            post("model-versions/set-tag", name="../clr-plain", version="1", key="review",
                 value="approved"), ".", LOST),
    Attempt("tess", "sends a body of JSON fifty thousand levels deep",
            raw("POST", f"{API}/model-versions/set-tag", b"[" * 50_000), ".", LOST),
    Attempt("tess", "sends a list instead of an object",
            raw("POST", f"{API}/model-versions/set-tag", b'[{"name": "clr-plain"}]'), ".", LOST),
    Attempt("tess", "sends `null`", raw("POST", f"{API}/model-versions/set-tag", b"null"), ".",
            LOST),
    Attempt("tess", "uploads a page with a script to her own run",
            put("{folder}/page.html", b"<script>alert(1)</script>"),
            given=lambda house: _own(house), then=lambda stage: _download(stage),
            shows="kept; opened directly, it downloads"),
]  # fmt: skip


def _own(house: House):
    from tests.server.attempts.births import files

    return files(house)


def _download(stage: Stage) -> None:
    """A page among the artifacts is a file to keep, not a page of the server."""
    where = stage.fill("/api/2.0/mlflow-artifacts/artifacts/{folder}/page.html")
    answer = stage.house.call("otto", "GET", where)
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
