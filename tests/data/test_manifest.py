"""The scan: what a row says, what is refused and why, and the split that is made."""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clr.core.files import sha256_file
from clr.core.images import open_image
from clr.data.folder import read_task
from clr.data.inspect import inspect
from clr.data.jpeg import has_end
from clr.data.manifest import Manifest, Row, scan, split_off_test
from clr.errors import DataRefused, IntegrityBroken
from tests.image_files import bmp_of_16_bits_a_pixel, planar_tiff

LIMIT = 1_000_000


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(draw: Any, kind: str) -> bytes:
    frames = [draw(seed) for seed in (1, 2, 3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png_16_bit_colour() -> bytes:
    data = bytearray(png_declaring(4, 4))
    data[24], data[25] = 16, 2
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def scanned(root: Path, **options: Any) -> Manifest:
    return scan(read_task(root), max_pixels=LIMIT, **options)


def row_of(manifest: Manifest, path: str) -> Row:
    return next(row for row in manifest.rows if row.path == path)


def test_a_row_says_what_the_file_is(new_task: Any, draw: Any) -> None:
    root = new_task()
    draw(99, side=50).save(root / "train/good/one.jpg")
    row = row_of(scanned(root), "train/good/one.jpg")
    assert (row.split, row.label, row.format, row.mode) == ("train", "good", "JPEG", "RGB")
    assert (row.width, row.height, row.error) == (50, 50, "")
    assert row.bytes == (root / row.path).stat().st_size
    assert row.sha256 == sha256_file(root / row.path)
    grey = np.asarray(Image.open(root / row.path).convert("L"))
    assert row.mean == pytest.approx(grey.mean(), abs=0.01)
    assert row.std == pytest.approx(grey.std(), abs=0.01)
    assert len(row.phash) == 16


def test_counts_and_order(new_task: Any) -> None:
    manifest = scanned(new_task(train=12, test=10))
    assert (manifest.train, manifest.test, manifest.split_made) == (24, 20, False)
    assert [row.path for row in manifest.rows] == sorted(row.path for row in manifest.rows)


def test_progress_counts_every_file_in_the_calling_thread(new_task: Any) -> None:
    seen: list[tuple[int, int]] = []
    scanned(new_task(train=2, test=1), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_the_digest_depends_on_content_and_labels_not_on_the_place_or_the_threads(
    new_task: Any, tmp_path: Path
) -> None:
    root = new_task(train=3, test=2)
    digest = scanned(root, workers=1).digest
    moved = root.rename(tmp_path / "other")
    assert scan(read_task(moved, "cells"), max_pixels=LIMIT, workers=4).digest == digest
    (moved / "train/good/000.png").rename(moved / "train/bad/x.png")
    assert scanned(moved).digest != digest


def test_a_manifest_survives_json(new_task: Any, draw: Any) -> None:
    root = new_task(train=2, test=1)
    (root / "train/good/猫 -x.jpg").write_bytes(b"")
    manifest = scanned(root)
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.digest == manifest.digest


@pytest.mark.parametrize(
    "harm",
    [
        lambda text: text.replace("clr.manifest/1", "clr.manifest/9"),
        lambda text: text.replace('"label":"good"', '"label":"bad"', 1),
        lambda text: text.replace("train/good/000.png", "../../good/000.png"),
        lambda text: text[:-10],
        lambda text: text.replace('"rows"', '"raws"'),
        lambda text: text.replace('"phash"', '"fish"'),
        lambda text: "[]",
    ],
)
def test_a_damaged_manifest_is_refused(new_task: Any, harm: Callable[[str], str]) -> None:
    text = scanned(new_task(train=1, test=1)).to_json()
    assert harm(text) != text
    with pytest.raises(IntegrityBroken):
        Manifest.from_json(harm(text))


def test_a_frame_has_a_column_a_field(new_task: Any) -> None:
    frame = scanned(new_task(train=1, test=1)).to_frame()
    assert list(frame.columns[:4]) == ["path", "split", "label", "format"]
    assert len(frame) == 4


# What is accepted


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {}),
        ("WEBP", "RGB", {}),
        ("PPM", "RGB", {}),
    ],
)
def test_eight_bit_images_of_any_colour_model_are_accepted(
    draw: Any, kind: str, mode: str, options: dict[str, Any]
) -> None:
    data = saved(draw(1, mode="RGB").convert(mode), kind, **options)
    look = inspect(data, max_pixels=LIMIT)
    assert (look.error, look.format) == ("", kind)
    open_image(data, max_pixels=LIMIT)  # training decodes it too


