"""Which release was in force when, also where a clock was set back."""

from __future__ import annotations

import pytest

from clr.audit.chain import Entry, format_time
from flows.audit.history import at, during, periods, set_back


def moment(clock):
    return format_time(f"2026-03-01T{clock}:00Z")


def history(*clocks):
    """Releases 1, 2, … that began at these times, each with the version of its number."""
    moves, before = [], ""
    for number, clock in enumerate(clocks, 1):
        joined = [{"task": "parts", "version": number}]
        payload = {"release": f"sha256:{number}", "previous": before, "joined": joined}
        who = ("ada", "local-os-user", "release.activated", f"clr-release/{number}")
        moves.append(Entry(number, moment(clock), *who, payload, None, "", "", "", ""))
        before = f"sha256:{number}"
    return periods(moves, "parts", lambda _: None)


def versions(found):
    return [one.version for one in found]


@pytest.mark.parametrize(
    ("clock", "version"),
    [("11:59", None), ("12:00", 1), ("12:09", 1), ("12:10", 2), ("12:30", 3), ("23:00", 3)],
)
def test_a_release_is_in_force_until_the_next_begins(clock, version):
    times = history("12:00", "12:10", "12:30")
    found = at(times, moment(clock))
    assert (found.version if found else None) == version
    assert versions(during(times, moment(clock))) == ([version] if version else [])
    assert list(set_back(times)) == []


BACK = ("12:00", "12:10", "11:15")


@pytest.mark.parametrize(
    ("clock", "found"),
    [("11:10", []), ("11:15", [3]), ("12:05", [1, 3]), ("12:10", [3]), ("13:00", [3])],
)
def test_a_moment_that_came_twice_is_taken_for_its_first_time(clock, found):
    times = history(*BACK)
    assert versions(during(times, moment(clock))) == found
    first = at(times, moment(clock))
    assert (first.version if first else None) == (found[0] if found else None)


def test_a_clock_that_was_set_back_is_told():
    (told,) = set_back(history(*BACK, "12:20"))
    assert "release 3 followed release 2" in told
    assert moment("11:15") in told


@pytest.mark.parametrize("clock", ["00:00", "11:15", "11:59", "12:00", "12:07", "12:15", "23:59"])
def test_from_the_first_release_on_something_was_in_force(clock):
    times = history("11:15", "12:10", "12:00", "12:20", "12:05")
    assert bool(at(times, moment(clock))) == (clock >= "11:15")
