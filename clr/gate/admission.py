"""Whether a gate report admits one version to one release: complete, and about nothing else.

A report is read again long after it was made, from files that others may have written. Whether
its figures are true is not seen here; that it says pass of all that it has to say, is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from clr.errors import ClrError
from clr.gate.matrix import grow
from clr.gate.verdict import SCHEMA

_NEWCOMER = ("improvement", "parameters", "bytes", "latency", "provenance")
_OWN = "own-champion"
_EARLIER = ("retention", "routing")


def why_not_admitted(
    report: object, newcomer: str, adapter: str, against: str, tasks: Collection[str]
) -> str:
    """Return why a report does not admit a version; empty: it does.

    Args:
        report: what ``gate.json`` holds, schema ``clr.gate/1`` with adapter and release.
        newcomer: task of the version.
        adapter: digest of its adapter.
        against: digest of the release that it would follow; empty: it is the first.
        tasks: of that release.

    Returns:
        The end of a sentence that begins with the report.
    """
    if not isinstance(report, Mapping):
        return "is no gate report"
    wanted = {
        "schema": SCHEMA, "verdict": "pass", "newcomer": newcomer, "adapter": adapter,
        "release": against, "failed": [], "inconclusive": [],
    }  # fmt: skip
    for name, value in wanted.items():
        if report.get(name) != value:
            return f"has another {name} ({str(report.get(name))[:80]})"
    try:
        checks = [(f"{one['name']}:{one['task']}", one["verdict"]) for one in report["checks"]]
        grow(report["matrix"], {}, None)
        dict(report["limits"])
    except (KeyError, TypeError, ValueError, AttributeError, ClrError):
        return "has checks, limits or a matrix that cannot be read"
    needed = {f"{name}:{newcomer}" for name in _NEWCOMER}
    needed |= {f"{_OWN}:{newcomer}"} if newcomer in tasks else set()
    needed |= {f"{name}:{task}" for name in _EARLIER for task in tasks if task != newcomer}
    if missing := sorted(needed - {key for key, _ in checks}):
        return f"says nothing of {', '.join(missing[:5])}"
    if bad := sorted({key for key, verdict in checks if verdict != "pass"}):
        return f"says that {', '.join(bad[:5])} did not pass"
    return ""