def test_fewer_than_eight_bits_a_channel_are_accepted() -> None:
    look = inspect(bmp_of_16_bits_a_pixel(), max_pixels=LIMIT)
    assert (look.error, look.format, look.mode) == ("", "BMP", "RGB")


def test_alpha_is_laid_on_white(draw: Any) -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    look = inspect(saved(clear, "PNG"), max_pixels=LIMIT)
    assert (look.mean, look.std) == (255.0, 0.0)


def test_a_camera_file_with_previews_counts_as_its_photograph(draw: Any) -> None:
    data = saved(draw(1), "MPO", save_all=True, append_images=[draw(1, side=16)])
    look = inspect(data, max_pixels=LIMIT)
    assert (look.error, look.format, look.width) == ("", "JPEG", 40)


@pytest.mark.parametrize(
    "name", ["two words.png", "-rf.png", "猫.png", "é.png", "a'b\"c.png", "$HOME.png", "%s.png"]
)
def test_unusual_names_are_kept(new_task: Any, draw: Any, name: str) -> None:
    root = new_task(train=1, test=1)
    draw(50).save(root / "train/good" / name)
    assert row_of(scanned(root), f"train/good/{name}").error == ""


def test_nested_folders_belong_to_their_class(new_task: Any, draw: Any) -> None:
    root = new_task(train=1, test=1)
    (root / "train/good/line 3/monday").mkdir(parents=True)
    draw(50).save(root / "train/good/line 3/monday/a.png")
    row = row_of(scanned(root), "train/good/line 3/monday/a.png")
    assert (row.label, row.error) == ("good", "")


def test_hidden_files_and_clutter_are_left_out(new_task: Any) -> None:
    root = new_task(train=1, test=1)
    for name in (".DS_Store", "Thumbs.db", "._000.png", "desktop.ini"):
        (root / "train/good" / name).write_bytes(b"x")
    (root / "train/good/.cache").mkdir()
    (root / "train/good/.cache/a.png").write_bytes(b"x")
    assert len(scanned(root).rows) == 4


def test_a_link_inside_the_folder_is_followed(new_task: Any) -> None:
    root = new_task(train=1, test=1)
    (root / "train/good/again.png").symlink_to("000.png")
    manifest = scanned(root)
    again, first = (row_of(manifest, f"train/good/{n}.png") for n in ("again", "000"))
    assert (again.error, again.sha256) == ("", first.sha256)


# What is refused, and why


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda draw: b"", "is empty"),
        (lambda draw: b"not an image at all\n" * 9, "is not an image"),
        (lambda draw: b"%PDF-1.7 ...", "is a PDF file"),
        (lambda draw: b"\0\0\0\x18ftypheic\0\0\0\0mif1", "is a HEIC file"),
        (lambda draw: b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript file"),
        (lambda draw: saved(draw(1), "JPEG")[:-300], "truncated"),
        (lambda draw: saved(draw(1), "PNG")[:-300], "cannot be decoded"),
        (lambda draw: saved(draw(1), "PNG")[:20], "cannot be decoded"),
        (lambda draw: saved(Image.new("I;16", (9, 9), 999), "PNG"), "more than 8 bits"),
        (lambda draw: saved(Image.new("I;16", (9, 9), 999), "TIFF"), "more than 8 bits"),
        (lambda draw: saved(Image.new("F", (9, 9), 0.5), "TIFF"), "more than 8 bits"),
        (lambda draw: png_16_bit_colour(), "more than 8 bits"),
        (lambda draw: planar_tiff(16), "more than 8 bits"),
        (lambda draw: planar_tiff(16, 5, 4), "more than 8 bits"),
        (lambda draw: animated(draw, "GIF"), "animated"),
        (lambda draw: animated(draw, "PNG"), "animated"),
        (lambda draw: animated(draw, "WEBP"), "animated"),
        (lambda draw: animated(draw, "TIFF"), "several pages"),
        (lambda draw: png_declaring(2_000, 1_000), "declares 2000 x 1000 pixels"),
        (lambda draw: png_declaring(60_000, 60_000), "declares far more than"),
        (lambda draw: png_declaring(2**31 - 1, 2**31 - 1), "declares far more than"),
    ],
)
def test_refused_files_say_why(draw: Any, make: Callable[[Any], bytes], reason: str) -> None:
    look = inspect(make(draw), max_pixels=LIMIT)
    assert reason in look.error
    assert look.sha256.startswith("sha256:")


