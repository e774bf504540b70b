"""Accounts, passwords, rights; who may read."""

from __future__ import annotations

import requests

from tests.house import AJAX, API, House
from tests.server.attempts.model import (
    BAD,
    FILES,
    FORBIDDEN,
    UNAUTHENTICATED,
    UNKNOWN,
    Attempt,
    How,
    Stage,
    post,
    send,
)

V3, V3_PAGE = "/api/3.0/mlflow", "/ajax-api/3.0/mlflow"
NEW = "a-long-new-password"


def signs_in(user: str, password: str) -> How:
    """Ask who one is."""
    return lambda stage: stage.call("GET", "users/current", auth=(user, password))


def account(name: str):
    """Given: somebody with an account and without any role."""

    def make(house: House) -> dict[str, str]:
        if name not in house.passwords:
            house.passwords[name] = f"{name}-{name}-{name}"
            body = {"username": name, "password": house.passwords[name]}
            house.call("admin", "POST", "users/create", body)
        return {"account": name}

    return make


def changed(house: House) -> dict[str, str]:
    """Tom, who has changed his password; the old one had been used before."""
    if "before" not in house.passwords:
        old = house.passwords["tom"]
        house.call("tom", "GET", "users/current")
        body = {"username": "tom", "password": f"toms-{NEW}", "current_password": old}
        answer = house.call("tom", "PATCH", "users/update-password", body)
        assert answer.status_code == 200, answer.text
        house.passwords["before"], house.passwords["tom"] = old, f"toms-{NEW}"
        house.as_("tom").auth = ("tom", house.passwords["tom"])
    return {"password": house.passwords["before"]}


def old_password(stage: Stage) -> requests.Response:
    """Sign in with the password of before."""
    auth = ("tom", stage.on["password"])
    return stage.call("GET", "registered-models/search", auth=auth)


def dismissed(house: House) -> dict[str, str]:
    """Somebody whose account the administrator has deleted; he had been here before."""
    if "paul" not in house.passwords:
        account("paul")(house)
        house.call("paul", "GET", "users/current")
        house.call("admin", "DELETE", "users/delete", {"username": "paul"})
    return {"password": house.passwords["paul"]}


def as_paul(stage: Stage) -> requests.Response:
    """Sign in to an account that is gone."""
    return stage.call("GET", "users/current", auth=("paul", stage.on["password"]))


READS = [
    Attempt("otto", f"reads {what}", how, shows="read")
    for what, how in [
        ("the registered models", send("GET", "registered-models/search")),
        ("a version with its card", send("GET", "model-versions/get?name={model}&version=1")),
        ("all versions", send("GET", f"{AJAX}/model-versions/search")),
        ("runs (a search is a POST)", post("runs/search", experiment_ids=["{experiment}"])),
        ("logged models (a POST, too)",
         post("logged-models/search", experiment_ids=["{experiment}"])),
        ("a registered adapter's file",
         send("GET", f"{FILES}/{{folder}}/artifacts/adapter.safetensors")),
        ("the release in force",
         send("GET", "registered-models/alias?name=clr-release&alias=champion")),
        ("MLflow's page", send("GET", "/")),
    ]
] + [
    Attempt(who, f"reads {what}", how, sentence, status, actor="-")
    for who, what, how, sentence, status in [
        ("nina", "the registered models", send("GET", "registered-models/search"), "no role",
         FORBIDDEN),
        ("nina", "a registered adapter's file",
         send("GET", f"{FILES}/{{folder}}/artifacts/adapter.safetensors"), "no role", FORBIDDEN),
        ("nina", "a run's file", send("GET", "/get-artifact?run_id={run}&path=result.json"),
         "no role", FORBIDDEN),
        ("", "the registered models", send("GET", "registered-models/search"), ".",
         UNAUTHENTICATED),
        ("", "a registered adapter's file",
         send("GET", f"{FILES}/{{folder}}/artifacts/adapter.safetensors"), ".", UNAUTHENTICATED),
        ("", "MLflow's page", send("GET", "/"), ".", UNAUTHENTICATED),
        ("", "the page for signing up", send("GET", "/signup"), ".", UNAUTHENTICATED),
        ("", "the list of users", send("GET", "users/list"), ".", UNAUTHENTICATED),
    ]
]  # fmt: skip

