"""The task folder: names, classes and task.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.data.folder import printable, read_task, task_name, unusable_name
from clr.errors import DataRefused, UsageError


def make(root: Path, *folders: str, task_yaml: str | None = None) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    root.mkdir(exist_ok=True)
    if task_yaml is not None:
        (root / "task.yaml").write_text(task_yaml, encoding="utf-8")
    return root


def test_a_plain_image_folder_pair_is_enough(tmp_path: Path) -> None:
    task = read_task(make(tmp_path / "cells", "train/good", "train/bad", "test/good", "test/bad"))
    assert (task.name, task.title, task.classes) == ("cells", "cells", ("bad", "good"))
    assert task.has_test
    assert task.root.is_absolute()


def test_a_test_folder_is_optional(tmp_path: Path) -> None:
    assert not read_task(make(tmp_path / "cells", "train/good", "train/bad")).has_test


def test_classes_are_those_of_both_splits_empty_ones_too(tmp_path: Path) -> None:
    task = read_task(make(tmp_path / "cells", "train/a", "train/b", "test/b", "test/c"))
    assert task.classes == ("a", "b", "c")


def test_hidden_folders_and_system_clutter_are_no_classes(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train/a", "train/.cache", "train/__MACOSX")
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "Thumbs.db").write_bytes(b"x")
    assert read_task(root).classes == ("a",)


def test_folders_that_nothing_reads_are_listed(tmp_path: Path) -> None:
    assert read_task(make(tmp_path / "cells", "train/a", "val/a", ".git")).unused == ("val",)


def test_task_yaml_is_read(tmp_path: Path) -> None:
    text = "title: Zellprüfung\nowner: quality\nrecipe: {epochs: 3}\nbusiness: {currency: EUR}\n"
    task = read_task(make(tmp_path / "cells", "train/a", task_yaml=text))
    assert (task.title, task.owner, task.backbone) == ("Zellprüfung", "quality", "")
    assert (task.recipe, task.business) == ({"epochs": 3}, {"currency": "EUR"})


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "title:\nrecipe:\n"])
def test_task_yaml_may_be_empty(tmp_path: Path, text: str) -> None:
    task = read_task(make(tmp_path / "cells", "train/a", task_yaml=text))
    assert (task.title, task.recipe) == ("cells", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("titel: x\n", "Did you mean `title`?"),
        ("secret: x\n", "Known: title, owner"),
        ("recipe: fast\n", "recipe"),
        ("title: [1, 2]\n", "title"),
        ("business: 3\n", "business"),
        ("- a\n- b\n", "list"),
        ("title: [\n", "cannot be read"),
        ("title: !!python/object/apply:os.system [true]\n", "cannot be read"),
        (f"title: 0x{'f' * 5_000}\n", "line 1 has a value that is no text and no number"),
        (f"\nrecipe: {{epochs: 0x{'f' * 5_000}}}\n", "line 2 has a value that is no text"),
        ('title: "caps\\0"\n', "line 1 has a value that is no text"),
        ('business: {currency: "\\ud800"}\n', "line 1 has a value that is no text"),
    ],
)
def test_a_wrong_task_yaml_is_a_usage_error_that_names_the_key(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=r"task\.yaml") as caught:
        read_task(make(tmp_path / "cells", "train/a", task_yaml=text))
    assert said in str(caught.value)


def test_a_small_task_yaml_cannot_grow_large(tmp_path: Path) -> None:
    levels = ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 6))
    text = f"title: [&a0 [x, x, x, x, x, x, x, x, x], {levels}]\n"
    with pytest.raises(UsageError, match=r"line 1 has the alias \*a0: write out"):
        read_task(make(tmp_path / "cells", "train/a", task_yaml=text))


def test_of_a_long_wrong_value_only_the_beginning_is_shown(tmp_path: Path) -> None:
    text = f"title: [{', '.join(['long'] * 9_000)}]\n"
    with pytest.raises(UsageError, match=r"title is \['long', .*\.\.\.\], not text"):
        read_task(make(tmp_path / "cells", "train/a", task_yaml=text))


def test_a_task_yaml_in_another_encoding_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train/a")
    (root / "task.yaml").write_bytes("title: Zellprüfung".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_task(root)


def test_a_task_yaml_that_links_elsewhere_is_not_followed(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train/a")
    (tmp_path / "secret").write_text("title: secret")
    (root / "task.yaml").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="is a link"):
        read_task(root)


def test_a_huge_or_special_task_yaml_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train/a", task_yaml="title: " + "x" * 70_000)
    with pytest.raises(UsageError, match="small text file"):
        read_task(root)
    (root / "task.yaml").unlink()
    os.mkfifo(root / "task.yaml")
    with pytest.raises(UsageError, match="small text file"):
        read_task(root)


def test_a_path_that_is_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "circle"):
        with pytest.raises(UsageError, match="is not a folder"):
            read_task(path)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ((), "no train folder"),
        (("good", "bad"), "Move the class folders into a folder called train"),
        (("train",), "no class folders"),
        (("test/a", "test/b"), "test folder but no train folder"),
        (("train/a", "train/b", "test"), "test has no class folders"),
    ],
)
def test_a_folder_without_classes_to_learn_is_refused(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataRefused) as caught:
        read_task(make(tmp_path / "cells", *folders))
    assert said in str(caught.value)
    assert caught.value.exit_code == 3


def test_images_directly_in_train_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train")
    (root / "train" / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataRefused, match="train/<class>/"):
        read_task(root)


def test_a_split_that_links_elsewhere_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "a")
    root = make(tmp_path / "cells")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataRefused, match="is a link"):
        read_task(root)


def test_class_names_in_any_script_are_kept(tmp_path: Path) -> None:
    root = make(tmp_path / "cells", "train/-x", "train/猫", "train/two words", "train/é")
    assert set(read_task(root).classes) == {"-x", "猫", "two words", "é"}


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ("cat", "Cat", "'Cat' and 'cat'"),
        ("cat", "cat ", "'cat' and 'cat '"),
        ("cat", "cat.", "'cat' and 'cat.'"),
        ("\u00e4pfel", "a\u0308pfel", r"(\xe4pfel)"),
        ("straße", "STRASSE", "'STRASSE' and 'straße'"),
    ],
)
def test_two_classes_that_are_one_name_on_some_systems_are_refused(
    tmp_path: Path, one: str, two: str, said: str
) -> None:
    both = make(tmp_path / "both", f"train/{one}", f"train/{two}", "train/dog")
    across = make(tmp_path / "across", f"train/{one}", "train/dog", f"test/{two}", "test/dog")
    for root in (both, across):
        with pytest.raises(DataRefused, match="one name on some systems") as caught:
            read_task(root)
        assert said in str(caught.value)
        assert len(caught.value.data["classes"]) == 2


def test_one_spelling_in_both_splits_is_one_class(tmp_path: Path) -> None:
    folders = [f"{split}/{name}" for split in ("train", "test") for name in ("a\u0308pfel", "Cat")]
    assert read_task(make(tmp_path / "fruit", *folders)).classes == ("Cat", "a\u0308pfel")


def test_a_class_name_with_a_newline_is_refused_and_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"train/a\\nb") as caught:
        read_task(make(tmp_path / "cells", "train/a\nb"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["digits", "a", "0", "solar-cells", "x" * 63])
def test_good_names(text: str) -> None:
    assert task_name(text) == text


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("Solar Cells", "solar-cells"),
        ("-x", "x"),
        ("release", "release-task"),
        ("Zellprüfung!", "zellprufung"),
        ("x" * 64, "x" * 63),
        ("../etc", "etc"),
        ("", "my-task"),
        ("猫", "my-task"),
        ("a\n", "a"),
    ],
)
def test_bad_names_come_with_a_good_one(text: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        task_name(text)
    assert caught.value.data["suggestion"] == suggestion


@given(st.text())
def test_every_suggested_name_is_good(text: str) -> None:
    try:
        good = task_name(text)
    except UsageError as error:
        good = task_name(error.data["suggestion"])
    assert task_name(good) == good


@given(st.text())
def test_printable_is_one_line_and_encodable(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_unusable_names() -> None:
    assert unusable_name("-rf ä 猫.jpg") == ""
    assert "control" in unusable_name("a\nb.jpg")
    assert "UTF-8" in unusable_name(os.fsdecode(b"a\xff.jpg"))
    assert "backslash" in unusable_name("left\\0.jpg")  # no list of files in DVC could be read
