"""The demo's tasks: real bytes, the same everywhere, and pinned by the committed data.dvc."""

from __future__ import annotations

import io
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clr.data import demo, listing
from clr.data.demo import TASKS, make_demo
from clr.data.demo_images import Dice, crops, enlarge, png, relit, shrink, turned
from clr.data.demo_surface import CLASSES, surface
from clr.data.folder import read_task
from clr.data.manifest import scan
from clr.data.versioning import check_data, require_pinned, task_digest, version_task
from clr.data.workspace import DVC_CONFIG, DVC_GITIGNORE, init_workspace
from clr.errors import UsageError
from clr.settings import load_settings

PROJECT = Path(demo.__file__).parents[2]
NAMES = ("digits", "materials", "surface", "photos")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("demo") / "data"
    assert make_demo(data) == tuple(data / name for name in NAMES)
    return data


@pytest.fixture(scope="module")
def clone(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone of the project is after `make_demo`: pinned data, and no cache."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("data.dvc", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    shutil.copytree(made, root / "data")
    return root


def test_the_generated_bytes_have_the_digest_in_the_committed_data_dvc(made: Path) -> None:
    files = {path: listing.md5_file(made / path) for path, _ in listing.walk(made)}
    assert listing.dir_object(files)[0] == listing.pinned_oid(PROJECT)
    pinned = yaml.safe_load((PROJECT / "data.dvc").read_text())["outs"][0]
    assert pinned["nfiles"] == len(files) == 2354
    assert pinned["size"] == sum((made / path).stat().st_size for path in files)


def test_dvc_verifies_a_fresh_clone_and_versioning_leaves_data_dvc_as_it_is(clone: Path) -> None:
    settings = load_settings(clone)
    committed = (PROJECT / "data.dvc").read_bytes()
    assert require_pinned(settings) == f"md5:{listing.pinned_oid(PROJECT)}"
    for name in ("digits", "photos"):
        task = read_task(clone / "data" / name)
        version = version_task(task, scan(task, max_pixels=10_000), settings)
        assert version.digest == task_digest(clone, name)
        assert check_data(settings, name, version.digest) == []
    assert (clone / "data.dvc").read_bytes() == committed
    for name in (".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        assert (clone / name).read_bytes() == (PROJECT / name).read_bytes()


def test_the_projects_own_dvc_files_are_those_of_a_new_workspace(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    assert (PROJECT / ".dvc" / "config").read_text() == DVC_CONFIG
    assert (PROJECT / ".dvc" / ".gitignore").read_text() == DVC_GITIGNORE
    assert (PROJECT / ".dvcignore").read_bytes() == (tmp_path / ".dvcignore").read_bytes()


def test_what_is_right_stays_and_what_is_wrong_is_made_again(made: Path) -> None:
    folder = made / "photos"
    damaged = folder / "train" / "cat" / "003.png"
    right = damaged.read_bytes()
    damaged.write_bytes(right[:100])
    (folder / "test" / "cat" / "004.png").unlink()
    (folder / "train" / ".demo-005.png").write_bytes(b"left by a killed run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    calls: list[tuple[str, int, int]] = []
    make_demo(made, on_progress=lambda *call: calls.append(call), names=["photos"])
    assert damaged.read_bytes() == right
    assert not (folder / "train" / ".demo-005.png").exists()
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed == {"003.png", "004.png"}
    assert calls[-1] == ("photos", 451, 451)


def test_files_that_are_not_the_demos_are_refused(made: Path) -> None:
    foreign = made / "photos" / "train" / "cat" / "mine.png"
    foreign.write_bytes(b"x")
    try:
        with pytest.raises(UsageError, match=r"mine\.png"):
            make_demo(made, names=["photos"])
        assert foreign.exists()
    finally:
        foreign.unlink()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(demo, "import_module", missing)
    with pytest.raises(UsageError, match="sklearn"):
        make_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_sound_task(made: Path, name: str) -> None:
    task = read_task(made / name)
    manifest = scan(task, max_pixels=10_000)
    assert not [row for row in manifest.rows if row.error]
    assert not manifest.split_made
    assert task.title
    assert task.owner
    splits: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in manifest.rows:
        splits[row.split].add(row.sha256)
    assert not splits["train"] & splits["test"]
    for split, least in (("train", 40), ("test", 30)):
        counts = dict.fromkeys(task.classes, 0)
        for row in manifest.rows:
            counts[row.label] += row.split == split
        assert min(counts.values()) >= least
    assert set(task.business) == set(TASKS[0].business)


def test_pictures_are_read_back_as_they_were_drawn() -> None:
    dice = Dice.named("picture")
    for pixels in (dice.noise(5, 7, 127) + 128, np.stack([dice.noise(300, 200, 99)] * 3, -1) + 99):
        with Image.open(io.BytesIO(png(pixels))) as image:
            assert np.array_equal(np.asarray(image), pixels)


def test_pictures_are_stored_uncompressed_in_blocks_of_a_fixed_size() -> None:
    pixels = np.zeros((300, 300), dtype=np.int64)
    data = png(pixels)
    body = data[data.index(b"IDAT") + 4 :]
    assert body[:3] == b"\x78\x01\x00"  # zlib header, then a stored block that is not the last
    assert int.from_bytes(body[3:5], "little") == 65535
    assert zlib.decompressobj().decompress(body) == b"\0" * 300 * 301


def test_dice_are_the_same_everywhere() -> None:
    # SplitMix64 from state 0, the published first outputs
    dice = Dice(0)
    assert [dice.below(1 << 64) for _ in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    one, all_at_once = Dice.named("x"), Dice.named("x")
    singly = [one.below(21) - 10 for _ in range(12)]
    assert all_at_once.noise(3, 4, 10).ravel().tolist() == singly
    assert one.state == all_at_once.state
    assert sorted(one.shuffled(50)) == list(range(50))
    assert {one.sign() for _ in range(50)} == {-1, 1}


def test_transformations_keep_to_whole_grey_levels() -> None:
    pixels = Dice.named("t").noise(24, 24, 127) + 128
    assert np.array_equal(shrink(enlarge(pixels, 2), 2), pixels)
    assert sorted(turned(pixels, Dice(1)).ravel()) == sorted(pixels.ravel())
    lit = relit(pixels, Dice(2), (64, 224), 40)
    assert lit.dtype == np.int64
    assert lit.min() >= 0
    assert lit.max() <= 255
    pieces = crops(pixels, 4, 12, 12, Dice(3))
    assert len({piece.tobytes() for piece in pieces}) == 4
    with pytest.raises(ValueError, match="4 places for 5 crops"):
        crops(pixels, 5, 12, 12, Dice(3))


@pytest.mark.parametrize("kind", CLASSES)
def test_surfaces_depend_on_their_seed_alone(kind: str) -> None:
    image = surface(kind, Dice.named("a"))
    assert image.shape == (64, 64)
    assert np.array_equal(image, surface(kind, Dice.named("a")))
    assert not np.array_equal(image, surface(kind, Dice.named("b")))