PASSWORDS = [
    *(
        Attempt("", f"signs in as admin with the password `{password}`",
                signs_in("admin", password), ".", UNAUTHENTICATED, actor="-")
        for password in ("password1234", "password", "admin", "")
    ),
    Attempt("", "signs in as tom with the password that he has changed", old_password, ".",
            UNAUTHENTICATED, given=changed, actor="-"),
    Attempt("", "signs in to an account that was deleted", as_paul, ".", UNAUTHENTICATED,
            given=dismissed, actor="-"),
    Attempt("", "signs in as `ALICE` with alice's password",
            lambda stage: stage.call("GET", "users/current",
                                     auth=("ALICE", stage.house.passwords["alice"])), ".",
            UNAUTHENTICATED, actor="-"),
    *(
        Attempt(who, f"sets {whose} password",
                send("PATCH", "users/update-password", {"username": name, "password": NEW}),
                sentence)
        for who, whose, name, sentence in [
            ("tess", "alice's", "alice", "another user's password"),
            ("admin", "alice's (a reviewer)", "alice", "clr users"),
            ("admin", "the release service's", "clr-release", "clr users"),
            ("ada", "the administrator's", "admin", "own|clr users"),
            ("otto", "alice's", "alice", "."),
        ]
    ),
    Attempt("admin", "sets the password of somebody without a role",
            send("PATCH", "users/update-password", {"username": "{account}", "password": NEW}),
            given=account("olga"), shows="done"),
]  # fmt: skip

ACCOUNTS = [
    Attempt("", "signs up", send("POST", "users/create-ui", data={
            "username": "mallory", "password": NEW}), ".", UNAUTHENTICATED, actor="-"),
    Attempt("", "makes an account", post("users/create", username="mallory", password=NEW), ".",
            UNAUTHENTICATED, actor="-"),
    Attempt("alice", "makes an account", post("users/create", username="mallory", password=NEW),
            "admin"),
    Attempt("tess", "makes an account, by the page's form", send("POST", "users/create-ui", data={
            "username": "mallory", "password": NEW}), "."),
    Attempt("admin", "makes an account for a name that has a role in policy.yaml",
            post("users/create", username="dora", password=NEW), "clr users"),
    Attempt("admin", "makes an account for a name that looks like a reviewer's (`Alice`)",
            post("users/create", username="Alice", password=NEW), "name of a user"),
    Attempt("admin", "deletes a reviewer's account, to make it anew",
            send("DELETE", "users/delete", {"username": "alice"}), "clr users"),
    Attempt("admin", "deletes the release service's account",
            send("DELETE", "users/delete", {"username": "clr-release"}), "clr users"),
    Attempt("admin", "deletes the account `admin`",
            send("DELETE", "users/delete", {"username": "admin"}), "clr users"),
    Attempt("alice", "deletes a colleague's account",
            send("DELETE", "users/delete", {"username": "tom"}), "admin"),
    Attempt("admin", "deletes an account without a role",
            send("DELETE", "users/delete", {"username": "{account}"}), given=account("oleg"),
            shows="done"),
    Attempt("alice", "makes herself administrator of MLflow",
            send("PATCH", "users/update-admin", {"username": "alice", "is_admin": True}),
            "policy.yaml"),
    Attempt("admin", "makes tess administrator of MLflow",
            send("PATCH", "users/update-admin", {"username": "tess", "is_admin": True}),
            "policy.yaml"),
    Attempt("tess", "gives herself MLflow's right MANAGE on a model",
            send("POST", f"{V3}/users/permissions/grant", {
                "username": "tess", "resource_type": "registered_model",
                "resource_id": "{model}", "permission": "MANAGE"}), "policy.yaml"),
    Attempt("admin", "gives tess MLflow's right MANAGE on a model",
            send("POST", f"{V3_PAGE}/users/permissions/grant", {
                "username": "tess", "resource_type": "registered_model",
                "resource_id": "{model}", "permission": "MANAGE"}), "policy.yaml"),
    Attempt("admin", "makes a role in MLflow",
            send("POST", f"{V3}/roles/create", {"name": "approver"}), "policy.yaml"),
    Attempt("admin", "gives tess a role in MLflow",
            send("POST", f"{V3}/roles/assign", {"username": "tess", "role_id": 1}),
            "policy.yaml"),
]  # fmt: skip

ROWS = [*READS, *PASSWORDS, *ACCOUNTS]
_ = (API, BAD, UNKNOWN)
