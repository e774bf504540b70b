"""What a registered version stands on: its run, its logged model, their experiment, their files."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import requests

from tests.candidate import ADAPTER, creation, experiment_of, prepare
from tests.house import House
from tests.server.attempts.births import files
from tests.server.attempts.model import (
    BAD,
    FILES,
    PLAIN,
    UNAUTHENTICATED,
    Attempt,
    Stage,
    post,
    put,
    raw,
    send,
)
from tests.waiting import until

MPU = "/api/2.0/mlflow-artifacts/mpu"
OWN = "{folder}"
LOST = (BAD, 401, 403, 404)


def own(stage: Stage, *, way: str) -> requests.Response:
    """Reach from a folder of one's own into that of a registered version."""
    victim = stage.house.version("plain")
    climb = way.format(victim=victim.folder, model=victim.model_id)
    return stage.raw("PUT", f"{FILES}/{stage.on.folder}/{climb}", b"other bytes")


def climbing(way: str):
    """A way out of one's own folder."""
    return lambda stage: own(stage, way=way)


RUNS = [
    Attempt("tess", f"{words} a registered version's run", post(path, run_id="{run}", **body),
            "registered|write-once")
    for words, path, body in [
        ("logs a metric to", "runs/log-metric",
         {"key": "accuracy", "value": 1.0, "timestamp": 1, "step": 0}),
        ("logs a parameter to", "runs/log-parameter", {"key": "backbone", "value": "other"}),
        ("logs a batch to", "runs/log-batch",
         {"metrics": [{"key": "accuracy", "value": 1.0, "timestamp": 1, "step": 0}]}),
        ("sets a tag of", "runs/set-tag", {"key": "note", "value": "better"}),
        ("deletes a tag of", "runs/delete-tag", {"key": "mlflow.runName"}),
        ("renames", "runs/update", {"run_name": "another"}),
        ("deletes", "runs/delete", {}),
        ("adds a data set to", "runs/log-inputs", {"datasets": []}),
        ("adds a model to", "runs/outputs", {"models": [{"model_id": "{model_id}", "step": 0}]}),
    ]
]  # fmt: skip

MODELS = [
    Attempt("tess", f"{words} a registered version's logged model",
            send(method, f"logged-models/{{model_id}}{path}", body), "registered|write-once")
    for words, method, path, body in [
        ("tags", "PATCH", "/tags", {"tags": [{"key": "clr.key", "value": "other"}]}),
        ("deletes a tag of", "DELETE", "/tags/clr.key", {}),
        ("adds parameters to", "POST", "/params", {"params": [{"key": "a", "value": "b"}]}),
        ("sets the status of", "PATCH", "", {"status": "LOGGED_MODEL_UPLOAD_FAILED"}),
        ("deletes", "DELETE", "", {}),
    ]
]  # fmt: skip

ABOUT = {"key": "accuracy", "value": 1.0, "timestamp": 1, "step": 0}
FOREIGN = [
    Attempt("tess", f"{words}, from a run of her own", post(path, run_id="{own}", **body),
            "registered|write-once", given=lambda house: besides(house))
    for words, path, body in [
        ("logs a metric about a registered model", "runs/log-metric",
         {**ABOUT, "model_id": "{model_id}"}),
        ("logs a batch about a registered model", "runs/log-batch",
         {"metrics": [{**ABOUT, "model_id": "{model_id}"}]}),
        ("names a registered model as what it made", "runs/outputs",
         {"models": [{"model_id": "{model_id}", "step": 0}]}),
    ]
]  # fmt: skip


def besides(house: House) -> dict[str, str]:
    """A registered version, and a run of tess's that has nothing to do with it."""
    return {"model_id": house.version("plain").model_id, "own": files(house).run}


def astray(house: House) -> dict[str, str]:
    """A version whose files lie in another experiment than its run."""
    other = experiment_of(house.call, "tess", "clr/elsewhere")
    house.version("astray", files_in=other)
    return {"experiment": other}


EXPERIMENTS = [
    Attempt("tess", "deletes the experiment that holds only the files of a registered version",
            post("experiments/delete", experiment_id="{experiment}"), "registered", given=astray),
    *[
        Attempt("tess", f"makes an experiment whose files lie in {place}",
                post("experiments/create", name="clr/far", **{key: place}), "own store")
        for key, place in [("artifact_location", "file:///etc"),
                           ("artifactLocation", "s3://evil/bucket"),
                           ("artifact_location", "mlflow-artifacts:/../secrets")]
    ],
] + [
    Attempt(who, words, post(path, experiment_id="{experiment}", **body), sentence)
    for who, words, path, body, sentence in [
        ("tess", "deletes the experiment of registered versions", "experiments/delete", {},
         "registered"),
        ("admin", "deletes the experiment of registered versions", "experiments/delete", {},
         "registered"),
        ("tess", "renames the experiment of registered versions", "experiments/update",
         {"new_name": "clr/other"}, "registered"),
    ]
]  # fmt: skip

