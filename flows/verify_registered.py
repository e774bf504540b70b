"""Rows of the registry about versions against the ledger: tags, source, aliases, data (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from flows.findings import Finding
from flows.recorded import Records, subject
from flows.seal import GATE_TAGS
from flows.verify_files import recorded_facts

if TYPE_CHECKING:
    from clr.audit.chain import Entry
    from clr.registry.overview import Overview
    from clr.registry.release import Release
    from clr.registry.versions import Version

_DIGESTS = {"adapter": "clr.adapter_digest", "evidence": "clr.evidence_digest"}
_OF_GATE = dict(zip(GATE_TAGS, ("gate", "release", "router"), strict=True))


def row_findings(
    version: Version, records: Records, releases: Iterable[Release]
) -> Iterator[Finding]:
    """Yield what a version's row says other than the ledger.

    Args:
        version: any version.
        records: what the ledger tells.
        releases: undamaged releases.
    """
    name, facts = subject(version), recorded_facts(version, records)
    if not facts:
        if not _judged(version, records):
            message = "is in the registry, but the ledger knows nothing of it"
            yield Finding(name, "version-unrecorded", message)
        return
    for what, found in {"source": version.source, "run": version.run_id}.items():
        if facts.get(what, found) != found:
            message = f"its {what} is {found or 'none'}, the ledger recorded {facts[what]}"
            yield Finding(name, "source-moved", message)
    right = {tag: str(facts[what]) for what, tag in _DIGESTS.items() if facts.get(what)}
    right |= {
        tag: str(value) for tag, value in (facts.get("tags") or {}).items() if tag != "clr.verdict"
    }  # the verdict is compared with the reviews' tags
    for tag, value in sorted(right.items()):
        found = version.tags.get(tag, "")
        if found == value or (tag in _OF_GATE and found in _gates(version, records, releases, tag)):
            continue
        message = f"its tag {tag} says {found or 'nothing'}, the ledger {value or 'nothing'}"
        yield Finding(name, "tag-edited", message)


def unfinished(version: Version, records: Records) -> bool:
    """Say whether a registration was cut off: the gate's answer is recorded, the version is not."""
    return not recorded_facts(version, records) and _judged(version, records)


def _judged(version: Version, records: Records) -> bool:
    return version.run_id not in records.runs and any(
        one.payload.get("run") == version.run_id
        and one.payload.get("gate") == version.tags.get("clr.gate_digest")
        for one in records.judged.get(version.adapter_digest, ())
    )


def _gates(version: Version, records: Records, releases: Iterable[Release], tag: str) -> set[str]:
    """Return what a tag about the gate may say, where it ran again before a promotion."""
    again = {
        str(one.payload.get(_OF_GATE[tag], ""))
        for one in records.judged.get(version.adapter_digest, ())
    }
    of = {"clr.gate_digest": "gate", "clr.gate_release": "previous", "clr.router_digest": "router"}
    joined = {
        str(getattr(one, of[tag]))
        for one in releases
        if (champion := one.tasks.get(version.task)) and champion.version == version.version
    }  # before the ledger had gate.judged, the release alone told
    return again | joined


# --- the alias candidate -------------------------------------------------------------------


def candidate_findings(there: Overview, records: Records) -> Iterator[Finding]:
    """Yield tasks whose alias ``candidate`` is not where registrations and reviews left it."""
    served = {
        (str(one.get("task")), one.get("version"))
        for entry in records.moves
        for one in (entry.payload.get("joined") or ())
    }
    for task, aliases in there.aliases.items():
        model, found = f"clr-{task}", aliases.get("candidate")
        if any(unfinished(one, records) for one in there.versions.get(task, ())):
            continue  # the same command moves it
        newest, act = _newest_passed(task, there, records), records.candidates.get(model)
        right: list[int | None] = []
        if newest is not None:
            right.append(newest)
            if _closed(task, newest, records, served):
                right.append(None)
        if act is not None and act.seq > records.deleted.get(model, 0):
            right.append(_set_by(act))
        if right and found not in right:
            yield Finding(model, "alias-moved", _candidate(found, right[-1]))


def _set_by(act: Entry) -> int | None:
    number = act.payload.get("version")
    return int(number) if act.action.endswith("set") and isinstance(number, int) else None


def _newest_passed(task: str, there: Overview, records: Records) -> int | None:
    numbers = [
        one.version
        for one in there.versions.get(task, ())
        if (entry := records.registered.get(subject(one))) is not None
        and entry.payload.get("verdict") == "passed"
    ]
    return max(numbers, default=None)


def _closed(task: str, number: int, records: Records, served: set[tuple[str, object]]) -> bool:
    """Say whether a version is no candidate any more: decided, refused, or champion once."""
    name = f"clr-{task}/{number}"
    return bool(records.decisions.get(name)) or (task, number) in served or name in records.closed


def _candidate(found: int | None, wanted: int | None) -> str:
    place = f"on version {found}" if found else "missing"
    right = f"version {wanted}" if wanted else "no version"
    return f"its alias candidate is {place}, but the ledger says {right}"


# --- data ----------------------------------------------------------------------------------


def pinned_findings(
    pinned: Mapping[str, str], there: Overview, records: Records
) -> Iterator[Finding]:
    """Yield tasks for which ``data.dvc`` pins data that nobody onboarded.

    Args:
        pinned: {task: digest}, as ``data.dvc`` has it.
        there: what is registered.
        records: what the ledger tells.
    """
    for task in sorted(pinned.keys() & there.versions.keys()):
        known = records.data.get(task, frozenset())
        if known and pinned[task] not in known:
            message = f"data.dvc pins {pinned[task]}, which the ledger has never seen onboarded"
            yield Finding(f"data/{task}", "data-repinned", message)
