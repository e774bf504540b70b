"""The rules that a task's images must keep, declared one by one.

A `Rule` says which column of which table (`clr/data/tables.py`) must hold what, how grave
a breach is, and how to say it to people. `clr/data/suite.py` has Great Expectations
evaluate them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clr.core.depth import FORMATS
from clr.data.tables import BLANK_STD, DRIFT

Severity = Literal["critical", "warning"]
Record = Mapping[str, Any]

MIN_SIDE, MAX_SIDE = 8, 16_384
"""Pixels: below 8 nothing is left to recognise; above 16,384 it is a scan, not an image."""

MIN_SHARE_OF_LARGEST = 0.1
MAX_BLANK_SHARE = 0.5


@dataclass(frozen=True)
class Rule:
    """One rule about one column of one table.

    Attributes:
        name: stable name, used by people and machines.
        severity: ``critical`` refuses the task, ``warning`` does not.
        table: ``images``, ``classes``, ``drift`` or ``folders``.
        expectation: class name in ``great_expectations.expectations``.
        arguments: its arguments.
        requires: what must hold, as a sentence; shown in the Data Docs.
        broken: how a breach begins, with ``{n}`` for the number of rows.
        fix: what to do about it.
        tell: says one breaking row of the table in words; a file's path comes first.
        files: name the row's files or folders.
    """

    name: str
    severity: Severity
    table: str
    expectation: str
    arguments: Mapping[str, Any]
    requires: str
    broken: str
    fix: str
    tell: Callable[[Record], str]
    files: Callable[[Record], Sequence[str]] = lambda row: (row.get("path") or row["file"],)


def rules(min_images_per_class: int) -> tuple[Rule, ...]:
    """Return all rules, the critical ones of each table first."""
    return (*_image_rules(), *_class_rules(min_images_per_class), *_other_rules())


def _image_rules() -> tuple[Rule, ...]:
    in_set, null = "ExpectColumnValuesToBeInSet", "ExpectColumnValuesToBeNull"
    between = "ExpectColumnValuesToBeBetween"
    return (
        Rule(
            "decodable", "critical", "images", null, {"column": "error"},
            "Every file is a whole image with 8 bits a channel.",
            "{n} files cannot be used",
            "Replace or remove them.",
            lambda row: f"{row['file']} {row['reason']}",
        ),
        Rule(
            "formats", "critical", "images", in_set,
            {"column": "format", "value_set": list(FORMATS)},
            f"Every image has one of the formats {', '.join(FORMATS)}.",
            "{n} images have a format that is not accepted",
            "Convert them to PNG or JPEG.",
            lambda row: f"{row['file']} ({row['format']})",
        ),
        Rule(
            "smallest-side", "critical", "images", between,
            {"column": "shortest", "min_value": MIN_SIDE},
            f"No side is shorter than {MIN_SIDE} pixels.",
            "{n} images are too small",
            f"Remove them or take them again with at least {MIN_SIDE} pixels a side.",
            lambda row: f"{row['file']} ({row['width']:.0f} x {row['height']:.0f})",
        ),
        Rule(
            "largest-side", "critical", "images", between,
            {"column": "longest", "max_value": MAX_SIDE},
            f"No side is longer than {MAX_SIDE} pixels.",
            "{n} images are too large",
            "Cut or shrink them.",
            lambda row: f"{row['file']} ({row['width']:.0f} x {row['height']:.0f})",
        ),
        Rule(
            "duplicates-across-splits", "critical", "images", in_set,
            {"column": "splits_of_content", "value_set": [1]},
            "No file is in both splits: the test would ask what was learnt by heart.",
            "{n} files are in train and in test with the same bytes",
            "Keep each in one split.",
            lambda row: f"{row['file']} (same as {row['twin']})",
        ),
        Rule(
            "near-duplicates-across-splits", "critical", "images", null,
            {"column": "copy_of"},
            "No image is in both splits saved again, resized or relit.",
            "{n} images are in train and in test, saved again, resized or relit",
            "Keep one of each pair, or both in the same split.",
            lambda row: f"{row['file']} (like {row['copy']})",
        ),
        Rule(
            "label-conflicts", "critical", "images", in_set,
            {"column": "labels_of_content", "value_set": [1]},
            "No image is in two classes.",
            "{n} files are in several classes with the same bytes",
            "Decide on one class for each.",
            lambda row: f"{row['file']} (same as {row['twin']})",
        ),
        Rule(
            "look-alikes-across-splits", "warning", "images", null, {"column": "alike_to"},
            "No image of one split looks much more like one of the other than like the rest.",
            "{n} images look much like one of the other split",
            "Look at the pairs: another crop of one photograph belongs into the same split.",
            lambda row: f"{row['file']} (like {row['alike']})",
        ),
        Rule(
            "duplicates-in-split", "warning", "images", in_set,
            {"column": "copies_in_split", "value_set": [1]},
            "No file is in a class twice.",
            "{n} files are there several times in one split and class",
            "Remove the copies: they count double.",
            lambda row: f"{row['file']} (same as {row['twin']})",
        ),
        # A warning: one colour can be the right picture of "empty" or "clean", and a wrong one
        # costs accuracy only. A class that is mostly blank is critical, see `blank-classes`.
        Rule(
            "blank", "warning", "images", between, {"column": "std", "min_value": BLANK_STD},
            "No image is of one colour.",
            "{n} images are blank (one colour)",
            "Look whether the camera failed.",
            lambda row: row["file"],
        ),
    )  # fmt: skip


def _class_rules(min_images: int) -> tuple[Rule, ...]:
    between = "ExpectColumnValuesToBeBetween"

    def tell(row: Record) -> str:
        return f"{row['file']} ({row['images']})"

    return (
        Rule(
            "classes", "critical", "classes", "ExpectColumnUniqueValueCountToBeBetween",
            {"column": "class", "min_value": 2},
            "There are at least two classes.",
            "There are fewer than two classes",
            "Add a folder for each further class.",
            tell,
        ),
        Rule(
            "same-classes", "critical", "classes", between,
            {"column": "images", "min_value": 1},
            "Both splits have usable images of every class.",
            "{n} classes have no usable image in a split",
            "Add images of the class there, or remove the class from both splits.",
            tell,
        ),
        Rule(
            "images-per-class", "critical", "classes", between,
            {"column": "images", "min_value": min_images},
            f"Each class has at least {min_images} usable images in each split.",
            f"{{n}} class folders have fewer than {min_images} usable images",
            "Add images, or lower CLR_MIN_IMAGES_PER_CLASS and accept wider intervals.",
            tell,
        ),
        Rule(
            "blank-classes", "critical", "classes", between,
            {"column": "blank_share", "max_value": MAX_BLANK_SHARE},
            "No class is mostly blank images: nothing could be learnt or shown with it.",
            "{n} class folders are mostly blank images",
            "Take the images again.",
            lambda row: f"{row['file']} ({row['blank_share']:.0%} of {row['images']})",
        ),
        Rule(
            "imbalance", "warning", "classes", between,
            {"column": "share_of_largest", "min_value": MIN_SHARE_OF_LARGEST},
            f"No class has less than {MIN_SHARE_OF_LARGEST:.0%} of the largest one's images.",
            "{n} class folders are far smaller than the largest class",
            "Add images of them; accuracy will say little about them.",
            tell,
        ),
    )  # fmt: skip


def _other_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            "drift", "warning", "drift", "ExpectColumnValuesToBeBetween",
            {"column": "excess", "max_value": 1.0},
            "Sizes, brightness, contrast and colour are distributed alike in both splits "
            f"(Kolmogorov-Smirnov distance at most {DRIFT}, more for few images).",
            "{n} properties differ between train and test",
            "Check that both splits come from the same cameras and settings.",
            lambda row: (
                f"{row['property']} (distance {row['distance']:.2f}, "
                f"mean {row['train']:.4g} in train, {row['test']:.4g} in test)"
            ),
            lambda row: (),
        ),
        Rule(
            "unused-folders", "warning", "folders", "ExpectColumnValuesToBeInSet",
            {"column": "used", "value_set": ["yes"]},
            "Every folder beside train and test has a use.",
            "{n} folders are not used",
            "Only train and test are read; move what should count into one of them.",
            lambda row: row["file"],
        ),
    )  # fmt: skip
