"""A gate that nothing can fail is no gate: every attack is refused by its own name."""

import numpy as np
import pytest

from clr.gate import decide


def other(make, task="digits", **changed):
    return make.snapshot(task, **changed)


ATTACKS = {
    "full fine-tuning, not declared": (
        lambda make: make.offer(make.tuned(regressed=90), make.tuned("materials", regressed=120)),
        ["retention:digits", "backbone:digits", "retention:materials", "backbone:materials"],
    ),
    "full fine-tuning, declared": (
        lambda make: make.offer(make.tuned(regressed=90), declared=["backbone"]),
        ["retention:digits"],
    ),
    "EWC, not declared": (
        lambda make: make.offer(make.tuned(regressed=3, repaired=3)),
        ["backbone:digits"],
    ),
    "EWC, declared, forgets three points": (
        lambda make: make.offer(make.tuned(regressed=18, repaired=6), declared=["backbone"]),
        ["retention:digits"],
    ),
    "another change than the declared one": (
        lambda make: make.offer(make.tuned(regressed=0), declared=["adapter"]),
        ["backbone:digits"],
    ),
    "swapped adapter": (
        lambda make: make.offer(
            make.earlier(after=other(make, adapter=make.digest("adapter of materials")))
        ),
        ["adapter:digits"],
    ),
    "swapped adapter that answers badly": (
        lambda make: make.offer(
            make.earlier(after=other(make, adapter=make.digest("wrong")), regressed=200)
        ),
        ["retention:digits", "adapter:digits"],
    ),
    "one flipped bit in the backbone, no answer changed": (
        lambda make: make.offer(
            make.earlier(after=other(make, backbone=make.digest("backbone, one bit flipped")))
        ),
        ["backbone:digits"],
    ),
    "one flipped bit in the backbone, not replayed": (
        lambda make: make.offer(
            make.earlier(
                after=other(make, backbone=make.digest("flipped")), replayed=None, replay_due=False
            )
        ),
        ["backbone:digits"],
    ),
    "drifted preprocessing": (
        lambda make: make.offer(
            make.earlier(after=other(make, preprocessing=make.digest("mean 0.485")), regressed=2)
        ),
        ["preprocessing:digits"],
    ),
    "the serving object is not what the files say": (
        lambda make: make.offer(make.earlier(after=other(make, canary=make.digest("else")))),
        ["canary:digits"],
    ),
    "same canaries, other answers": (
        lambda make: make.offer(make.earlier(regressed=1)),
        ["retention:digits"],
    ),
    "poisoned router": (
        lambda make: make.offer(
            make.earlier(routed_after=np.arange(400) < 300), make.earlier("materials")
        ),
        ["routing:digits"],
    ),
    "newcomer that makes right choices doubtful": (
        lambda make: make.offer(
            make.earlier(doubted=np.arange(400) < 60), make.earlier("materials"),
            new=make.newcomer(),
        ),
        ["doubt:digits"],
    ),
    "router not measured after": (
        lambda make: make.offer(make.earlier(routed_after=None)),
        ["routing:digits"],
    ),
    "router in use, earlier task never measured": (
        lambda make: make.offer(
            make.earlier(routed_before=None, routed_after=None), new=make.newcomer()
        ),
        ["routing:digits"],
    ),
    "old test data gone": (
        lambda make: make.offer(make.earlier(test_after="", replayed=None)),
        ["test-data:digits"],
    ),
    "old test data gone, with everything that was stored": (
        lambda make: make.offer(
            make.earlier(n=0, right=0, test_after="", replayed=None, routed_before=None,
                         routed_after=None)
        ),
        ["test-data:digits"],
    ),
    "old test data exchanged": (
        lambda make: make.offer(make.earlier(test_after=make.digest("easier images"))),
        ["test-data:digits"],
    ),
    "old test data never recorded": (
        lambda make: make.offer(make.earlier(test_before="")),
        ["test-data:digits"],
    ),
    "replay due and left out": (
        lambda make: make.offer(make.earlier(replayed=None)),
        ["replay:digits"],
    ),
    "new environment, not replayed": (
        lambda make: make.offer(
            make.earlier(
                after=other(make, environment="torch=2.14.0"), replayed=None, replay_due=False
            )
        ),
        ["replay:digits"],
    ),
    "declared change, not replayed": (
        lambda make: make.offer(
            make.tuned(replayed=None, replay_due=False), declared=["backbone"]
        ),
        ["replay:digits"],
    ),
    "no canary taken, not replayed": (
        lambda make: make.offer(
            make.earlier(after=other(make, canary=""), replayed=None, replay_due=False)
        ),
        ["replay:digits"],
    ),
    "newcomer worse than the probe": (
        lambda make: make.offer(new=make.newcomer(lost=60, won=0)),
        ["improvement:surface"],
    ),
    "new version worse than its own champion": (
        lambda make: make.offer(new=make.newcomer(champion=np.arange(400) % 4)),
        ["own-champion:surface"],
    ),
    "too many parameters": (
        lambda make: make.offer(new=make.newcomer(params_pct=2.5)),
        ["parameters:surface"],
    ),
    "too large a file": (
        lambda make: make.offer(new=make.newcomer(adapter_bytes=4_000_001)),
        ["bytes:surface"],
    ),
    "too slow": (
        lambda make: make.offer(new=make.newcomer(latency_p95_ms=31.0)),
        ["latency:surface"],
    ),
    "latency not measured": (
        lambda make: make.offer(new=make.newcomer(latency_p95_ms=float("nan"))),
        ["latency:surface"],
    ),
    "bare latency not measured": (
        lambda make: make.offer(new=make.newcomer(bare_latency_p95_ms=float("inf"))),
        ["latency:surface"],
    ),
    "data digest missing": (
        lambda make: make.offer(new=make.newcomer(digests={"code": "sha256:" + "0" * 64})),
        ["provenance:surface"],
    ),
    "a digest that is none": (
        lambda make: make.offer(
            new=make.newcomer(digests=make.newcomer().digests | {"recipe": "sha256:latest"})
        ),
        ["provenance:surface"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_by_its_name(make, attack):
    build, names = ATTACKS[attack]
    report = decide(build(make))
    assert report.verdict == "fail"
    assert report.failed == names
    for key in names:
        assert key.partition(":")[0] in report.sentence


def test_what_was_forgotten_is_measured_even_where_the_cause_is_named(make):
    report = decide(make.offer(make.tuned(regressed=90)))
    retention = next(one for one in report.checks if one.name == "retention")
    assert (retention.facts["before"], retention.facts["after"]) == (0.9, 0.675)
    assert retention.how == "paired-test"
    assert retention.observed == pytest.approx(0.225)
    assert report.metrics["forgetting"] == pytest.approx(0.225)
    assert "90.0 % to 67.5 %" in retention.message


def test_every_check_has_a_plain_sentence_that_names_its_task(make):
    for build, _ in ATTACKS.values():
        for check in decide(build(make)).checks:
            assert check.task in check.message
            assert check.message.endswith(".")
            assert "nan" not in check.message.replace("latency", "") or check.name == "latency"