def zero_filled(draw: Any, **options: Any) -> bytes:
    """A JPEG of which the beginning alone was written to a disk; Pillow decodes it as a whole."""
    data = saved(draw(1, side=96), "JPEG", quality=100, **options)
    damaged = data[: len(data) // 2] + bytes(len(data))
    Image.open(io.BytesIO(damaged)).load()
    return damaged


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"comment": b"\xff\xd9"}], ids=str)
def test_a_jpeg_whose_rest_is_zeros_is_refused(draw: Any, options: dict[str, Any]) -> None:
    look = inspect(zero_filled(draw, **options), max_pixels=LIMIT)
    assert look.error == "is damaged: its image data does not end"
    assert (look.format, look.width) == ("JPEG", 96)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"progressive": True, "restart_marker_blocks": 1},
        {"comment": b"\xff\xda no scan, \xff\xd9 no end"},
    ],
    ids=str,
)
@pytest.mark.parametrize("after", [b"", bytes(999), b"a camera's own \xff\xd8"])
def test_a_jpeg_with_an_end_is_whole_whatever_follows(
    draw: Any, options: dict[str, Any], after: bytes
) -> None:
    preview = saved(draw(2, side=16), "JPEG")
    for more in (options, {**options, "exif": b"Exif\0\0" + preview}):
        data = saved(draw(1, side=96), "JPEG", **more) + after
        assert inspect(data, max_pixels=LIMIT).error == ""
    plain = saved(draw(1, side=96), "JPEG", **options) + after
    assert has_end(plain.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1))  # as any marker may begin


def test_pixels_of_a_bomb_are_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert "declares" in inspect(png_declaring(2_000, 1_000), max_pixels=LIMIT).error


HEADS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"\xff\xd8\xff\xe0",
    b"RIFF\x24\0\0\0WEBPVP8 ",
    b"II*\0",
    b"BM",
    b"P6\n9 9\n255\n",
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(data=st.binary(max_size=300), head=st.sampled_from(HEADS))
def test_no_bytes_end_the_scan(data: bytes, head: bytes) -> None:
    look = inspect(head + data, max_pixels=LIMIT)
    if not look.error:
        open_image(head + data, max_pixels=LIMIT)


