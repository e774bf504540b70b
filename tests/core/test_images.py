"""Image files: decoded the same way everywhere, or refused with a reason; nothing else."""

from __future__ import annotations

import io
import logging
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clr.core import images as module
from clr.core.images import MAX_SIDE, ImageSet, Preprocessing, decode, open_image, prepare
from clr.errors import DataRefused, UsageError
from tests.image_files import bmp_of_16_bits_a_pixel, planar_tiff

Png = Callable[..., bytes]
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(PIXELS).convert(mode)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that declares a size, with one row of data at most."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data


def gif_header(width: int, height: int, frame: tuple[int, int] = (1, 1)) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\x00;"


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0,
                               0, 0, 0, 0)  # fmt: skip


def tiff_header(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, height), (279, 100)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def webp_header(width: int, height: int) -> bytes:
    start = b"VP8L" + struct.pack("<I", 10)
    bits = (width - 1) | (height - 1) << 14
    body = start + b"\x2f" + struct.pack("<I", bits) + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


# ---- what is accepted -------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_file_gives_back_its_pixels(format: str) -> None:
    square = Image.fromarray(PIXELS[:24, :24])
    found = decode(encoded(square, format), 24)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0).numpy(), PIXELS[:24, :24])


@pytest.mark.parametrize(("photometric", "channels"), [(2, 3), (2, 4), (5, 4)])
def test_a_planar_tiff_of_8_bits_is_decoded(photometric: int, channels: int) -> None:
    assert decode(planar_tiff(8, photometric, channels), 16).shape == (3, 16, 16)


def test_a_bmp_of_16_bits_a_pixel_has_fewer_than_8_a_channel() -> None:
    assert decode(bmp_of_16_bits_a_pixel(), 16).float().mean((1, 2)).tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_a_lossy_file_gives_nearly_its_pixels(format: str) -> None:
    smooth = np.dstack([np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))] * 3)
    found = decode(encoded(Image.fromarray(smooth), format), 24)
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - smooth).mean() < 6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_is_stretched_to_the_square_with_antialiasing(interpolation: str) -> None:
    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(picture().resize((16, 16), resampling[interpolation]))
    found = decode(encoded(picture(), "PNG"), 16, interpolation=interpolation)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBX"])
def test_eight_bit_colour_models_are_converted_as_pillow_does(mode: str) -> None:
    format = "TIFF"
    found = decode(encoded(picture(mode), format), 40)
    expected = Image.open(io.BytesIO(encoded(picture(mode), format))).convert("RGB")
    expected = expected.resize((40, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_a_cmyk_jpeg_looks_like_its_rgb_version() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    found = decode(encoded(red, "JPEG"), 16).float().mean((1, 2))
    assert found[0] > 240
    assert found[1:].max() < 15


def transparent(mode: str) -> bytes:
    """Left half red, right half wholly transparent black."""
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 16))
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = Image.new("P", (16, 16), 0)
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.paste(1, (8, 0, 16, 16))
        return encoded(image, "PNG", transparency=1)
    if mode == "P with bytes":
        image = Image.new("P", (16, 16), 0)
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.paste(1, (8, 0, 16, 16))
        return encoded(image, "PNG", transparency=b"\xff\x00")
    if mode == "RGB":
        return encoded(image.convert("RGB"), "PNG", transparency=(0, 0, 0))
    if mode == "GIF":
        palette = Image.new("P", (16, 16), 0)
        palette.putpalette([255, 0, 0, 0, 0, 0])
        palette.paste(1, (8, 0, 16, 16))
        return encoded(palette, "GIF", transparency=1)
    return encoded(
        image, "WEBP" if mode == "WEBP" else "PNG", **{"lossless": True} if mode == "WEBP" else {}
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P with bytes", "RGB", "GIF", "WEBP"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    found = decode(transparent(mode), 16)
    assert found[:, :, 12].min() == 255
    assert found[1, :, 3].max() < 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_exif_says(orientation: int, format: str) -> None:
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste((255, 255, 255), (0, 0, 16, 8))  # white: top left
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[274] = orientation
    image = open_image(encoded(stored, format, exif=exif.tobytes()))
    assert image.size == (32, 16)
    assert image.getpixel((4, 4))[0] > 200
    assert max(image.getpixel((28, 4))[0], image.getpixel((4, 12))[0]) < 50


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 60,
     b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\xff\xff\xff\xff\xff",
     b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8),
     b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"],
)  # fmt: skip
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_matter_to_a_whole_picture(exif: bytes, format: str) -> None:
    found = decode(encoded(picture(), format, exif=exif), 24)
    assert torch.equal(found, decode(encoded(picture(), format), 24))


