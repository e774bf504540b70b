"""The tables that the rules about a task's images look at, built from its manifest.

Rules across rows are derived columns here: in how many splits a content is, how many
usable images a class has, how far two distributions are apart.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from clr.data.folder import SPLITS, printable
from clr.data.lookalike import Pair, look_alikes
from clr.data.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

BLANK_STD = 1.0
"""Standard deviation of grey levels below which an image is blank."""

DRIFT = 0.3
"""Kolmogorov-Smirnov distance between the splits that is never called drift."""

_DRIFT_99 = 1.63  # that distance at the 1 % level, times sqrt(nm / (n + m))
_GREY_MODES = ("1", "L", "LA", "La")
_TESTED_TEXT = {"where", "error", "format", "copy_of", "alike_to", "class"}
_MEASURES = ["width", "height", "mean", "std"]


def tables(manifest: Manifest) -> dict[str, pd.DataFrame]:
    """Return the tables that the rules are about, by name.

    ``row`` numbers the rows, ``file`` names the file, folder or property for messages, and
    ``where`` is the same for Data Docs. Those print text as it is, so that all text in the
    columns that a rule is about, and in ``where``, is escaped here.
    """
    import pandas as pd

    images = _images(manifest)
    built = {
        "images": images,
        "classes": pd.DataFrame(_classes(manifest, images)),
        "drift": pd.DataFrame(_drift(images[images["error"].isna()])),
        "folders": pd.DataFrame(
            [{"file": name, "used": "yes"} for name in SPLITS]
            + [{"file": printable(name), "used": "no"} for name in manifest.unused]
        ),
    }
    for table in built.values():
        table.insert(0, "row", range(len(table)))
        table["where"] = table["file"]
        for column in _TESTED_TEXT & set(table.columns):
            table[column] = [_escaped(value) for value in table[column]]
    return built


def _escaped(value: Any) -> Any:
    """Return text that HTML and GX's ``$`` templates print as it is; other values unchanged."""
    return html.escape(value).replace("$", "&#36;") if isinstance(value, str) else value


def _images(manifest: Manifest) -> pd.DataFrame:
    frame = manifest.to_frame()
    frame["file"] = [printable(path) for path in frame["path"]]
    frame["reason"] = frame["error"]
    bad = frame["error"] != ""
    for column in ("error", "format"):
        frame[column] = frame[column].astype(object).where(frame[column] != "", None)
    # what a damaged header declares is a decoding error already, not a size
    frame[_MEASURES] = frame[_MEASURES].astype(float).mask(bad)
    frame["shortest"] = frame[["width", "height"]].min(axis=1)
    frame["longest"] = frame[["width", "height"]].max(axis=1)
    _add_copies(frame)
    _add_look_alikes(frame, look_alikes(manifest))
    return frame


def _add_copies(frame: pd.DataFrame) -> None:
    # an empty or unread file is an error of its own, not a copy of the other ones
    is_known = (frame["sha256"] != "") & (frame["bytes"] > 0)
    content = frame["sha256"].where(is_known, frame["path"])
    frame["splits_of_content"] = frame.groupby(content)["split"].transform("nunique")
    frame["labels_of_content"] = frame.groupby(content)["label"].transform("nunique")
    within = [content, frame["split"], frame["label"]]
    frame["copies_in_split"] = frame.groupby(within)["path"].transform("size")
    frame["twin"] = _twins(content.tolist(), frame["file"].tolist())


def _add_look_alikes(frame: pd.DataFrame, pairs: tuple[Pair, ...]) -> None:
    for column, shown, kind in (("copy_of", "copy", True), ("alike_to", "alike", False)):
        partner = _partners(pair for pair in pairs if pair.is_copy is kind)
        names = [partner.get(path) for path in frame["path"]]
        frame[shown] = [printable(name) if name else "" for name in names]
        frame[column] = frame[shown].astype(object).where(frame[shown] != "", None)


def _twins(contents: list[str], files: list[str]) -> list[str]:
    """Return for each file another one with the same content, or an empty string."""
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    for content, file in zip(contents, files, strict=True):
        first.setdefault(content, file)
        last[content] = file
    pairs = zip(contents, files, strict=True)
    return [
        "" if first[c] == last[c] else last[c] if file == first[c] else first[c]
        for c, file in pairs
    ]


def _partners(pairs: Iterable[Pair]) -> dict[str, str]:
    partner: dict[str, str] = {}
    for pair in pairs:  # the most alike first
        partner.setdefault(pair.train.path, pair.test.path)
        partner.setdefault(pair.test.path, pair.train.path)
    return partner


def _classes(manifest: Manifest, images: pd.DataFrame) -> list[dict[str, Any]]:
    usable = images[images["error"].isna()]
    counts = usable.groupby(["split", "label"]).size().to_dict()
    blank = usable[usable["std"] < BLANK_STD].groupby(["split", "label"]).size().to_dict()
    largest = {split: max((n for (s, _), n in counts.items() if s == split), default=1)
               for split in SPLITS}  # fmt: skip
    return [
        {
            "file": printable(f"{split}/{label}"),
            "class": label,
            "split": split,
            "images": (number := counts.get((split, label), 0)),
            "share_of_largest": number / largest[split],
            "blank_share": blank.get((split, label), 0) / max(number, 1),
        }
        for label in manifest.classes
        for split in SPLITS
    ]


def _drift(images: pd.DataFrame) -> list[dict[str, Any]]:
    colour = (~images["mode"].isin(_GREY_MODES)).astype(float)
    columns = {
        "width": images["width"],
        "height": images["height"],
        "brightness": images["mean"],
        "contrast": images["std"],
        "share of colour images": colour,
    }
    is_train = (images["split"] == "train").to_numpy()
    return [_compared(name, values.to_numpy(), is_train) for name, values in columns.items()]


def _compared(name: str, values: Any, is_train: Any) -> dict[str, Any]:
    """Two-sample Kolmogorov-Smirnov distance of a property, and what it may be."""
    train, test = np.sort(values[is_train]), np.sort(values[~is_train])
    row: dict[str, Any] = {"file": name, "property": name}
    if not len(train) or not len(test):
        return row | {"train": 0.0, "test": 0.0, "distance": 0.0, "excess": 0.0}
    at = np.concatenate([train, test])
    steps = [np.searchsorted(part, at, side="right") / len(part) for part in (train, test)]
    distance = float(np.abs(steps[0] - steps[1]).max())
    limit = max(DRIFT, _DRIFT_99 * (1 / len(train) + 1 / len(test)) ** 0.5)
    means = {"train": float(train.mean()), "test": float(test.mean())}
    return row | means | {"distance": distance, "excess": distance / limit}
