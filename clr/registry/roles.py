"""Who may do what: users, roles, reviewers and quorum from ``mlflow/policy.yaml``.

Roles add up: who has two may do what either may, and ``auditor``, which only reads, takes
nothing away from another. What a role allows is decided in clr/registry/policy.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clr.core.files import sha256_bytes
from clr.errors import UsageError
from clr.registry.acts import RELEASE_USER, SERVER_USER, TRAINER_USER, Principal
from clr.registry.policy_file import POLICY_TEMPLATE as POLICY_TEMPLATE
from clr.registry.policy_file import Reader, editing, flow_list, parse_yaml, read_text
from clr.registry.retention import Retention, read_retention
from clr.registry.store import model_name
from clr.registry.trial import MAX_SHARE, read_max_share

SCHEMA = "clr.policy/1"
ADMIN, TRAINER, REVIEWER, RELEASE, AUDITOR = "admin", "trainer", "reviewer", "release", "auditor"
ROLES = (ADMIN, TRAINER, REVIEWER, RELEASE, AUDITOR)
SERVICES: Mapping[str, str] = MappingProxyType(
    {"admin": ADMIN, RELEASE_USER: RELEASE, TRAINER_USER: TRAINER, SERVER_USER: AUDITOR}
)
"""Users that the server makes itself; no file can give them another role."""

_Users = Mapping[str, frozenset[str]]
_USER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")


@dataclass(frozen=True)
class TaskReview:
    """What holds for one task instead of the general rule.

    Attributes:
        quorum: approvals needed; None: as everywhere.
        reviewers: who may review; empty: as everywhere.
    """

    quorum: int | None = None
    reviewers: frozenset[str] = frozenset()


_EVERYBODY = TaskReview()


@dataclass(frozen=True)
class Policy:
    """The policy in force.

    Attributes:
        users: roles by user; without the services.
        quorum: approvals that a promotion needs.
        reviewers: who may review; empty: every user with the role reviewer.
        tasks: exceptions by task.
        four_eyes: whether a creator's own approval is worth nothing.
        embedded_review: whether versions may be approved without a server.
        retention: how long files are kept at least.
        max_share: of a task's items that a challenger on trial may answer; 0: in shadow only.
        digest: ``sha256:…`` of the file; of no bytes where there is none.
    """

    users: Mapping[str, frozenset[str]] = field(default_factory=dict)
    quorum: int = 1
    reviewers: frozenset[str] = frozenset()
    tasks: Mapping[str, TaskReview] = field(default_factory=dict)
    four_eyes: bool = True
    embedded_review: bool = True
    retention: Retention = field(default_factory=Retention)
    max_share: float = MAX_SHARE
    digest: str = sha256_bytes(b"")

    def roles(self, user: str) -> frozenset[str]:
        """Return the roles of `user`; none for a stranger. Names are compared letter by letter."""
        if user in SERVICES:
            return frozenset({SERVICES[user]})
        return self.users.get(user, frozenset())

    def principal(self, user: str) -> Principal:
        """Return `user` with the roles that he has now."""
        return Principal(user, self.roles(user))

    def may_review(self, user: str, task: str) -> bool:
        """Say whether `user` may review versions of `task` (four eyes aside).

        It takes the role reviewer and, where the policy lists reviewers, a place in the list.
        """
        listed = self.tasks.get(task, _EVERYBODY).reviewers or self.reviewers
        return REVIEWER in self.roles(user) and (not listed or user in listed)

    def quorum_for(self, task: str) -> int:
        """Return how many different people must approve a version of `task`."""
        quorum = self.tasks.get(task, _EVERYBODY).quorum
        return self.quorum if quorum is None else quorum

    def reviewers_of(self, task: str) -> tuple[str, ...]:
        """Return who may review versions of `task`, sorted."""
        return tuple(sorted(user for user in self.users if self.may_review(user, task)))


def is_user_name(name: str) -> bool:
    """Say whether `name` can be a user's: lower case, so that none looks like another."""
    return _USER.fullmatch(name) is not None


def policy_path(workspace: Path) -> Path:
    """Return where the policy of a workspace is."""
    return workspace / "mlflow" / "policy.yaml"


def load_policy(path: Path) -> Policy:
    """Return the policy in `path`; without a file the default, which knows no users.

    Raises:
        UsageError: it cannot be read, or is not of the form clr.policy/1.
    """
    text = read_text(path)
    return Policy() if text is None else parse_policy(text, str(path))


def parse_policy(text: str, where: str = "mlflow/policy.yaml") -> Policy:
    """Return the policy that `text` holds.

    Args:
        text: YAML.
        where: its name in messages.

    Raises:
        UsageError: names line and field of what is wrong.
    """
    return _policy(parse_yaml(text, where), Reader(where), sha256_bytes(text.encode("utf-8")))


def checked_user(name: str) -> str:
    """Return `name` if it can be given to a person.

    Raises:
        UsageError: other characters than ``a-z0-9._@-``, or a user of the server's own.
    """
    _users({"users": {name: []}}, Reader("clr users"))
    return name


def add_user(path: Path, name: str, roles: Iterable[str]) -> Policy:
    """Write `name` with exactly these `roles` into the policy file; comments stay.

    Where there is no file, it starts from `POLICY_TEMPLATE`.

    Returns:
        the policy as it is now.

    Raises:
        UsageError: not a user name, a service's name, an unknown role, or the policy
            would contradict itself; nothing is written.
        ServiceUnavailable: the file cannot be written.
    """
    with editing(path, POLICY_TEMPLATE) as raw:
        checked = _policy(raw, Reader(str(path)), "")
        if not checked.users:
            raw["users"] = {}  # dumped a line each, where `{}` would become one long line
        raw["users"][name] = flow_list(dict.fromkeys(roles))
        _policy(raw, Reader(str(path)), "")
    return load_policy(path)


