"""Evidence made to order: exact counts of regressed and repaired items, named digests."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from clr.gate import EarlierTask, Newcomer, Offer, Snapshot

CLASSES = 4


def digest(word):
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def snapshot(task="digits", **changed):
    usual = {
        "backbone": digest("backbone"),
        "adapter": digest(f"adapter of {task}"),
        "preprocessing": digest("preprocessing"),
        "environment": "torch=2.13.0 cpu threads=2",
        "canary": digest(f"canary of {task}"),
    }
    return Snapshot(**(usual | changed))


def answers(n, right, regressed=0, repaired=0, offset=1):
    """Return labels, first answers and second answers with exactly these counts."""
    labels = np.arange(n) % CLASSES
    wrong = (labels + offset) % CLASSES
    first = np.where(np.arange(n) < right, labels, wrong)
    second = first.copy()
    second[:regressed] = wrong[:regressed]
    second[right : right + repaired] = labels[right : right + repaired]
    return labels, first, second


def earlier(task="digits", *, n=400, right=None, regressed=0, repaired=0, **other):
    """An earlier task whose replay was done; unchanged unless told otherwise."""
    right = int(0.9 * n) if right is None else right
    labels, stored, replayed = answers(n, right, regressed, repaired)
    routed = stored == labels
    usual = {
        "before": snapshot(task),
        "after": snapshot(task),
        "test_before": digest(f"test images of {task}"),
        "test_after": digest(f"test images of {task}"),
        "labels": labels,
        "stored": stored,
        "replayed": replayed,
        "replay_due": True,
        "routed_before": routed,
        "routed_after": routed,
    }
    return EarlierTask(task, **(usual | other))


def tuned(task="digits", *, n=400, regressed=0, repaired=0, **other):
    """An earlier task answered through another backbone."""
    after = snapshot(task, backbone=digest("tuned"), canary=digest(f"tuned canary of {task}"))
    return earlier(task, n=n, regressed=regressed, repaired=repaired, after=after, **other)


def newcomer(task="surface", *, n=400, right=None, lost=0, won=60, **other):
    """A task that answers `won` items right that the probe has wrong, and `lost` vice versa."""
    labels, probe, predicted = answers(n, int(0.7 * n) if right is None else right, lost, won)
    usual = {
        "labels": labels,
        "predicted": predicted,
        "probe": probe,
        "majority": 0,
        "champion": None,
        "routed": predicted == labels,
        "params_pct": 1.74,
        "adapter_bytes": 231_000,
        "latency_p95_ms": 21.3,
        "bare_latency_p95_ms": 15.2,
        "digests": {
            "data": "md5:" + "0" * 32 + ".dir",
            **{
                name: digest(name)
                for name in ("code", "environment", "backbone", "adapter", "recipe")
            },
        },
    }
    return Newcomer(task, **(usual | other))


def offer(*tasks, new=None, declared=(), matrix=None):
    return Offer(new, tasks, frozenset(declared), matrix)


@pytest.fixture(scope="session")
def make():
    return SimpleNamespace(
        digest=digest,
        snapshot=snapshot,
        answers=answers,
        earlier=earlier,
        tuned=tuned,
        newcomer=newcomer,
        offer=offer,
    )
