"""``policy.yaml`` as a file: fields read with their line, changes written with comments kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from clr.core.files import locked, write_atomic
from clr.errors import ServiceUnavailable, UsageError

MAX_QUORUM = 100
MAX_POLICY = 1 << 20

POLICY_TEMPLATE = """\
# Who may do what on the registry server. The server reads this file again whenever it
# changes; a file with a mistake in it changes nothing and is reported in the server's log.
schema: clr.policy/1

# Roles: trainer   registers adapters; never reviews, never promotes
#        reviewer  approves or rejects versions that somebody else registered
#        release   rolls back and retires tasks; the release service has this role
#        auditor   reads everything, writes nothing
#        admin     deletes what never served, resets passwords of people without a role
# `clr users add alice --role reviewer` writes a line here and sets the password.
users: {}
#  alice: [reviewer]
#  bob: [trainer]

review:
  quorum: 1       # approvals that a promotion needs, of different people
  reviewers: []   # who may review; empty: everybody with the role reviewer
  tasks: {}       # for a single task, e.g. animals: {quorum: 2, reviewers: [alice, carol]}

four_eyes: true        # false: who registered a version may approve it himself (not advised)
embedded_review: true  # false: without a running server nothing can be approved

# What `clr prune` keeps at least; settings (CLR_KEEP_…) can only ask for more. The numbers are
# those of the EU AI Act for high-risk systems, Articles 19 and 18 (docs/compliance.md).
retention:
  logs_days: 184        # old logs and crash reports: six months
  evidence_days: 3653   # files of runs that were deleted from the registry: ten years

# A trial (`clr ab`) lets a challenger that passed its gate answer this share of a task's items
# at most, before anybody approved it; 0: in shadow only, where nobody gets its answers.
trials:
  max_share: 0.1
"""


def parse_yaml(text: str, where: str) -> Any:
    """Return `text` as ruamel's mapping, which remembers comments and lines.

    Args:
        text: YAML 1.2, at most `MAX_POLICY` characters.
        where: its name in messages.

    Raises:
        UsageError: too large, not YAML, or a key is there twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > MAX_POLICY:
        raise UsageError(f"{where} has more than {MAX_POLICY} characters.", fix="Shorten it.")
    try:
        return YAML().load(StringIO(text))
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise UsageError(
            f"{where}{line}: {problem}.", fix="Correct the file; a key may be there only once."
        ) from error


def read_text(path: Path) -> str | None:
    """Return the text of `path`, None where there is no such file.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}.", fix="Make it a readable file."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", fix="Save it as UTF-8.") from error


@contextmanager
def editing(path: Path, template: str) -> Iterator[Any]:
    """Give the file's mapping to change; it is written, whole or not at all, at the end.

    One process at a time edits. Where there is no file, `template` is edited.

    Raises:
        UsageError: the file is not YAML.
        ServiceUnavailable: it cannot be written.
    """
    from ruamel.yaml import YAML

    try:
        with locked(path.parent):
            text = read_text(path)
            raw = parse_yaml(template if text is None else text, str(path))
            yield raw
            yaml, out = YAML(), StringIO()
            yaml.width = 10_000  # never fold what a person wrote in one line
            yaml.dump(raw, out)
            write_atomic(path, out.getvalue().encode("utf-8"))
    except OSError as error:
        raise ServiceUnavailable(
            f"{path} cannot be written: {error.strerror or error}.",
            fix="Make file and folder writable for this user, or free some space.",
        ) from error


def flow_list(names: Iterable[str]) -> Any:
    """Return `names` as a list that is written in one line: ``[a, b]``."""
    from ruamel.yaml.comments import CommentedSeq

    listed = CommentedSeq(names)
    listed.fa.set_flow_style()
    return listed


@dataclass(frozen=True)
class Reader:
    """Turns values of the mapping into plain ones, or says which line is wrong.

    Attributes:
        where: name of the file in messages.
    """

    where: str

    def wrong(self, parent: Any, key: Any, problem: str, fix: str) -> UsageError:
        """Return the error about `key` of `parent`."""
        try:
            line = f" line {parent.lc.key(key)[0] + 1}"
        except (AttributeError, KeyError, TypeError):  # absent, or not from a file
            line = ""
        return UsageError(f"{self.where}{line}: {problem}", fix=fix)

    def only(self, parent: Any, allowed: Set[str], what: str) -> None:
        """Refuse keys of `parent` that are not `allowed`: a mistyped one would change nothing."""
        for key in parent:
            if key not in allowed:
                known = ", ".join(sorted(allowed))
                problem = f"{what} has no field {key!r}."
                raise self.wrong(parent, key, problem, f"Known fields: {known}.")

    def mapping(self, parent: Any, key: Any) -> Any:
        """Return the mapping at `key`; an empty one where it is absent or empty."""
        value = parent.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong(parent, key, f"{key} is no mapping.", f"Write `{key}: {{}}`.")
        return value

    def flag(self, parent: Any, key: str, default: bool) -> bool:
        """Return the truth value at `key`."""
        value = parent.get(key, default)
        if not isinstance(value, bool):
            fix = f"Write `{key}: true` or `{key}: false`."
            raise self.wrong(parent, key, f"{key} is {value!r}.", fix)
        return value

    def quorum(self, parent: Any) -> int | None:
        """Return the quorum in `parent`, None where it is absent."""
        if "quorum" not in parent:
            return None
        value = parent["quorum"]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_QUORUM:
            fix = f"Write a whole number from 1 to {MAX_QUORUM}."
            raise self.wrong(parent, "quorum", f"quorum is {value!r}.", fix)
        return int(value)

    def names(self, parent: Any, key: Any) -> frozenset[str]:
        """Return the names at `key`, none where it is absent; one may stand without brackets."""
        value = parent.get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            fix = f"Write `{key}: [a, b]` or `{key}: []`."
            raise self.wrong(parent, key, f"{key} is no list of names.", fix)
        return frozenset(map(str, listed))