UPLOADS = [
    Attempt("tess", "overwrites the adapter of a registered version",
            put(f"{OWN}/{ADAPTER}"), "write-once|registered"),
    Attempt("admin", "overwrites the adapter of a registered version",
            put(f"{OWN}/{ADAPTER}"), "write-once|registered"),
    Attempt("clr-trainer", "overwrites the adapter, by the page's own address",
            send("PUT", f"/ajax-api/2.0/mlflow-artifacts/artifacts/{OWN}/{ADAPTER}", data=b"x"),
            "write-once|registered"),
    Attempt("tess", "adds a file beside the adapter", put(f"{OWN}/artifacts/more.json"),
            "write-once|registered"),
    Attempt("tess", "overwrites the gate report in the version's run",
            put("{run_folder}/gate.json"), "write-once|registered"),
    Attempt("tess", "uploads to the version's run with the page's form",
            send("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=gate.json",
                 data=b"{}"), "write-once|registered"),
    Attempt("tess", "deletes the adapter of a registered version",
            send("DELETE", f"{FILES}/{OWN}/{ADAPTER}"), "write-once|registered"),
    Attempt("admin", "deletes all files of a registered version",
            send("DELETE", f"{FILES}/{OWN}"), "write-once|registered"),
    Attempt("admin", "deletes the experiment's folder", send("DELETE", f"{FILES}/{{experiment}}"),
            "write-once|registered"),
    Attempt("admin", "deletes the folder of all files", raw("DELETE", f"{FILES}/."), ".",
            LOST),
    Attempt("tess", "begins an upload in parts over the adapter",
            send("POST", f"{MPU}/create/{OWN}/{ADAPTER}", {"path": ADAPTER, "num_parts": 1}),
            "write-once|registered"),
    Attempt("tess", "completes an upload in parts over the adapter",
            send("POST", f"{MPU}/complete/{OWN}/{ADAPTER}",
                 {"path": ADAPTER, "upload_id": "1", "parts": []}), "write-once|registered"),
    Attempt("tess", "aborts an upload in parts over the adapter",
            send("POST", f"{MPU}/abort/{OWN}/{ADAPTER}", {"path": ADAPTER, "upload_id": "1"}),
            "write-once|registered"),
    Attempt("tess", "asks for a signed address to upload the adapter anew",
            post("artifacts/presigned-upload-url", model_id="{model_id}", path=ADAPTER),
            "write-once|registered"),
    Attempt("alice", "uploads a file", put(f"{OWN}/note.txt"), "trainer|write", given=files),
    Attempt("otto", "uploads a file", put(f"{OWN}/note.txt"), "reads", given=files),
    Attempt("nina", "uploads a file", put(f"{OWN}/note.txt"), "no role", given=files),
    Attempt("", "uploads a file", put(f"{OWN}/note.txt"), ".", UNAUTHENTICATED, given=files,
            actor="-"),
    Attempt("tess", "uploads a file to a logged model of hers that no version names",
            put(f"{OWN}/note.txt"), given=files, shows="done"),
    Attempt("alice", "deletes a file", send("DELETE", f"{FILES}/{OWN}/note.txt"), "trainer|write",
            given=files),
]  # fmt: skip

CLIMBS = [
    Attempt("tess", f"reaches into a registered version's folder by `{shown}`", climbing(way),
            "path|registered|write-once", given=files)
    for shown, way in [
        ("../../", "../../{model}/artifacts/" + ADAPTER),
        ("%2e%2e/", "%2e%2e/%2e%2e/{model}/artifacts/" + ADAPTER),
        ("..%2f", "..%2f..%2f{model}%2fartifacts%2f" + ADAPTER.replace("/", "%2f")),
        ("%252e%252e%252f", "%252e%252e%252f%252e%252e%252f{model}%252fartifacts%252f"
         + ADAPTER.replace("/", "%252f")),
        ("..\\..\\", "..\\..\\{model}\\artifacts\\" + ADAPTER.replace("/", "\\")),
        ("..%5c..%5c", "..%5c..%5c{model}%5cartifacts%5c" + ADAPTER.replace("/", "%5c")),
        (".%00./", ".%00./.%00./{model}/artifacts/" + ADAPTER),
    ]
] + [
    Attempt("tess", f"writes to `{shown}`", raw("PUT", f"{FILES}/{target}", b"x"),
            "path|registered|write-once|not found|invalid", given=PLAIN)
    for shown, target in [
        ("//<folder of the version>", f"/{OWN}/{ADAPTER}"),
        ("<folder>/./adapter", f"{OWN}/./{ADAPTER}"),
        ("<folder>//adapter", f"{OWN}/artifacts//adapter.safetensors"),
        ("<other>/../<folder>", f"x/../{OWN}/{ADAPTER}"),
        ("%2fetc%2fclr", "%2fetc%2fclr"),
        ("/etc/clr", "/etc/clr"),
        ("C:\\clr", "C:%5cclr"),
        ("file:///etc/clr", "file:%2f%2f%2fetc/clr"),
        ("../mlflow.db", "../mlflow.db"),
        ("..%2fmlflow.db", "..%2fmlflow.db"),
        ("..%252fsecrets%252fflask.key", "..%252fsecrets%252fflask.key"),
        ("<folder of the version>%00", f"{OWN}/{ADAPTER}%00.txt"),
        ("<folder of the version>#x", f"{OWN}/{ADAPTER}%23x"),
    ]
]  # fmt: skip


