"""A folder that its owner replaces before or while a run works on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clr.errors import UsageError
from clr.settings import Settings
from flows import arrivals, inbox, onboard
from flows.arrivals import Arrival
from tests.waiting import until

NewCaps = Callable[..., Path]


class Inside:
    """An empty plant, its inbox, and versions of one task to put there."""

    def __init__(self, plant: Any, new_caps: NewCaps, versions: Path) -> None:
        self.settings = Settings(workspace=plant.root, settle_seconds=0.01)
        self.place = self.settings.inbox / "red-caps"
        self.box = inbox.Inbox(self.settings)
        self.plant, self._new_caps, self._versions = plant, new_caps, versions

    def put(self, seed: int) -> None:
        """Replace the folder by another version."""
        version = self._versions / str(seed)
        if not version.exists():
            self._new_caps(version, seed=seed)
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(version, self.place)

    def arrived(self, seed: int) -> Arrival:
        """Put a version there, and return its record once the inbox has seen it."""
        self.put(seed)
        digest = arrivals.digest_folder(self.settings, self.place, "red-caps")

        def seen() -> Arrival | None:
            self.box.look()
            found = arrivals.get(self.settings, digest)
            return found if found and found.state == "seen" else None

        found = until(seen, 5)
        assert found
        return found

    def run(self, arrival: Arrival) -> Any:
        """Run the flow as an arrival starts it."""
        return onboard.onboard(str(self.place), None, str(self.plant.root), arrival.digest)


@pytest.fixture
def inside(
    plant: Any, new_caps: NewCaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Inside:
    for name, value in plant.settings.items():
        monkeypatch.setenv(name, value)
    return Inside(plant, new_caps, tmp_path / "versions")


def test_changed_before_the_run_is_not_recorded_as_the_old_content(inside: Inside) -> None:
    old, new = inside.arrived(1), inside.arrived(2)
    with pytest.raises(UsageError, match="has changed"):
        inside.run(old)
    assert inside.run(new)["version"] == 1
    ended = {one.digest: one for one in arrivals.read_all(inside.settings)}
    assert (ended[new.digest].state, ended[old.digest].state) == ("done", "failed")
    assert ended[old.digest].left
    again = inside.arrived(1)
    assert again.digest == old.digest
    assert inside.run(again)["version"] == 2


def test_changed_while_it_was_scanned_changes_nothing(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the scan read only the newer images."""
    old, scan = inside.arrived(1), onboard.validate_images
    before = inside.plant.photograph()

    def late(*given: Any) -> Any:
        inside.put(2)
        return scan(*given)

    monkeypatch.setattr(onboard, "validate_images", late)
    with pytest.raises(UsageError, match="has changed"):
        inside.run(old)
    assert inside.plant.photograph() == before
    assert inside.arrived(2).digest != old.digest


def test_what_was_refused_and_replaced_may_come_back(inside: Inside) -> None:
    old = inside.arrived(1)
    arrivals.update(inside.settings, old.digest, state="refused", result={"verdict": "no"})
    inside.arrived(2)
    inside.box.look()
    assert inside.arrived(1).digest == old.digest