def remove_user(path: Path, name: str) -> Policy:
    """Take `name` out of the policy file, lists of reviewers included; comments stay.

    Returns:
        the policy as it is now.

    Raises:
        UsageError: there is no such user, or a list of reviewers would be left empty (it
            would then mean everybody) or shorter than its quorum; nothing is written.
        ServiceUnavailable: the file cannot be written.
    """
    with editing(path, POLICY_TEMPLATE) as raw:
        if name not in _policy(raw, Reader(str(path)), "").users:
            raise UsageError(
                f"{path} has no user {name!r}.", fix="`clr users list` shows who is there."
            )
        del raw["users"][name]
        review = raw.get("review") or {}
        for place in (review, *(review.get("tasks") or {}).values()):
            _unlist(place or {}, name, path)
        _policy(raw, Reader(str(path)), "")
    return load_policy(path)


def _unlist(place: Any, name: str, path: Path) -> None:
    listed = place.get("reviewers")
    if listed == name or listed == [name]:
        raise UsageError(
            f"{name} is the only one in a list of reviewers of {path}.",
            fix="Put somebody else in that list first; an empty list would mean everybody.",
        )
    if isinstance(listed, list):
        while name in listed:
            listed.remove(name)


def warnings(policy: Policy) -> tuple[str, ...]:
    """Return what somebody should know who relies on `policy`, a sentence each."""
    return tuple(_warnings(policy))


def _warnings(policy: Policy) -> Iterator[str]:
    if not policy.four_eyes:
        yield (
            "FOUR EYES ARE OFF: who registered an adapter may approve it himself "
            "(four_eyes: false in policy.yaml). Every such approval is marked in the ledger."
        )
    for user, roles in sorted(policy.users.items()):
        if RELEASE in roles and REVIEWER in roles:
            yield f"{user} has the roles release and reviewer: one person can approve and promote."
        if RELEASE in roles and TRAINER in roles:
            yield f"{user} has the roles release and trainer: one person can register and promote."
    able = sum(policy.may_review(user, "") for user in policy.users)
    if able < policy.quorum:
        yield (
            f"The quorum is {policy.quorum}, but {able} user(s) may review: nothing can be "
            "promoted. Add reviewers with `clr users add NAME --role reviewer`."
        )


def _policy(raw: Any, reader: Reader, digest: str) -> Policy:
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        raise UsageError(
            f"{reader.where} does not say `schema: {SCHEMA}`.",
            fix="Start from the file that `clr init` writes.",
        )
    known = {"schema", "users", "review", "four_eyes", "embedded_review", "retention", "trials"}
    reader.only(raw, known, "the policy")
    review = reader.mapping(raw, "review")
    reader.only(review, {"quorum", "reviewers", "tasks"}, "review")
    users = _users(raw, reader)
    general = _review(review, reader, users)
    listed = reader.mapping(review, "tasks")
    return Policy(
        users=MappingProxyType(users),
        quorum=general.quorum or 1,
        reviewers=general.reviewers,
        tasks=MappingProxyType({
            _task(listed, one, reader): _task_review(listed, one, reader, users, general)
            for one in listed
        }),
        four_eyes=reader.flag(raw, "four_eyes", True),
        embedded_review=reader.flag(raw, "embedded_review", True),
        retention=read_retention(raw, reader),
        max_share=read_max_share(raw, reader),
        digest=digest,
    )  # fmt: skip


def _users(raw: Any, reader: Reader) -> dict[str, frozenset[str]]:
    given, users = reader.mapping(raw, "users"), {}
    for name in given:
        if not isinstance(name, str) or not is_user_name(name):
            fix = "Use a-z, 0-9 and ._@-, at most 63, starting with a letter or digit; quote 007."
            raise reader.wrong(given, name, f"{name!r} is not a user name.", fix)
        if name in SERVICES:
            problem = f"{name} is a user that the server makes itself."
            raise reader.wrong(given, name, problem, "Choose another name.")
        users[str(name)] = reader.names(given, name)
        if unknown := sorted(users[name] - set(ROLES)):
            fix = f"Roles: {', '.join(ROLES)}."
            raise reader.wrong(given, name, f"{name} has the unknown role {unknown[0]!r}.", fix)
    return users


def _task(listed: Any, name: Any, reader: Reader) -> str:
    try:
        model_name(name if isinstance(name, str) else "")
    except UsageError as error:
        raise reader.wrong(listed, name, f"{name!r} is not a task name.", error.fix) from error
    return str(name)


def _task_review(
    listed: Any, name: str, reader: Reader, users: _Users, general: TaskReview
) -> TaskReview:
    place = reader.mapping(listed, name)
    reader.only(place, {"quorum", "reviewers"}, f"the review of {name}")
    return _review(place, reader, users, general)


def _review(
    place: Any, reader: Reader, users: _Users, general: TaskReview = _EVERYBODY
) -> TaskReview:
    quorum, named = reader.quorum(place), reader.names(place, "reviewers")
    for name in sorted(named):
        if REVIEWER not in users.get(name, ()):
            fix = f"Give it under users, `{name}: [reviewer]`, or take the name out of this list."
            raise reader.wrong(place, "reviewers", f"{name} does not have the role reviewer.", fix)
    able = named or general.reviewers
    needed = quorum or general.quorum or 1
    if able and len(able) < needed:
        field_ = "quorum" if quorum else "reviewers"
        problem = f"the quorum is {needed}, but only {len(able)} may review."
        raise reader.wrong(place, field_, problem, "Name more reviewers, or lower the quorum.")
    return TaskReview(quorum, named)
