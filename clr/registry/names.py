"""Names in the registry: which are ours, which only look like ours, which paths are safe (pure).

MLflow lets letters of every alphabet into tags and aliases, so ``Review``,
``ｒｅｖｉｅｗ`` and ``rеview`` (with a Cyrillic е) would be other tags than ``review``,
which people take for it. Each is brought to a skeleton, in the manner of Unicode TS 39:
what has the skeleton of a name of ours without being it is a look-alike.
"""

from __future__ import annotations

import re
import unicodedata
from types import MappingProxyType

from clr.errors import UsageError
from clr.registry.store import RELEASE_MODEL, model_name

REVIEW, REASON = "review", "review.reason"
ACTIVATED = "release.activated"
"""Action of the ledger's entry about a release that began to serve."""
SERVER_TAGS = frozenset({"clr.created_by", "clr.reviewed_by", "clr.reviewed_at", "clr.approvals"})
"""Tags that the server alone writes."""

DIGEST_TAGS = frozenset({"clr.gate_digest", "clr.router_digest"})
GATE_RELEASE, PROMOTION, TRIAL = "clr.gate_release", "clr.promotion", "clr.trial"
RELEASE_TAGS = DIGEST_TAGS | {GATE_RELEASE, PROMOTION, TRIAL}
"""Tags that the release service may write: a gate run anew, what became of a promotion, a trial."""

ALIASES = ("candidate", "challenger", "champion", "previous")

MAX_KEY, MAX_VALUE, MAX_PATH = 250, 5000, 1000

_NAMED = SERVER_TAGS | RELEASE_TAGS | {
    REVIEW, REASON, "clr.key", "clr.verdict", "clr.accuracy", "clr.retention",
    "clr.adapter_digest", "clr.data_digest", "clr.backbone_digest", "clr.code_digest",
    "clr.environment_digest", "clr.evidence_digest", "clr.files_digest", "clr.manifest_digest",
    "clr.release_digest", "clr.validation_digest", "clr.previous_release", "clr.tasks",
}  # fmt: skip
_OURS = re.compile(r"clr\.[a-z0-9]+(?:[._][a-z0-9]+)*")
_ESCAPED = re.compile(r"%[0-9a-fA-F]{2}")
_OWNED = re.compile(r"(?:^|/)(?:m-)?[0-9a-f]{32}/.")
_SEPARATORS = re.compile(r"[\W_]+")

# letters of other alphabets, and digits, that pass for the Latin ones in our names
_ALIKE = MappingProxyType(str.maketrans({
    **dict.fromkeys("аɑα", "a"), **dict.fromkeys("сϲᴄ", "c"), **dict.fromkeys("ԁ", "d"),
    **dict.fromkeys("еєёҽε3", "e"), **dict.fromkeys("ցɡ", "g"), **dict.fromkeys("һհ", "h"),
    **dict.fromkeys("iіıɩι1ӏǀ|!lŀℓ", "l"), **dict.fromkeys("мᴍ", "m"),
    **dict.fromkeys("пηոռ", "n"), **dict.fromkeys("оοօσ0", "o"), **dict.fromkeys("рρ", "p"),
    **dict.fromkeys("гᴦʀ", "r"), **dict.fromkeys("ѕꜱ5", "s"), **dict.fromkeys("тτ", "t"),
    **dict.fromkeys("υսu", "u"), **dict.fromkeys("ѵνv", "v"), **dict.fromkeys("ѡԝωш", "w"),
    **dict.fromkeys("уγỿ", "y"),
}))  # fmt: skip


def skeleton(name: str) -> str:
    """Return what `name` looks like: two names that look the same have the same skeleton."""
    text = unicodedata.normalize("NFKD", name[: 4 * MAX_KEY]).casefold()
    text = unicodedata.normalize("NFKD", text)
    seen = "".join(c for c in text if unicodedata.category(c) not in _UNSEEN)
    return _SEPARATORS.sub(".", seen.translate(_ALIKE)).strip(".")


# combining marks, control, format (zero-width, direction), unassigned, private, surrogates
_UNSEEN = frozenset({"Mn", "Me", "Cc", "Cf", "Cn", "Co", "Cs"})
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SKELETONS = MappingProxyType({skeleton(name): name for name in _NAMED})
_ALIAS_SKELETONS = MappingProxyType({skeleton(name): name for name in ALIASES})
_FIRST = frozenset({skeleton("clr"), skeleton("mlflow")})
_REVIEW = skeleton(REVIEW)


def reserved(key: str) -> bool:
    """Say whether a tag is not free: ``review*``, ``clr.*``, ``mlflow.*``, or looks like one.

    Some of MLflow's own tags change what a model is: ``mlflow.prompt.is_prompt`` takes it off
    the list of models.
    """
    bare = skeleton(key)
    return bare.startswith(_REVIEW) or bare.split(".")[0] in _FIRST


def meant(key: str) -> str:
    """Return the tag of ours that `key` looks like without being it; empty where none."""
    known = _SKELETONS.get(skeleton(key), "")
    if known:
        return "" if known == key else known
    if skeleton(key).split(".")[0] == skeleton("clr") and not _OURS.fullmatch(key):
        return "clr.…"
    return ""


def meant_alias(alias: str) -> str:
    """Return the alias that `alias` looks like without being it; empty where none."""
    known = _ALIAS_SKELETONS.get(skeleton(alias), "")
    return "" if known == alias else known


def task_of(model: str) -> str:
    """Return the task whose registered model this is; empty where it is none."""
    task = model.removeprefix("clr-")
    try:
        return task if model == model_name(task) else ""
    except UsageError:
        return ""


def is_ours(model: str) -> bool:
    """Say whether this is the registered model of a task or of the releases."""
    return model == RELEASE_MODEL or bool(task_of(model))


def unsafe_path(path: str) -> bool:
    """Say whether a path of the artifact store could mean another file than it says.

    Refused are ``..``, ``.`` and empty parts, absolute paths, backslashes, percent signs that
    one more decoding would turn into something, what is invisible, and letters that Unicode
    normalisation turns into any of these.
    """
    plain = unicodedata.normalize("NFKC", path[: MAX_PATH + 1])
    return (
        len(path) > MAX_PATH
        or "\\" in plain
        or _ESCAPED.search(plain) is not None
        or any(unicodedata.category(c) in _INVISIBLE for c in path)
        or any(part.strip() in ("", ".", "..") for part in plain.split("/"))
    )


def belongs(path: str) -> bool:
    """Say whether a path of the artifact store lies in the folder of a run or logged model."""
    return _OWNED.search(path) is not None


def shown(text: str, limit: int = 60) -> str:
    """Return `text` for a sentence: in quotes, what is invisible made visible, cut."""
    return repr(text if len(text) <= limit else text[:limit] + "…")
