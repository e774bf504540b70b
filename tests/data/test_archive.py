"""Dropped archives: what is unpacked, what is refused, and that nothing is written elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import resource
import shutil
import subprocess
import tarfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from clr.data import archive, archive_zip
from clr.data.archive import unpack
from clr.data.archive_names import Names, checked_parts, suffix_of
from clr.errors import DataRefused, ServiceUnavailable
from clr.settings import Settings
from tests.data.bad_archives import (
    BAD,
    GOOD,
    Make,
    in_tar,
    special,
    tarred,
    with_bytes_as_name,
    with_name,
    with_name_in_unicode,
    zipped,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    workspace = tmp_path / "workspace"
    (workspace / "incoming").mkdir(parents=True)
    return Settings(workspace=workspace, archive_max_mb=80, archive_max_files=40)


def drop(settings: Settings, name: str, data: bytes) -> Path:
    path = settings.inbox / name
    path.write_bytes(data)
    return path


def photograph(root: Path) -> dict[str, str]:
    """Every path below `root`, links not followed, with what it is."""
    found = {}
    for place, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(place, name)
            if path.is_symlink():
                found[str(path)] = f"link to {path.readlink()}"
            else:
                is_file = path.is_file()
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""
    return found


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("suffix", "words", "make"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_a_bad_archive_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, settings: Settings, suffix: str, words: str, make: Make
) -> None:
    archive = drop(settings, f"caps{suffix}", make())
    before = photograph(tmp_path)
    with pytest.raises(DataRefused, match=words) as refusal:
        unpack(archive, settings.unpacked / "0123", settings)
    assert refusal.value.fix
    after = photograph(tmp_path)
    for made in (settings.state, settings.unpacked):
        after.pop(str(made))  # the empty folder that it would have been unpacked in
    assert after == before


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".zip", lambda files: zipped(files)),
        (".tar", lambda files: tarred(files)),
        (".TGZ", lambda files: tarred(files, kind="gz")),
        (".tar.bz2", lambda files: tarred(files, kind="bz2")),
        (".tar.xz", lambda files: tarred(files, kind="xz")),
    ],
)
@pytest.mark.parametrize("top", ["", "./", "Caps 7/", "red-caps/"])
def test_a_good_archive_is_unpacked_whole(
    settings: Settings, suffix: str, pack: Any, top: str
) -> None:
    clutter = {f"{top}.DS_Store": b"x", f"__MACOSX/{top.strip('./') or 'x'}/._1.png": b"x"}
    files = {**{top + name: data for name, data in GOOD.items()}, **clutter}
    archive = drop(settings, f"solder{suffix}", pack(files))
    folder = unpack(archive, settings.unpacked / "0123", settings)
    assert folder == settings.unpacked / "0123" / ("red-caps" if "red" in top else "solder")
    assert content(folder) == GOOD
    assert [path.name for path in settings.unpacked.iterdir()] == ["0123"]


def test_a_name_in_utf8_is_kept_where_the_archive_does_not_say_that_it_is(
    settings: Settings,
) -> None:
    """As the program `zip` writes it."""
    data = with_bytes_as_name("train/äpfel/9.png".encode())()
    folder = unpack(drop(settings, "caps.zip", data), settings.unpacked / "1", settings)
    assert content(folder) == {**GOOD, "train/äpfel/9.png": b"x"}


@pytest.mark.skipif(shutil.which("zip") is None, reason="the program zip is not here")
@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_what_the_program_zip_packs_is_unpacked_as_it_was(
    settings: Settings, tmp_path: Path, language: str
) -> None:
    image = tmp_path / "train" / "äpfel りんご" / "9.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    archive = settings.inbox / "caps.zip"
    environment = {**os.environ, "LC_ALL": language}
    subprocess.run(["zip", "-qr", archive, "train"], cwd=tmp_path, env=environment, check=True)
    folder = unpack(archive, settings.unpacked / "1", settings)
    assert content(folder) == {"train/äpfel りんご/9.png": b"x"}


def test_a_name_that_is_said_again_in_unicode_is_one_name(settings: Settings) -> None:
    name = "train/äpfel/9.png"
    data = with_name_in_unicode(name, second=name)
    folder = unpack(drop(settings, "caps.zip", data), settings.unpacked / "1", settings)
    assert name in content(folder)


def test_nothing_but_bytes_is_taken_from_an_archive(settings: Settings) -> None:
    info = special(tarfile.REGTYPE, "train/good/run.png")
    info.mode, info.uid, info.mtime = 0o6777, 0, 1
    folder = unpack(
        drop(settings, "caps.tar", tarred(GOOD, info)), settings.unpacked / "1", settings
    )
    made = (folder / "train/good/run.png").stat()
    assert made.st_mode & 0o7111 == 0
    assert made.st_uid == os.getuid()
    assert made.st_mtime > 1


def test_the_second_time_nothing_is_unpacked(settings: Settings) -> None:
    archive = drop(settings, "caps.zip", zipped(GOOD))
    first = unpack(archive, settings.unpacked / "1", settings)
    before = (first / "task.yaml").stat().st_ino
    assert unpack(archive, settings.unpacked / "1", settings) == first
    assert (first / "task.yaml").stat().st_ino == before


def test_what_a_killed_process_left_is_replaced(settings: Settings) -> None:
    left = settings.unpacked / ".partial-1" / ".inside" / "train"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"x")
    folder = unpack(drop(settings, "caps.zip", zipped(GOOD)), settings.unpacked / "1", settings)
    assert content(folder) == GOOD


def test_of_two_that_unpack_one_archive_at_once_none_takes_a_part_for_the_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two watchers, say: the second cleared away what the first had done of it so far."""
    dropped, home = drop(settings, "caps.zip", zipped(GOOD)), settings.unpacked / "1"
    half, second, on = threading.Event(), threading.Event(), threading.Event()
    write, extract = archive.write, archive_zip.extract
    first = threading.current_thread()

    def written(folder: Path, parts: tuple[str, ...], *given: Any) -> None:
        write(folder, parts, *given)
        if threading.current_thread() is first and not half.is_set():
            half.set()
            second.wait(0.5)

    def extracted(*given: Any) -> None:
        if threading.current_thread() is not first:
            second.set()
            on.wait(5)
        extract(*given)

    monkeypatch.setattr(archive, "write", written)
    monkeypatch.setattr(archive_zip, "extract", extracted)

    def other() -> None:
        half.wait(5)
        with suppress(ServiceUnavailable):  # it is tried again
            found.append(unpack(dropped, home, settings))

    found: list[Path] = []
    thread = threading.Thread(target=other)
    thread.start()
    with suppress(ServiceUnavailable):
        found.append(unpack(dropped, home, settings))
    on.set()
    thread.join()
    assert found
    assert [content(one) for one in found] == [GOOD] * len(found)


