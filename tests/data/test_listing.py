"""DVC's .dir objects and data.dvc, read and written without DVC."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clr.data.listing import (
    EMPTY_DATA_DVC,
    EMPTY_DIR,
    dir_object,
    links,
    of_task,
    pinned_oid,
    read_listing,
    walk,
)
from clr.errors import IntegrityBroken

A, B = hashlib.md5(b"a").hexdigest(), hashlib.md5(b"b").hexdigest()


def test_the_form_is_dvcs() -> None:
    oid, content = dir_object({"b.png": B, "a/a.png": A})
    assert content.decode() == (
        f'[{{"md5": "{A}", "relpath": "a/a.png"}}, {{"md5": "{B}", "relpath": "b.png"}}]'
    )
    assert oid == hashlib.md5(content).hexdigest() + ".dir"
    assert read_listing(content, oid) == {"a/a.png": A, "b.png": B}
    assert dir_object({}) == (EMPTY_DIR, b"[]")


def test_names_of_any_script_are_written_as_dvc_writes_them() -> None:
    _, content = dir_object({"Schräg/雪.png": A})
    assert b"Schr\\u00e4g/\\u96ea.png" in content


def test_a_task_is_cut_out_by_its_whole_name() -> None:
    files = {"cat/x": A, "cats/y": B, "cat.txt": B}
    assert of_task(files, "cat") == {"x": A}


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"7",
        b"not json",
        b'[{"relpath": "a"}]',
        b'[{"md5": "../../x", "relpath": "a"}]',
        f'[{{"md5": "{A}", "relpath": "../../x"}}]'.encode(),
        f'[{{"md5": "{A}", "relpath": "/etc/passwd"}}]'.encode(),
    ],
)
def test_a_corrupt_object_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityBroken, match="corrupt"):
        read_listing(content, "0" * 32 + ".dir")
    if content != b"[]":
        own_name = hashlib.md5(content).hexdigest() + ".dir"
        with pytest.raises(IntegrityBroken, match="corrupt"):
            read_listing(content, own_name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outs: []\n",
        "outs:\n- md5: 0123\n",
        EMPTY_DATA_DVC.replace("path: data", "path: elsewhere"),
        EMPTY_DATA_DVC.replace("  hash: md5\n", ""),  # as DVC 2 wrote it
        EMPTY_DATA_DVC.replace(EMPTY_DIR, "../../../../etc/passwd.dir"),
        "!!python/object:os.system {}\n",
        "\tnot: yaml: at: all",
    ],
)
def test_a_data_dvc_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.dvc").write_text(text)
    with pytest.raises(IntegrityBroken, match=r"data\.dvc"):
        pinned_oid(tmp_path)


def test_walking_follows_no_link_and_shows_no_hidden_file(tmp_path: Path) -> None:
    (tmp_path / "a" / ".git").mkdir(parents=True)
    for name in ("a/1.png", "a/.hidden", "a/.git/x", "a/Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "out").symlink_to("/etc")
    assert [path for path, _ in walk(tmp_path)] == ["a/1.png", "a/out"]
    assert links(tmp_path) == ["a/out"]
    assert list(walk(tmp_path / "missing")) == []
