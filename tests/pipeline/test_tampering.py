"""What somebody changes behind the back of `clr` is found by `clr verify`, and named.

One workspace with a history — three champions, a candidate, refused data — is made once; each
case edits a copy of it, in files or by SQL. Every kind that can be named has a case.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from clr.audit.signing import Head
from clr.core.files import sha256_bytes
from flows.anchors import anchor_to_file, anchor_to_git, read_anchor
from flows.findings import KINDS
from flows.verify import run_verify
from tests import tampering as by
from tests.conftest import Plant, copy_plant, make_task

PAGE = Path(__file__).parents[2] / "docs" / "verify.md"
RED, RELEASE = "clr-red-caps/1", "clr-release/3"
LOG = re.compile(r"-(wal|shm|journal)$")
SOMEBODY = "sha256:" + "e" * 64


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """A difference is looked at three times, a second apart; here nobody else writes."""
    monkeypatch.setattr("flows.agreement.PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="session")
def history(template, once, plant_settings, tmp_path_factory):
    """Three champions, a second version of red-caps that is a candidate, data that was refused."""

    def make(folder):
        plant = copy_plant(template.plant, folder / "plant")
        again = plant.clr("onboard", make_task(folder / "tasks/red-caps", seed=1))
        few = plant.clr("onboard", make_task(folder / "tasks/grey-caps", 4, train=1, test=0))
        assert (again.code, few.code) == (0, 3), (again, few)

    made, _ = once("history", make)
    return Plant(made / "plant", plant_settings)


@pytest.fixture(scope="module")
def copy(history, tmp_path_factory):
    """A copy of it, and what its files look like."""
    plant = copy_plant(history, tmp_path_factory.mktemp("tampering") / "plant")
    for file in (one for one in files(plant.root) if one.suffix == ".db"):
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return plant, {file: (looks(file), file.read_bytes()) for file in files(plant.root)}


@pytest.fixture
def plant(copy):
    """The copy, to be tampered with: whatever was changed is put back, which is soon done."""
    plant, known = copy
    yield plant
    for file in files(plant.root) | known.keys():
        if file.suffix == ".db" and file.read_bytes().startswith(b"SQLite"):
            put_back(file, known[file][1])  # what was changed may be in its log alone
            continue
        if file in known and unchanged(file, known[file]):
            continue
        for one in (file, *file.parent.glob(f"{file.name}-*")):  # of a database, its log
            one.unlink(missing_ok=True)
        if file in known:
            (mode, *_), data = known[file]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(mode)
            known[file] = looks(file), data
    shutil.rmtree(plant.root.parent / "foreign keys", ignore_errors=True)


def put_back(file, data):
    """Give a database its rows back; who has it open sees them."""
    with closing(sqlite3.connect(":memory:")) as was, closing(sqlite3.connect(file)) as database:
        # bytes 18 and 19 say that there is a log beside the file, which one in memory has not
        was.deserialize(data[:18] + b"\1\1" + data[20:])
        was.backup(database)


def unchanged(file, known):
    return file.exists() and looks(file) == known[0]


def files(root):
    found = {Path(folder, name) for folder, _, names in os.walk(root) for name in names}
    # not what DVC knows of inodes, nor the logs of databases that are open
    return {one for one in found if ".clr/dvc" not in str(one) and not LOG.search(one.name)}


def looks(file):
    found = file.lstat()
    return found.st_mode & 0o777, found.st_ino, found.st_size, found.st_mtime_ns


def named(plant, anchors=()):
    """(kind, subject) of everything that is named; each with a sentence and with what to do."""
    problems = run_verify(plant.session(), anchors)["problems"]
    assert all(one["message"] and one["fix"] for one in problems), problems
    return {(one["kind"], one["subject"]) for one in problems}


def test_an_honest_history_has_nothing_to_name(plant):
    assert named(plant) == set()


# --- the ledger ----------------------------------------------------------------------------

LEDGER = {
    "payload of an entry edited": (
        by.in_ledger("UPDATE clr_ledger SET payload = '{}' WHERE seq = 2"),
        "ledger-edited", "ledger entry 2",
    ),
    "actor of an entry edited": (
        by.in_ledger("UPDATE clr_ledger SET actor = 'eve' WHERE seq = 3"),
        "ledger-edited", "ledger entry 3",
    ),
    "time of an entry edited": (
        by.in_ledger("UPDATE clr_ledger SET time = '2020-01-01T00:00:00.000000Z' WHERE seq = 4"),
        "ledger-edited", "ledger entry 4",
    ),
    "entry deleted in the middle": (
        by.in_ledger("DELETE FROM clr_ledger WHERE seq = 5"), "ledger-deleted", "ledger entry 5",
    ),
    "entries reordered": (by.two_rows_swapped, "ledger-reordered", "ledger entry 2"),
    "entry that follows another": (
        by.entry_without_predecessor, "ledger-relinked", "ledger entry 3",
    ),
    "tail cut off": (
        by.in_ledger("DELETE FROM clr_ledger WHERE seq > 8"), "ledger-truncated", "ledger entry 9",
    ),
    "entry appended without the key": (by.appended_without_key, "ledger-signature", None),
    "all signed anew with another key": (
        by.signed_anew_by_somebody, "ledger-unknown-key", "ledger entry 1",
    ),
    "all signed anew, and that key trusted": (
        by.signed_anew_and_trusted, "ledger-foreign-key", None,
    ),
    "a foreign public key placed beside": (
        lambda plant: by.trust(plant, by.foreign(plant)), "ledger-foreign-key", "ledger",
    ),
    "head file removed": (
        lambda plant: (plant.state / "ledger/head.json").unlink(), "ledger-head-missing", "ledger",
    ),
    "head file signed by somebody": (
        lambda plant: by.keep_head(plant, by.foreign(plant).sign(3, by.rows(plant)[2]["hash"])),
        "ledger-head-signature", "ledger entry 3",
    ),
    "head file of another ledger, signed with the own key": (
        lambda plant: by.keep_head(plant, by.own(plant).sign(3, SOMEBODY)),
        "ledger-rewritten", "ledger entry 3",
    ),
    "triggers dropped": (by.triggers_dropped, "ledger-unprotected", "ledger"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEDGER)
def test_a_ledger_that_was_touched(plant, case):
    tamper, kind, subject = LEDGER[case]
    tamper(plant)
    found = named(plant)
    assert (kind, subject) in found if subject else kind in {one for one, _ in found}


def test_a_ledger_that_was_overwritten(plant):
    """Then nothing can be compared with it, and that is said."""
    by.ledger_overwritten(plant)
    assert named(plant) >= {
        ("ledger-unreadable", "ledger"), ("registry-unreadable", "registry and ledger"),
    }  # fmt: skip


ANCHORED = {
    "tail cut off with its head": (by.cut_off_with_its_head, "ledger-anchor-truncated"),
    "rewritten with the own key": (by.rewritten_with_the_own_key, "ledger-anchor-rewritten"),
    "signed anew, all keys replaced": (by.keys_replaced, "ledger-anchor-rewritten"),
}


@pytest.mark.parametrize("case", ANCHORED)
def test_who_holds_the_key_is_found_by_an_anchor_in_git_and_in_a_file(plant, tmp_path, case):
    tamper, kind = ANCHORED[case]
    file = tmp_path / "elsewhere.json"
    told = anchor_to_file(plant.session(), file)
    tamper(plant)
    without = {one for one, _ in named(plant)}
    assert not any(one.startswith("ledger-") for one in without), without
    subject = f"ledger entry {told['seq']}"
    assert (kind, subject) in named(plant, [read_anchor(file)])


@pytest.mark.parametrize("case", ANCHORED)
def test_anchors_among_the_tags_of_git_are_compared_with_by_themselves(plant, case):
    tamper, kind = ANCHORED[case]
    told = anchor_to_git(plant.session())
    assert told["where"] == f"git tag clr-ledger/{told['seq']}"
    assert named(plant) == set()
    tamper(plant)
    assert (kind, f"ledger entry {told['seq']}") in named(plant)


def test_an_anchor_that_was_forged_is_named(plant, tmp_path):
    file = tmp_path / "elsewhere.json"
    anchor_to_file(plant.session(), file)
    head = Head.from_json(file.read_bytes())
    by.overwrite(file, Head(2, head.hash, head.key_id, head.signature).to_json())
    assert named(plant, [read_anchor(file)]) == {("ledger-anchor-signature", "ledger entry 2")}


def test_a_tag_of_git_that_is_no_anchor_is_named(plant):
    from clr.data.repository import run_git

    anchor_to_git(plant.session())
    last = len(by.rows(plant))
    run_git(plant.root, "update-ref", "refs/tags/clr-ledger/7", f"refs/tags/clr-ledger/{last}")
    assert named(plant) == {("ledger-anchor-unreadable", "git tag clr-ledger/7")}


def test_anchors_that_git_does_not_show_are_not_taken_for_none(plant, git_refuses):
    answer = plant.clr("verify", "--json")
    assert (answer.code, answer.json["error"]) == (7, "ServiceUnavailable")
    assert "dubious ownership" in answer.json["message"]


def test_a_broken_ledger_is_not_anchored_nor_an_anchor_of_another_one_replaced(plant, tmp_path):
    file = tmp_path / "elsewhere.json"
    first = plant.clr("anchor", file, "--json")
    assert (first.code, first.json["where"]) == (0, str(file))
    assert plant.clr("anchor", file).code == 0  # a newer head of the same ledger
    assert plant.clr("anchor").code == 2
    before = file.read_bytes()
    by.rewritten_with_the_own_key(plant)
    refused = plant.clr("anchor", file, "--json")
    assert (refused.code, file.read_bytes()) == (6, before)
    assert "has another entry" in refused.json["message"]
    assert plant.clr("verify", "--anchor", file).code == 6


# --- the registry --------------------------------------------------------------------------

ROWS = {
    "alias champion of a task moved": (
        by.alias(by.MODEL, "champion", 2), {("alias-moved", "clr-red-caps")},
    ),
    "alias previous of a task set": (
        by.alias(by.MODEL, "previous", 1), {("alias-moved", "clr-red-caps")},
    ),
    "alias candidate moved": (
        by.alias(by.MODEL, "candidate", 1), {("alias-moved", "clr-red-caps")},
    ),
    "alias candidate taken away": (
        by.alias(by.MODEL, "candidate", None), {("alias-moved", "clr-red-caps")},
    ),
    "alias previous of the releases moved": (
        by.alias(by.RELEASE, "previous", 1), {("alias-moved", "clr-release")},
    ),
    "alias champion of the releases taken away": (
        by.alias(by.RELEASE, "champion", None), {("release-moved", "clr-release")},
    ),
    "version deleted": (
        by.without_version(by.MODEL, 2),
        {("version-missing", "clr-red-caps/2"), ("alias-moved", "clr-red-caps")},
    ),
    "tag clr.adapter_digest edited": (
        by.tag("clr.adapter_digest", SOMEBODY),
        {("tag-edited", RED), ("champion-unapproved", RED)},
    ),
    "tag of a release edited": (
        by.tag("clr.previous_release", SOMEBODY, by.RELEASE, 3), {("tag-edited", RELEASE)},
    ),
}  # fmt: skip
TAGS = {
    "review": "rejected", "clr.reviewed_by": "eve", "clr.created_by": "eve",
    "clr.reviewed_at": "2026-01-01T00:00:00.000000Z", "clr.verdict": "refused",
    "clr.evidence_digest": SOMEBODY, "clr.gate_digest": SOMEBODY, "clr.gate_release": SOMEBODY,
    "clr.router_digest": SOMEBODY, "clr.accuracy": "1.0000 [1.0000, 1.0000]",
    "clr.retention": "9 of 9 earlier tasks kept", "clr.data_digest": SOMEBODY,
    "clr.code_digest": SOMEBODY, "clr.backbone_digest": SOMEBODY, "clr.files_digest": SOMEBODY,
    "clr.environment_digest": SOMEBODY, "clr.manifest_digest": SOMEBODY,
    "clr.validation_digest": SOMEBODY, "clr.key": SOMEBODY,
}  # fmt: skip
PARAMS = {
    "data_digest": "md5:0.dir", "git_commit": "f" * 40, "code_digest": SOMEBODY, "seed": "99",
    "backbone_digest": SOMEBODY, "environment_digest": SOMEBODY, "epochs": "100",
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_one_row_of_the_registry_changed_by_sql_is_the_one_thing_named(plant, case):
    tamper, expected = ROWS[case]
    tamper(plant)
    assert named(plant) == expected


@pytest.mark.parametrize(
    ("kind", "edit", "what", "edits"),
    [("tag-edited", by.tag, "tag", TAGS), ("param-edited", by.param, "run", PARAMS)],
)
def test_each_edited_tag_and_parameter_is_named_and_no_other(plant, kind, edit, what, edits):
    for name, value in edits.items():
        edit(name, value)(plant)
    problems = run_verify(plant.session())["problems"]
    said = [one["message"] for one in problems if (one["kind"], one["subject"]) == (kind, RED)]
    assert len(said) == len(edits) == len(problems)
    for name in edits:
        assert sum(one.startswith(f"its {what} ") and f" {name} " in one for one in said) == 1


def test_a_version_that_was_added_is_named_though_all_its_bytes_are_known(plant):
    by.version_added(plant)
    assert ("version-unrecorded", "clr-red-caps/9") in named(plant)


def test_a_source_repointed_by_sql(plant):
    by.column("source", f"'models:/m-{'0' * 32}'")(plant)
    assert {("source-moved", RED), ("champion-unapproved", RED)} <= named(plant)


def test_a_run_repointed_by_sql(plant):
    by.column("run_id", "(SELECT run_id FROM model_versions WHERE name = 'clr-blue-caps')")(plant)
    assert ("source-moved", RED) in named(plant)


# --- files of the registry -----------------------------------------------------------------

FILES = {
    "adapter of another task": (by.adapter_swapped, {("adapter-changed", RED)}),
    "adapter of another task, and its tag": (
        by.adapter_swapped_with_its_tag,
        {("adapter-changed", RED), ("tag-edited", RED), ("champion-unapproved", RED)},
    ),
    "evidence of another task, and its tag": (
        by.evidence_swapped_with_its_tag, {("evidence-changed", RED), ("tag-edited", RED)},
    ),
    "gate report of a run": (
        by.edited("gate/gate.json", '"verdict":"pass"', '"verdict":"fail"'),
        {("file-changed", RED)},
    ),
    "file of a run deleted": (
        lambda plant: by.run_file(plant, "roi.json").unlink(), {("file-changed", RED)},
    ),
    "card.md, its digest in files.json, and the tag of that": (
        by.sealed_anew, {("file-changed", RED), ("tag-edited", RED)},
    ),
    "gate report of the release": (
        lambda plant: by.edit(
            by.model_file(plant, "gate.json", by.RELEASE, 3), '"pass"', '"fail"'
        ),
        {("gate-report-changed", RELEASE)},
    ),
    "gate report of an earlier release": (
        lambda plant: by.edit(
            by.model_file(plant, "gate.json", by.RELEASE, 1), '"pass"', '"fail"'
        ),
        {("gate-report-changed", "clr-release/1")},
    ),
    "release.json": (
        lambda plant: by.edit(
            by.model_file(plant, "release.json", by.RELEASE, 3), "md5:", "md4:"
        ),
        {("release-changed", RELEASE)},
    ),
    "release.json of an earlier release": (
        lambda plant: by.edit(
            by.model_file(plant, "release.json", by.RELEASE, 1), "md5:", "md4:"
        ),
        {("release-changed", "clr-release/1"), ("release-broken-chain", "clr-release/2")},
    ),
    "a release's link to the one before, with all its digests": (
        by.release_rewritten(3, "previous", SOMEBODY),
        {("release-changed", RELEASE), ("release-moved", RELEASE),
         ("release-broken-chain", RELEASE), ("gate-mismatch", RELEASE)},
    ),
    "a release's router, with all its digests": (
        by.release_rewritten(3, "router", SOMEBODY),
        {("release-changed", RELEASE), ("release-moved", RELEASE), ("router-changed", "router")},
    ),
}  # fmt: skip


OF_RUN = (
    "card.md", "roi.json", "onboard.json", "environment.json", "data/manifest.json",
    "data/data.dvc", "validation/validation.json", "validation/data-docs.html", "gate/gate.json",
    "gate/gate.html", "files.json", "plots/confusion.png", "plots/learning-curves.png",
)  # fmt: skip


def test_each_edited_file_of_a_run_is_named_with_its_path(plant):
    for path in OF_RUN:
        by.edited(path)(plant)
    problems = run_verify(plant.session())["problems"]
    assert {(one["kind"], one["subject"]) for one in problems} == {("file-changed", RED)}
    assert {one["message"].split()[2] for one in problems} == set(OF_RUN)


@pytest.mark.parametrize("case", FILES)
def test_files_of_the_registry_that_were_changed(plant, case):
    tamper, expected = FILES[case]
    tamper(plant)
    assert expected <= named(plant)


def test_a_changed_file_is_named_with_its_path_and_both_digests(plant):
    file = by.run_file(plant, "card.md")
    was = sha256_bytes(file.read_bytes())
    by.edited("card.md")(plant)
    (problem,) = run_verify(plant.session())["problems"]
    now = sha256_bytes(file.read_bytes())
    assert problem["message"] == f"its file card.md is {now}; recorded was {was}"


def test_a_release_that_is_gone(plant):
    by.without_version(by.RELEASE, 2)(plant)
    assert {
        ("release-missing", "clr-release/2"),
        ("release-broken-chain", RELEASE),
    } <= named(plant)


# --- data, backbone, quarantine ------------------------------------------------------------

OTHERS = {
    "an image": (by.image_changed, {("data-changed", f"data/{by.IMAGE}")}),
    "an image, and data.dvc made anew": (
        by.image_changed_and_pinned, {("data-repinned", "data/red-caps")},
    ),
    "an image in DVC's cache": (
        by.object_changed(".dvc/cache"), {("data-object-changed", f"data/{by.IMAGE}")},
    ),
    "an image in the remote": (
        by.object_changed(".clr/remote"), {("data-object-changed", f"data/{by.IMAGE}")},
    ),
    "data.dvc": (
        lambda plant: by.edit(plant.root / "data.dvc", "md5: ", "md5: 0"),
        {("data-object-changed", "data.dvc")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_data_that_was_changed(plant, case):
    tamper, expected = OTHERS[case]
    tamper(plant)
    assert expected <= named(plant)


@pytest.mark.parametrize("name", ["validation.json", "message.txt"])
def test_a_report_about_refused_data(plant, name):
    (file,) = (plant.root / "quarantine/grey-caps").glob(f"*/{name}")
    by.overwrite(file, file.read_bytes() + b" ")
    place = f"quarantine/grey-caps/{file.parent.name}/{name}"
    assert named(plant) == {("quarantine-changed", place)}


def test_a_quarantine_that_was_emptied_is_not_blamed(plant):
    shutil.rmtree(plant.root / "quarantine")
    assert named(plant) == set()


def test_a_replaced_backbone(plant, tmp_path):
    file = tmp_path / "weights.safetensors"
    weights = bytearray(Path(plant.settings["CLR_BACKBONE"].removeprefix("file:")).read_bytes())
    weights[-1000] ^= 1
    file.write_bytes(weights)
    pin = sha256_bytes(bytes(weights)).removeprefix("sha256:")
    settings = {"CLR_BACKBONE": f"file:{file}", "CLR_BACKBONE_SHA256": pin}
    found = named(Plant(plant.root, {**plant.settings, **settings}))
    assert [kind for kind, _ in found] == ["backbone-changed"]


# --- the list ------------------------------------------------------------------------------


def kinds_on_the_page():
    return re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.M)


def test_an_older_ledger_without_seals_verifies_and_says_what_it_does_not_cover(plant):
    """As before the ledger kept digests of files: written anew here, since it is never changed."""
    kept = by.rows(plant)
    for row in kept:
        payload = json.loads(row["payload"])
        if row["action"] == "adapter.registered":
            payload = {name: payload[name] for name in ("verdict", "adapter", "data", "evidence")}
        row["payload"] = json.dumps(payload, separators=(",", ":"), sort_keys=True)
    by.keep_head(plant, by.write_anew(plant, kept, by.own(plant)))
    report = run_verify(plant.session())
    assert report["problems"] == []
    assert "has no digests of the files and parameters of 4 version(s)" in str(report["notes"])


def test_every_kind_is_on_the_page():
    rows = [kind for kind in kinds_on_the_page() if not kind.startswith("ledger-")]
    assert sorted(rows) == sorted(KINDS)


def test_every_kind_on_the_page_has_a_case_here_or_names_its_test():
    shown = {kind for _, kind, _ in LEDGER.values()} | {kind for _, kind in ANCHORED.values()}
    for cases in (ROWS, FILES, OTHERS):
        shown |= {kind for _, expected in cases.values() for kind, _ in expected}
    text, page = Path(__file__).read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8")
    elsewhere = set(re.findall(r"^\| `([a-z-]+)` \|.*`tests/", page, flags=re.M))
    missing = {one for one in kinds_on_the_page() if f'"{one}"' not in text} - shown - elsewhere
    assert missing == set()
