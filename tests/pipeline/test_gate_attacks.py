"""A gate that nothing can fail is no gate: what would harm earlier tasks is refused by its name.

Each attack is carried out on a working plant and shown to the same functions that
``clr onboard`` calls. Bytes that are not the recorded ones stop the work before there is a
verdict (exit code 6); everything else ends in a verdict that names check and task.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clr.core.adapter import Adapter
from clr.core.backbone import state_digest
from clr.core.network import Program
from clr.errors import GateRefused, IntegrityBroken
from clr.registry.fetch import adapter_path
from clr.registry.releases import current_release
from flows.demo import judge_backbone, offer_finetuned
from flows.job import images_of
from flows.judge import judge


@pytest.fixture(scope="module")
def served(template, tmp_path_factory, copy_of):
    """A plant whose files stay as they are; each test has a session of its own."""
    return copy_of(template.plant, tmp_path_factory.mktemp("attacks") / "plant")


@pytest.fixture
def session(served):
    return served.session()


@pytest.fixture
def release(session):
    return current_release(session.registry)


@pytest.fixture
def newcomer(session, release):
    """Evidence of an honest newcomer: red caps, seen as if they came again."""
    return session.evidence(release.tasks["red-caps"])


def test_an_honest_newcomer_passes(session, release, newcomer):
    report = judge(session, newcomer, release).report
    assert (report["verdict"], report["failed"]) == ("pass", [])


# --- the shared weights


def test_a_fully_finetuned_backbone_is_refused_with_the_forgetting_of_every_task(
    served, session, template
):
    refusal = offer_finetuned(session, template.tasks / "blue-caps")
    assert refusal["verdict"] == "refused"
    assert {one["task"] for one in refusal["forgetting"]} == {"red-caps", "green-caps", "blue-caps"}
    assert "retention:" in " ".join(refusal["failed"])
    assert Path(refusal["report"]).is_file()
    assert current_release(session.registry).version == 3


@pytest.mark.parametrize("strength", [10.0, 1e4])
def test_a_backbone_finetuned_with_elastic_weight_consolidation_is_refused(
    session, release, strength
):
    """Kirkpatrick et al. 2017: pulled to the old weights where the old task needs them."""
    gentle = finetuned_with_ewc(session, release, old="red-caps", new="blue-caps", pull=strength)
    declared, _ = judge_backbone(session, release, gentle)
    assert declared["verdict"] != "pass"
    named = {*declared["failed"], *declared["inconclusive"]}
    assert "retention:red-caps" in named
    secret, _ = judge_backbone(session, release, gentle, declared=frozenset())
    assert secret["verdict"] == "fail"
    assert {f"backbone:{task}" for task in release.tasks} <= set(secret["failed"])


def finetuned_with_ewc(session, release, *, old, new, pull):
    backbone = session.backbone
    module = copy.deepcopy(backbone.module).requires_grad_(True).eval()
    trained = dataclasses.replace(
        backbone,
        module=module,
        convolutions={path: module.get_submodule(path) for path in backbone.convolutions},
    )

    def loss(task):
        adapter = session.champion_network(release.tasks[task]).adapter(task)
        spec = adapter.spec
        folder = session.settings.workspace / "data" / task
        images = images_of(session, folder, "train", spec)
        from clr.core.images import prepare

        batch = prepare(images.batch(torch.arange(len(images))), spec.preprocessing)
        program = Program(trained, {n: t.detach().clone() for n, t in adapter.tensors.items()})
        return F.cross_entropy(program.logits(batch), images.labels)

    before = [p.detach().clone() for p in module.parameters()]
    grads = torch.autograd.grad(loss(old), list(module.parameters()), allow_unused=True)
    fisher = [
        torch.zeros_like(p) if g is None else g**2 for p, g in zip(before, grads, strict=True)
    ]
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    for _ in range(20):
        drift = sum(
            (f * (p - b) ** 2).sum()
            for f, p, b in zip(fisher, module.parameters(), before, strict=True)
        )
        optimiser.zero_grad()
        (-loss(new) + pull * drift).backward()
        optimiser.step()
    module.requires_grad_(False)
    return dataclasses.replace(trained, digest=state_digest(module), name="ewc")


def test_one_flipped_bit_in_the_backbone_in_memory(session, release, newcomer):
    weight = next(session.backbone.module.parameters())
    weight.data.view(torch.int32)[0, 0, 0, 0] ^= 1
    with pytest.raises(IntegrityBroken, match=r"backbone .* in memory"):
        judge(session, newcomer, release)


def test_something_outside_all_files_that_changes_answers(session, release, newcomer):
    """Every digest is right, and yet the object that serves computes something else."""
    convolution = next(iter(session.backbone.convolutions.values()))
    handle = convolution.register_forward_hook(lambda module, given, output: output * 1.001)
    try:
        report = judge(session, newcomer, release).report
    finally:
        handle.remove()
    assert report["verdict"] == "fail"
    assert {"canary:green-caps", "canary:blue-caps"} <= set(report["failed"])


# --- one task's own parts


def attach_changed(session, release, task, **changes):
    network = session.champion_network(release.tasks[task])
    adapter = network.adapter(task)
    network.attach(Adapter(**{"spec": adapter.spec, "tensors": adapter.tensors, **changes}), task)


def test_drifted_preprocessing_of_an_attached_adapter(session, release, newcomer):
    spec = session.champion_network(release.tasks["green-caps"]).adapter("green-caps").spec
    way = dataclasses.replace(spec.preprocessing, mean=(0.5, 0.5, 0.4))
    changed = dataclasses.replace(spec, preprocessing=way)
    attach_changed(session, release, "green-caps", spec=changed)
    report = judge(session, newcomer, release).report
    assert report["verdict"] == "fail"
    assert "preprocessing:green-caps" in report["failed"]
    assert not [name for name in report["failed"] if "blue-caps" in name]


def test_an_attached_adapter_that_is_not_the_registered_one(session, release, newcomer):
    adapter = session.champion_network(release.tasks["green-caps"]).adapter("green-caps")
    tensors = {name: tensor.clone() for name, tensor in adapter.tensors.items()}
    tensors["head.bias"][0] += 1e-3
    attach_changed(session, release, "green-caps", tensors=tensors)
    report = judge(session, newcomer, release).report
    assert "adapter:green-caps" in report["failed"]


def test_a_swapped_adapter_file_in_the_registry(working, template, tmp_path):
    """The file of one task under the name of another, noticed before the gate has a verdict."""
    session = working.session()
    release = current_release(session.registry)
    files = {
        task: adapter_path(session.registry, task, ref.version, ref.adapter_digest)
        for task, ref in release.tasks.items()
    }
    files["green-caps"].write_bytes(files["blue-caps"].read_bytes())
    with pytest.raises(IntegrityBroken, match="adapter of green-caps version 1"):
        judge(session, session.evidence(release.tasks["red-caps"]), release)

    before = working.photograph()
    task = shutil.copytree(template.tasks / "red-caps", tmp_path / "more-caps")
    answer = working.clr("onboard", task)
    assert answer.code == IntegrityBroken.exit_code
    assert "adapter of green-caps version 1" in answer.err
    after = working.photograph()
    for what in ("versions", "aliases"):
        assert after[what] == before[what]
    assert after["ledger"] == [*before["ledger"], ("data.versioned", "clr-more-caps")]


# --- the router


def test_a_newcomer_whose_statistics_draw_the_images_of_others(session, release, newcomer):
    victim = session.evidence(release.tasks["green-caps"])
    means = np.concatenate([newcomer.statistics.means[:1], victim.features[:1]])
    greedy = dataclasses.replace(
        newcomer.statistics,
        counts=np.full(13, 12, dtype=np.int64),
        means=np.concatenate([means[:1], victim.features[:12]]),
    )
    poisoned = dataclasses.replace(newcomer, statistics=greedy)
    report = judge(session, poisoned, release).report
    assert report["verdict"] != "pass"
    assert "routing:green-caps" in {*report["failed"], *report["inconclusive"]}


def test_a_newcomer_whose_held_out_images_make_the_choices_of_others_doubtful(
    session, release, newcomer
):
    """They are another task's: the router would have to doubt every image of that."""
    victim = session.evidence(release.tasks["green-caps"])
    forged = np.tile(victim.features, (4, 1)).astype(np.float16)
    statistics = dataclasses.replace(newcomer.statistics, calibration=forged)
    poisoned = dataclasses.replace(newcomer, statistics=statistics)
    report = judge(session, poisoned, release).report
    assert report["verdict"] == "fail"
    assert "doubt:green-caps" in report["failed"]
    assert not [name for name in report["failed"] if name.startswith("routing:")]