@pytest.mark.parametrize("name", ["inside", "partial"])
def test_no_task_has_the_name_of_a_folder_that_unpacking_makes(
    name: str, settings: Settings
) -> None:
    files = {f"{name}/{path}": data for path, data in GOOD.items()}
    folder = unpack(drop(settings, "caps.zip", zipped(files)), settings.unpacked / "1", settings)
    assert (folder.name, content(folder)) == (name, GOOD)


def test_a_full_disk_is_no_refusal_and_leaves_nothing(settings: Settings) -> None:
    archive = drop(settings, "caps.zip", zipped({"train/good/1.png": os.urandom(9_000)}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))  # the system refuses the rest
    try:
        with pytest.raises(ServiceUnavailable, match="cannot be unpacked"):
            unpack(archive, settings.unpacked / "1", settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(settings.unpacked.iterdir()) == []


def test_an_xz_that_asks_for_a_gigabyte_of_memory_is_refused(settings: Settings) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(tarred(GOOD), filters=filters))
    unpack(drop(settings, "good.tar.xz", bytes(data)), settings.unpacked / "1", settings)
    block = 12  # after the stream's header; its properties byte names the dictionary's size
    at = data.index(b"\x21\x01", block) + 2
    data[at] = 36  # 1 GiB
    import zlib

    size = (data[block] + 1) * 4
    data[block + size - 4 : block + size] = zlib.crc32(data[block : block + size - 4]).to_bytes(
        4, "little"
    )
    with pytest.raises(DataRefused, match=r"[Mm]emory"):
        unpack(drop(settings, "bad.tar.xz", bytes(data)), settings.unpacked / "2", settings)