def unborn(house: House):
    """Files of a model of their own, which no version names yet."""
    if "unborn" not in house.made:
        house.call("tess", "POST", "registered-models/create", {"name": "clr-unborn"})
        house.made["unborn"] = prepare(house.call, "tess", "unborn")
    return house.made["unborn"]


def slowly(stage: Stage) -> requests.Response:
    """Begin an upload over one's own file, register that file, then let the upload end."""
    made, house = stage.on, stage.house
    address = urlsplit(house.url)
    target = f"{FILES}/{made.folder}/{ADAPTER}"
    with socket.create_connection((address.hostname, address.port), timeout=60) as line:
        login = requests.Request("GET", house.url, auth=house.as_("tess").auth).prepare().headers
        head = f"PUT {target} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        head += f"Authorization: {login['Authorization']}\r\nContent-Length: 10\r\n\r\n"
        line.sendall(head.encode() + b"other")
        time.sleep(0.5)  # so that it has begun
        answer = house.call("tess", "POST", "model-versions/create", creation(made, "unborn"))
    folder = house.plant.state / "artifacts" / made.folder
    assert until(lambda: not [*folder.rglob(".*.uploading.*")]), "an upload that ended is left"
    return answer


RACES = [
    Attempt("tess", "registers a file while an upload over it is still under way", slowly,
            "being written", (409, 503), given=unborn),
]  # fmt: skip

PLACES = [
    Attempt("tess", f"uploads to {shown}, outside of all runs and logged models",
            put(path), "run|logged model", given=files)
    for shown, path in [
        ("`7`, where an experiment's folder will be", "7"),
        ("`<experiment>/models`, as a file", "{experiment}/models"),
        ("`somewhere/page.html`", "somewhere/page.html"),
    ]
]  # fmt: skip

READS = [
    Attempt(who, f"reads `{shown}`", raw("GET", target), ".", LOST, actor="-")
    for who, shown, target in [
        ("otto", "/get-artifact?path=../../mlflow.db",
         "/get-artifact?run_id={run}&path=../../mlflow.db"),
        ("otto", "/get-artifact?path=/etc/passwd", "/get-artifact?run_id={run}&path=/etc/passwd"),
        ("otto", "/model-versions/get-artifact?path=..%2f..%2fmlflow.db",
         "/model-versions/get-artifact?name={model}&version=1&path=..%2f..%2fmlflow.db"),
        ("otto", "…/mlflow-artifacts/artifacts?path=../secrets", f"{FILES}?path=../secrets"),
        ("otto", "…/artifacts/list?path=../../../..",
         "/api/2.0/mlflow/artifacts/list?run_id={run}&path=../../../.."),
        ("", "/static-files/../../../../etc/passwd", "/static-files/../../../../etc/passwd"),
        ("", "/static-files/..%2f..%2f..%2f..%2fetc%2fpasswd",
         "/static-files/..%2f..%2f..%2f..%2fetc%2fpasswd"),
    ]
] + [
    Attempt("otto", f"reads `{shown}` through the server", raw("GET", f"{FILES}/{target}"),
            "path|Invalid|not|No such|denied", LOST, actor="-")
    for shown, target in [
        ("../mlflow.db", "../mlflow.db"),
        ("..%2fsecrets%2fadmin.password", "..%2fsecrets%2fadmin.password"),
        ("..%252fsecrets%252fadmin.password", "..%252fsecrets%252fadmin.password"),
        ("/etc/passwd", "/etc/passwd"),
        ("%2fetc%2fpasswd", "%2fetc%2fpasswd"),
    ]
]  # fmt: skip

ROWS = [*RUNS, *MODELS, *FOREIGN, *EXPERIMENTS, *UPLOADS, *PLACES, *RACES, *CLIMBS, *READS]
