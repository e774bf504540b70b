"""A slow upload cannot end after its model was registered, and none begins during it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from clr.errors import ServiceUnavailable
from clr.registry.server.places import Places

RUN, MODEL = "0" * 32, "m-" + "1" * 32


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "places")


def test_many_may_write_into_one_model(places: Places) -> None:
    first, second = places.write([RUN, MODEL]), places.write([MODEL])
    places.leave(first)
    places.leave(second)


def test_what_is_being_written_is_not_registered(places: Places) -> None:
    writing = places.write([MODEL])
    with pytest.raises(ServiceUnavailable, match="is being written to"):
        places.settle([RUN, MODEL])
    places.leave(writing)
    places.leave(places.settle([RUN, MODEL]))


def test_a_registration_that_cannot_have_all_places_keeps_none(places: Places) -> None:
    writing = places.write([MODEL])
    with pytest.raises(ServiceUnavailable):
        places.settle([RUN, MODEL])
    places.leave(places.settle([RUN]))
    places.leave(writing)


def test_what_is_being_registered_is_not_written(places: Places) -> None:
    settling = places.settle([MODEL])
    with pytest.raises(ServiceUnavailable, match="is being registered"):
        places.write([MODEL])
    places.leave(settling)
    places.leave(places.write([MODEL]))


def test_a_write_waits_for_a_registration_that_ends_soon(places: Places) -> None:
    settling = places.settle([MODEL])
    threading.Timer(0.2, places.leave, [settling]).start()
    places.leave(places.write([MODEL]))


def test_a_registered_place_leaves_no_file(places: Places, tmp_path: Path) -> None:
    settling = places.settle([MODEL])
    places.forget([MODEL])
    places.leave(settling)
    assert list((tmp_path / "places").iterdir()) == []


def test_who_waited_for_a_removed_place_holds_the_one_that_others_see(places: Places) -> None:
    settling = places.settle([MODEL])
    held: list[list[object]] = []
    waiting = threading.Thread(target=lambda: held.append(list(places.write([MODEL]))))
    waiting.start()
    time.sleep(0.1)
    places.forget([MODEL])
    places.leave(settling)
    waiting.join()
    with pytest.raises(ServiceUnavailable):
        places.settle([MODEL])
    places.leave(held[0])


def test_a_new_process_sweeps_what_nobody_holds(places: Places, tmp_path: Path) -> None:
    places.leave(places.write([RUN]))
    writing = places.write([MODEL])
    other = Places(tmp_path / "places")
    assert [file.name for file in (tmp_path / "places").iterdir()] == [MODEL]
    with pytest.raises(ServiceUnavailable):
        other.settle([MODEL])
    places.leave(writing)