def test_a_name_that_is_none_is_told_with_one_that_is(settings: Settings) -> None:
    archive = drop(settings, "Caps 7.zip", zipped(GOOD))
    with pytest.raises(DataRefused, match="cannot name a task") as refusal:
        unpack(archive, settings.unpacked / "1", settings)
    assert "Rename" in refusal.value.fix


def test_a_kind_that_is_not_read_is_told(settings: Settings) -> None:
    with pytest.raises(DataRefused, match="kind"):
        unpack(drop(settings, "caps.tar.zst", b"x"), settings.unpacked / "1", settings)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "A.TAR.XZ", "b.c.tgz"])
def test_suffixes(name: str) -> None:
    assert name.lower().endswith(suffix_of(name))
    assert suffix_of(name)


@pytest.mark.parametrize("name", [".zip", "a.gz", "zip", "a.zip.part", "tar.gz"])
def test_no_suffixes(name: str) -> None:
    assert not suffix_of(name)


HOSTILE = st.lists(
    st.sampled_from(["..", ".", "", "/", "\\", "train", "C:", "a", "é", "\0", "~", "NUL", " "])
    | st.text(max_size=4),
    max_size=8,
).map("/".join)


@given(HOSTILE)
@tried(max_examples=400)
def test_a_name_that_is_kept_stays_below_the_folder(name: str) -> None:
    try:
        parts = checked_parts(name)
    except (DataRefused, UnicodeEncodeError):
        return
    root = Path("/somewhere/inside")
    target = Path(os.path.normpath(root.joinpath(*parts)))
    assert target == root or root in target.parents
    assert target == root.joinpath(*parts)
    assert len(target.parts) == len(root.parts) + len(parts)


@given(st.lists(HOSTILE, max_size=6))
@tried(max_examples=200)
def test_no_two_names_that_are_kept_are_one_anywhere(paths: list[str]) -> None:
    names, kept = Names(), []
    for path in paths:
        try:
            parts = names.add(path, folder=False)
        except (DataRefused, UnicodeEncodeError):
            break
        if parts:
            kept.append("/".join(parts).casefold())
    assert len(set(kept)) == len(kept)
    assert not [one for one in kept for other in kept if other.startswith(one + "/")]


@given(HOSTILE, st.booleans())
@tried(max_examples=60)
def test_whatever_a_member_is_called_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, name: str, as_tar: bool
) -> None:
    root = tmp_path_factory.mktemp("any")
    settings = Settings(workspace=root / "workspace")
    try:
        data = (in_tar if as_tar else with_name)(name)()
    except (ValueError, UnicodeError):
        return
    archive = root / f"caps.{'tar' if as_tar else 'zip'}"
    archive.write_bytes(data)
    before = photograph(root)
    try:
        unpack(archive, settings.unpacked / "1", settings)
    except DataRefused:
        assert not any(settings.unpacked.iterdir())
    new = set(photograph(root)) - set(before)
    allowed = (str(settings.workspace), str(settings.state), str(settings.unpacked))
    assert all(path in allowed or path.startswith(f"{settings.unpacked}/1") for path in new)


def test_gzip_of_several_parts_is_read(settings: Settings) -> None:
    data = tarred(GOOD)
    packed = gzip.compress(data[:3000]) + gzip.compress(data[3000:])
    folder = unpack(drop(settings, "caps.tgz", packed), settings.unpacked / "1", settings)
    assert content(folder) == GOOD