def test_changed_evidence_of_an_earlier_task(working):
    session = working.session()
    release = current_release(session.registry)
    newcomer = session.evidence(release.tasks["red-caps"])
    copies = [
        session.evidence_copy(release.tasks["green-caps"].evidence_digest),
        *(working.state / "artifacts/clr-green-caps").rglob("evidence.safetensors"),
    ]
    assert len(copies) == 2
    for file in copies:
        flip(file)
    with pytest.raises(IntegrityBroken, match="evidence of green-caps version 1"):
        judge(session, newcomer, release)


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


# --- the test images of an earlier task


def test_test_images_of_an_earlier_task_gone_missing(working):
    session = working.session()
    release = current_release(session.registry)
    newcomer = session.evidence(release.tasks["red-caps"])
    (working.root / "data/green-caps/test/dark/00.png").unlink()
    report = judge(session, newcomer, release).report
    assert report["verdict"] == "fail"
    assert "test-data:green-caps" in report["failed"]
    assert "test-data:blue-caps" not in report["failed"]


def test_test_images_of_an_earlier_task_exchanged(working):
    session = working.session()
    release = current_release(session.registry)
    newcomer = session.evidence(release.tasks["red-caps"])
    folder = working.root / "data/green-caps/test"
    shutil.copyfile(folder / "dark/00.png", folder / "light/00.png")
    report = judge(session, newcomer, release).report
    assert "test-data:green-caps" in report["failed"]


def test_a_review_whose_gate_runs_again_promotes_nothing_if_it_fails(working, tmp_path, new_caps):
    for name, colour in (("red-caps", 0), ("blue-caps", 2)):
        answer = working.clr("onboard", new_caps(tmp_path / name, colour, seed=5))
        assert answer.code == 0, answer
    assert working.clr("review", "red-caps", 2, "approve").code == 0
    (working.root / "data/green-caps/test/dark/00.png").unlink()
    before = working.photograph()
    answer = working.clr("review", "blue-caps", 2, "approve")
    assert answer.code == GateRefused.exit_code
    assert "test-data:green-caps" in answer.err
    after = working.photograph()
    assert after["versions"] == before["versions"]
    assert after["aliases"] == before["aliases"] - 1  # it is no candidate any more
    assert not [act for act in after["ledger"][len(before["ledger"]) :] if "release" in act[0]]