@given(at=st.integers(0, 1500), bit=st.integers(0, 7), cut=st.integers(0, 1500))
def test_what_is_accepted_can_be_decoded_for_training(at: int, bit: int, cut: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    data = bytearray(saved(Image.fromarray(pixels), "PNG"))
    data[at % len(data)] ^= 1 << bit
    damaged = bytes(data[: len(data) - cut % len(data)])
    if inspect(damaged, max_pixels=LIMIT).error:
        return
    try:
        open_image(damaged, max_pixels=LIMIT)
    except DataRefused as error:
        pytest.fail(f"accepted, but {error}")


def test_links_out_of_the_folder_are_never_opened(new_task: Any, tmp_path: Path, draw: Any) -> None:
    root = new_task(train=1, test=1)
    draw(50).save(tmp_path / "secret.png")
    (root / "train/good/x.png").symlink_to(tmp_path / "secret.png")
    (root / "train/good/y.png").symlink_to("../../../secret.png")
    (tmp_path / "elsewhere").mkdir()
    (root / "train/good/folder").symlink_to(tmp_path / "elsewhere")
    (root / "train/more").symlink_to(tmp_path / "elsewhere")
    manifest = scanned(root)
    for path in ("train/good/x.png", "train/good/y.png", "train/good/folder", "train/more"):
        row = row_of(manifest, path)
        assert (row.error, row.sha256) == ("points outside the task folder", "")


def test_links_that_lead_nowhere_or_in_circles_are_errors(new_task: Any) -> None:
    root = new_task(train=1, test=1)
    (root / "train/good/gone.png").symlink_to("nothing.png")
    (root / "train/good/loop.png").symlink_to("loop.png")
    (root / "train/good/up").symlink_to("..")
    manifest = scanned(root)
    assert "nothing" in row_of(manifest, "train/good/gone.png").error
    assert "circle" in row_of(manifest, "train/good/loop.png").error
    assert "link to a folder" in row_of(manifest, "train/good/up").error


@pytest.mark.timeout(20)
def test_pipes_and_sockets_do_not_block(new_task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_task(train=1, test=1)
    os.mkfifo(root / "train/good/pipe.png")
    monkeypatch.chdir(root / "train/good")  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        manifest = scanned(root)
    for name in ("pipe", "socket"):
        assert row_of(manifest, f"train/good/{name}.png").error == "is not a regular file"


def test_names_that_break_lines_or_utf8_are_refused(new_task: Any, draw: Any) -> None:
    root = new_task(train=1, test=1)
    draw(50).save(root / "train/good/a\nb.png")
    (root / "train/good" / os.fsdecode(b"a\xff.png")).write_bytes(b"x")
    manifest = scanned(root)
    assert "control character" in row_of(manifest, "train/good/a\nb.png").error
    assert "UTF-8" in row_of(manifest, "train/good/a\\udcff.png").error
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_files_outside_the_class_folders_are_reported(new_task: Any, draw: Any) -> None:
    root = new_task(train=1, test=1)
    draw(50).save(root / "train/stray.png")
    assert "outside the class folders" in row_of(scanned(root), "train/stray.png").error


def test_a_file_too_large_for_any_honest_image_is_not_read(new_task: Any) -> None:
    root = new_task(train=1, test=1)
    with (root / "train/good/huge.png").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert "too large" in row_of(scanned(root), "train/good/huge.png").error


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_an_unreadable_file_is_an_error_row(draw: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:  # reachable for another user, unlike tmp_path
        root = Path(folder) / "cells"
        (root / "train/good").mkdir(parents=True)
        draw(1).save(root / "train/good/a.png")
        draw(2).save(root / "train/good/b.png")
        (root / "train/good/b.png").chmod(0)
        Path(folder).chmod(0o755)
        is_root = os.geteuid() == 0
        scanned(root)  # imports what it needs
        if is_root:  # root may read everything
            os.seteuid(65534)
        try:
            manifest = scanned(root)
        finally:
            if is_root:
                os.seteuid(0)
    assert row_of(manifest, "train/good/b.png").error == "cannot be read: Permission denied"
    assert row_of(manifest, "train/good/a.png").error == ""


# The split that is made where there is no test folder


def test_without_a_test_folder_one_in_five_is_test(new_task: Any) -> None:
    manifest = scanned(new_task(train=20, test=0))
    assert (manifest.train, manifest.test, manifest.split_made) == (32, 8, True)
    assert all(row.path.startswith("train/") for row in manifest.rows)


def test_damaged_files_never_become_test_images(new_task: Any) -> None:
    root = new_task(train=20, test=0)
    for number in range(5):
        (root / f"train/good/broken{number}.png").write_bytes(b"x%d" % number)
    assert all(row.split == "train" for row in scanned(root).rows if row.error)


ROWS = st.lists(
    st.builds(
        lambda number, label, content: Row(
            path=f"train/{label}/{number}.png", label=label, sha256=f"sha256:{content}"
        ),
        st.integers(0, 10_000),
        st.sampled_from("abc"),
        st.integers(0, 40),
    ),
    max_size=60,
    unique_by=lambda row: row.path,
)


@given(rows=ROWS, shuffle=st.randoms())
def test_the_split_ignores_the_order_of_files(rows: list[Row], shuffle: Any) -> None:
    first = {row.path: row.split for row in split_off_test(rows)}
    shuffle.shuffle(rows)
    assert {row.path: row.split for row in split_off_test(rows)} == first


@given(rows=ROWS)
def test_the_split_ignores_names(rows: list[Row]) -> None:
    first = {row.sha256: row.split for row in split_off_test(rows)}
    renamed = [
        Row(path=f"train/{r.label}/new-{i}.jpg", label=r.label, sha256=r.sha256)
        for i, r in enumerate(rows)
    ]
    assert {row.sha256: row.split for row in split_off_test(renamed)} == first


@given(rows=ROWS)
def test_copies_never_cross_the_split(rows: list[Row]) -> None:
    splits: dict[str, set[str]] = {}
    for row in split_off_test(rows):
        splits.setdefault(row.sha256, set()).add(row.split)
    assert all(len(of_content) == 1 for of_content in splits.values())


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_each_class_gives_a_fifth_rounded_up(counts: list[int]) -> None:
    rows = [
        Row(path=f"train/{label}/{i}.png", label=str(label), sha256=f"sha256:{label}-{i}")
        for label, count in enumerate(counts)
        for i in range(count)
    ]
    made = list(split_off_test(rows))
    for label, count in enumerate(counts):
        test = sum(row.split == "test" and row.label == str(label) for row in made)
        assert test == -(-count // 5)
