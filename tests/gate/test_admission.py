"""A gate report that is read again admits a version only if it says pass of all it has to."""

from __future__ import annotations

from typing import Any

from clr.gate.admission import why_not_admitted

NEW = ("improvement", "parameters", "bytes", "latency", "provenance")


def report(*more: dict[str, str]) -> dict[str, Any]:
    """What admits version `sha256:a` of caps to a release that has nuts."""
    checks = [{"name": name, "task": "caps", "verdict": "pass"} for name in NEW]
    checks += [
        {"name": name, "task": "nuts", "verdict": "pass"} for name in ("retention", "routing")
    ]
    return {
        "schema": "clr.gate/1", "verdict": "pass", "newcomer": "caps", "adapter": "sha256:a",
        "release": "sha256:r", "failed": [], "inconclusive": [], "matrix": None, "limits": {},
        "checks": [*more, *checks],
    }  # fmt: skip


def why(told: dict[str, Any]) -> str:
    return why_not_admitted(told, "caps", "sha256:a", "sha256:r", ["nuts"])


def test_a_report_that_says_all_of_it_admits() -> None:
    assert why(report()) == ""


def test_a_check_that_failed_is_not_made_good_by_another_of_its_name() -> None:
    failed = {"name": "retention", "task": "nuts", "verdict": "fail"}
    assert why(report(failed)) == "says that retention:nuts did not pass"