def test_the_photograph_in_a_camera_s_mpo_is_used_without_its_previews() -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert open_image(data).size == (40, 24)


# ---- what is refused --------------------------------------------------------------------


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:])


def deep_png() -> bytes:
    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    return png_header(2, 2, 16).replace(
        png_header(2, 2, 16)[33:-12],
        struct.pack(">I", len(zlib.compress(rows))) + b"IDAT" + zlib.compress(rows)
        + struct.pack(">I", zlib.crc32(b"IDAT" + zlib.compress(rows))),
    )  # fmt: skip


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an image"),
    "text": (b"label,path\n1,a.png\n" * 20, "not an image"),
    "HTML": (b"<html><body>404</body></html>", "not an image"),
    "a PNG's signature alone": (b"\x89PNG\r\n\x1a\n", "."),
    "a truncated PNG": (encoded(picture(), "PNG")[:-600], "cannot be decoded"),
    "a truncated JPEG": (encoded(picture(), "JPEG")[:-300], "cannot be decoded"),
    "a truncated TIFF": (encoded(picture(), "TIFF")[:-600], "cannot be decoded"),
    "a truncated WebP": (encoded(picture(), "WEBP")[:-100], "."),
    "a truncated BMP": (encoded(picture(), "BMP")[:-600], "cannot be decoded"),
    "a truncated GIF": (encoded(picture(), "GIF")[:-300], "cannot be decoded"),
    "16-bit grey PNG": (encoded(Image.new("I;16", (8, 8)), "PNG"), "more than 8 bits"),
    "16-bit colour PNG": (deep_png(), "more than 8 bits"),
    "16-bit grey TIFF": (encoded(Image.new("I;16", (8, 8)), "TIFF"), "more than 8 bits"),
    "32-bit TIFF": (encoded(Image.new("I", (8, 8)), "TIFF"), "more than 8 bits"),
    "floating-point TIFF": (encoded(Image.new("F", (8, 8)), "TIFF"), "more than 8 bits"),
    "16-bit planar TIFF": (planar_tiff(16), "more than 8 bits"),
    "16-bit planar TIFF with alpha": (planar_tiff(16, channels=4), "more than 8 bits"),
    "16-bit planar CMYK TIFF": (planar_tiff(16, 5, 4), "more than 8 bits"),
    "16-bit grey PPM": (b"P5 2 2 65535\n" + bytes(8), "more than 8 bits"),
    "16-bit colour PPM": (b"P6 2 2 65535\n" + bytes(24), "more than 8 bits"),
    "animated GIF": (animated("GIF"), "animated"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated WebP": (animated("WEBP"), "animated"),
    "TIFF of several pages": (animated("TIFF"), "animated or has several pages"),
    "another format": (encoded(picture(), "ICO"), "not an image"),
    "PDF": (encoded(picture(), "PDF"), "not an image"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
    "no pixels, GIF": (gif_header(0, 0, (0, 0)), "."),
    "no pixels, PNG": (png_header(0, 5), "."),
    "no pixels, BMP": (bmp_header(0, 5), "."),
    "no pixels, TIFF": (tiff_header(0, 5), "."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_its_reason(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(DataRefused, match=reason) as caught:
        decode(data, 32)
    assert caught.value.fix


BOMBS = {
    "PNG": png_header(30_000, 30_000),
    "PNG, largest": png_header(2**31 - 1, 2**31 - 1),
    "PNG that Pillow only warns about": png_header(10_000, 10_000),
    "GIF": gif_header(65_535, 65_535),
    "GIF, frame alone": gif_header(1, 1, (65_535, 65_535)),
    "GIF, frame that Pillow only warns about": gif_header(1, 1, (10_000, 10_000)),
    "BMP": bmp_header(30_000, 30_000),
    "BMP, upside down": bmp_header(30_000, -30_000),
    "TIFF": tiff_header(60_000, 60_000),
    "TIFF, largest": tiff_header(2**32 - 1, 2**32 - 1),
    "WebP": webp_header(16_383, 16_383),
    "PPM": b"P6 60000 60000 255\n",
    "long": png_header(MAX_SIDE + 1, 1),
    "high": png_header(1, 40_000_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_declared_size_is_refused_before_memory_is_taken(name: str) -> None:
    tracemalloc.start()
    before = resident()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataRefused):
                decode(BOMBS[name], 32)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert resident() - before < 50_000_000


def resident() -> int:
    """Bytes of this process that are in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def test_the_limit_of_pixels_is_exact() -> None:
    data = encoded(picture(), "PNG")
    assert open_image(data, max_pixels=24 * 40).size == (40, 24)
    with pytest.raises(DataRefused, match="40 × 24"):
        open_image(data, max_pixels=24 * 40 - 1)


# ---- anything at all --------------------------------------------------------------------

TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
WHOLE = {
    "PNG": encoded(picture(), "PNG"),
    "PNG, palette": transparent("P with bytes"),
    "PNG, EXIF": encoded(picture(), "PNG", exif=TURNED),
    "APNG": animated("PNG"),
    "JPEG": encoded(picture(), "JPEG"),
    "JPEG, EXIF": encoded(picture(), "JPEG", exif=TURNED),
    "MPO": encoded(picture(), "MPO", save_all=True, append_images=[picture()]),
    "TIFF": encoded(picture(), "TIFF"),
    "TIFF, LZW": encoded(picture(), "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": encoded(picture(), "TIFF", compression="jpeg"),
    "GIF": transparent("GIF"),
    "WebP": encoded(picture(), "WEBP"),
    "WebP, lossless": transparent("WEBP"),
    "BMP": encoded(picture("P"), "BMP"),
    "PPM": encoded(picture(), "PPM"),
}  # fmt: skip


def only_refused(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = decode(data, 16, max_pixels=1_000_000)
        except DataRefused:
            return
    assert found.shape == (3, 16, 16)


FUZZ = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=300), st.sampled_from(["", *WHOLE]))
def test_random_bytes_are_decoded_or_refused(data: bytes, like: str) -> None:
    only_refused(WHOLE[like][:16] + data if like else data)


@pytest.mark.parametrize("name", WHOLE)
@settings(FUZZ, max_examples=80)
@given(data=st.data())
def test_mutations_of_whole_files_are_decoded_or_refused(name: str, data: st.DataObject) -> None:
    raw = bytearray(WHOLE[name])
    near_the_start = min(len(raw), data.draw(st.sampled_from([64, 400, len(raw)])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, near_the_start - 1))
        change = data.draw(st.sampled_from(["set", "cut", "double", "end"]))
        if change == "set":
            raw[at % len(raw)] = data.draw(
                st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)
            )
        elif change == "cut":
            del raw[at : at + data.draw(st.integers(1, 8))]
        elif change == "double":
            raw[at:at] = raw[at : at + 12]
        else:
            del raw[max(at, 8) :]
        raw = raw or bytearray(b"\0")
    only_refused(bytes(raw))


def test_warnings_of_pillow_stay_inside_and_those_of_others_do_not() -> None:
    """Also with many threads at once; afterwards all filters are as they were."""
    tag_too_long = encoded(picture(), "TIFF").replace(struct.pack("<HHI", 256, 4, 1),
                                                      struct.pack("<HHI", 256, 4, 9))  # fmt: skip
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside = list(warnings.filters)

        def work(_: int) -> None:
            only_refused_quietly(tag_too_long)
            only_refused_quietly(WHOLE["PNG"])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(64)))
        assert list(warnings.filters) == inside
        assert not caught
        warnings.warn("somebody else's", stacklevel=1)
        assert len(caught) == 1
    assert list(warnings.filters) == before
    assert threading.active_count() >= 1
    assert module._quiet_now == 0


def only_refused_quietly(data: bytes) -> None:
    try:
        decode(data, 16)
    except DataRefused:
        return


# ---- from uint8 to input ----------------------------------------------------------------


def test_normalising_is_pixel_over_255_minus_mean_over_std() -> None:
    how = Preprocessing(16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = torch.from_numpy(RANDOM.integers(0, 256, (5, 3, 16, 16), dtype=np.uint8))
    expected = pixels.double() / 255
    expected -= torch.tensor(how.mean, dtype=torch.float64).view(3, 1, 1)
    expected /= torch.tensor(how.std, dtype=torch.float64).view(3, 1, 1)
    found = prepare(pixels, how)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    "fields",
    [{"size": 15}, {"size": 1025}, {"size": 96.0}, {"size": "96"}, {"size": True},
     {"mean": (0.5, 0.5)}, {"std": (0.5, 0.5, 0.0)}, {"std": (0.5, -1, 0.5)},
     {"mean": (float("nan"), 0, 0)}, {"std": (float("inf"), 1, 1)}, {"interpolation": "nearest"}],
    ids=str,
)  # fmt: skip
def test_preprocessing_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    whole = {"size": 96, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(UsageError):
        Preprocessing(**(whole | fields))


# ---- sets of images ---------------------------------------------------------------------

Files = tuple[list[Path], list[int]]


def test_cached_and_streaming_sets_give_the_same_batches(
    task_files: Files, preprocessing: Preprocessing
) -> None:
    progress: list[tuple[int, int]] = []
    cached = ImageSet(
        *task_files, preprocessing, on_progress=lambda done, of: progress.append((done, of))
    )
    streaming = ImageSet(*task_files, preprocessing, cache_mb=0)
    assert (cached.is_cached, streaming.is_cached) == (True, False)
    assert progress == [(n, len(cached)) for n in range(1, len(cached) + 1)]
    for indices in ([0], [5, 3, 5, 119], list(range(120)), []):
        one = cached.batch(torch.tensor(indices, dtype=torch.int64))
        two = streaming.batch(torch.tensor(indices, dtype=torch.int64))
        assert one.dtype == two.dtype == torch.uint8
        assert torch.equal(one, two)


def test_the_cache_is_bounded_by_its_setting(
    task_files: Files, preprocessing: Preprocessing
) -> None:
    paths, labels = task_files  # 120 × 3 × 32 × 32 bytes are 0.37 MB
    assert ImageSet(paths, labels, preprocessing, cache_mb=1).is_cached
    large = ImageSet(paths * 3, labels * 3, preprocessing, cache_mb=1)
    assert not large.is_cached


def test_a_batch_is_a_copy(images: ImageSet) -> None:
    first = images.batch(torch.tensor([0]))
    before = first.clone()
    first.zero_()
    assert torch.equal(images.batch(torch.tensor([0])), before)


@pytest.mark.parametrize("cache_mb", [0, 100])
@pytest.mark.parametrize("content", [None, b"", b"text"], ids=["missing", "empty", "text"])
def test_a_bad_file_is_named(
    cache_mb: int, content: bytes | None, tmp_path: Path, preprocessing: Preprocessing, png: Png
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad one.png"
    good.write_bytes(png(PIXELS))
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(DataRefused, match=r"bad one\.png") as caught:
        ImageSet([good, bad], [0, 1], preprocessing, cache_mb=cache_mb).batch(torch.tensor([0, 1]))
    assert caught.value.data["path"] == str(bad)


def test_files_are_hashed_as_they_were_read(
    tmp_path: Path, preprocessing: Preprocessing, png: Png
) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(PIXELS))
    hashed = ImageSet([path], [0], preprocessing, hashed=True)
    path.write_bytes(b"changed since")
    assert hashed.digests == [module.sha256_bytes(png(PIXELS))]


def test_every_file_needs_a_label(preprocessing: Preprocessing) -> None:
    with pytest.raises(UsageError, match="1 image files, but 2 labels"):
        ImageSet([Path("a.png")], [0, 1], preprocessing)


def test_pillow_s_log_is_not_needed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for data in BOMBS.values():
        only_refused_quietly(data)
    assert not caplog.records
