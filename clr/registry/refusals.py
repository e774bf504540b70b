"""Sentences of refusal that several rules give: why, and what to do instead (pure).

A rule returns the sentence, or an empty text where it has nothing against the act.
"""

from __future__ import annotations

import re

from clr.registry.acts import Act, Principal
from clr.registry.names import (
    ALIASES,
    MAX_KEY,
    MAX_VALUE,
    is_ours,
    meant,
    meant_alias,
    reserved,
    shown,
)
from clr.registry.roles import AUDITOR

TO_PROMOTE = (
    "a reviewer sets the tag `review` to `approved` on the version's page; "
    "the release service does the rest within seconds"
)

ASK = "Ask somebody who may."
_COPIED = re.compile(r"models:/([^/@]+)[/@]([^/@]+)")


def lacks(who: Principal, roles: tuple[str, ...], deed: str, advice: str = ASK) -> str:
    """Object unless `who` has one of `roles`."""
    if who.roles & set(roles):
        return ""
    if who.roles == {AUDITOR}:
        return f"{who.name} is an auditor, who reads everything and changes nothing. {advice}"
    *others, last = roles
    needed = f"{', '.join(others)} or {last}" if others else last
    has = " and ".join(sorted(who.roles))
    return f"Only the role {needed} may {deed}; {who.name} has {has}. {advice}"


def foreign(model: str) -> str:
    """Object to a registered model that is neither a task's nor the releases'."""
    if is_ours(model):
        return ""
    return (
        f"{shown(model)} is no registered model of this registry: it keeps one for each task, "
        "named clr- and the task's name in lower-case letters, digits and dashes, and clr-release. "
        "Correct the name; `clr onboard` makes the model of a new task."
    )


def nothing_there(act: Act) -> str:
    """Say that the version an act is about is not there."""
    return (
        f"There is no version {act.version} of {shown(act.model)}. "
        "Open the model's page and pick one that is listed there."
    )


def lookalike(key: str) -> str:
    """Object to a tag that people would take for one of ours, or that is too long to be one."""
    if not key or len(key) > MAX_KEY:
        return f"The name of a tag has 1 to {MAX_KEY} characters, not {len(key)}. Shorten it."
    real = meant(key)
    if not real and (alias := key if key in ALIASES else meant_alias(key)):
        return (
            f"`{alias}` is an alias here and no tag: as a tag it would change nothing and mislead. "
            f"To promote, {TO_PROMOTE}."
        )
    if not real:
        return ""
    return (
        f"The tag {shown(key)} looks like `{real}` and is not the same. "
        f"Did you mean `{real}`? Write it exactly so, or choose another name for your own tag."
    )


def kept_tag(key: str) -> str:
    """Object to a tag that is not free."""
    if not reserved(key):
        return ""
    if key.startswith("clr."):
        return (
            f"The tag {shown(key)} is evidence, written by the server or at registration, and "
            "stays as it is. Put your own words into `review.reason` or into a tag of your own."
        )
    return (
        f"The tag {shown(key)} cannot be set or removed here: names that begin with review, clr. "
        "or mlflow. are kept. Choose another name for your own tag."
    )


def long_value(key: str, value: str) -> str:
    """Object to a value that the database would cut or refuse."""
    if len(value) > MAX_VALUE:
        return (
            f"The value of {shown(key)} has {len(value)} characters; {MAX_VALUE} fit. "
            "Shorten it, or log a file to a run and write its address here."
        )
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        return (
            f"The value of {shown(key)} has a sign that is no text: {shown(value)}. Leave it out."
        )
    return ""


def copied(source: str) -> str:
    """Object to a version that is made from another version, as **Promote model** does."""
    found = _COPIED.fullmatch(source)
    what = f"version {found.group(2)} of {found.group(1)}" if found else "a version"
    return (
        "The button Promote model copies a version into another registered model, which is not "
        f"how promotion works here. To promote {shown(what)[1:-1]}, {TO_PROMOTE}."
    )
