"""Archives that must be refused, each made of real bytes, with a word of the reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable

GOOD = {
    "train/good/1.png": b"one",
    "train/good/2.png": b"two",
    "train/bad/1.png": b"three",
    "task.yaml": b"title: Caps\n",
}

Make = Callable[[], bytes]


def zipped(
    files: dict[str, bytes], prepare: Callable[[zipfile.ZipInfo], None] = lambda _: None
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in files.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # the constructor would tidy it
            info.compress_type = zipfile.ZIP_DEFLATED
            prepare(info)
            archive.writestr(info, data)
    return out.getvalue()


def tarred(
    files: dict[str, bytes] | list[tuple[str, bytes]], *extra: tarfile.TarInfo, kind: str = ""
) -> bytes:
    out = io.BytesIO()
    pairs = list(files.items()) if isinstance(files, dict) else files
    with tarfile.open(fileobj=out, mode=f"w:{kind}") as archive:  # type: ignore[call-overload]
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return out.getvalue()


def special(kind: bytes, name: str = "train/good/odd.png", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_mode(mode: int, name: str = "train/good/odd.png") -> bytes:
    def prepare(info: zipfile.ZipInfo) -> None:
        if info.filename == name:
            info.create_system, info.external_attr = 3, mode << 16

    return zipped({**GOOD, name: b"/etc/passwd"}, prepare)


def with_name(name: str) -> Make:
    return lambda: zipped({**GOOD, name: b"x"})


def in_tar(name: str) -> Make:
    return lambda: tarred({**GOOD, name: b"x"})


def twice() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in [*GOOD.items(), ("train/good/1.png", b"another")]:
            archive.writestr(name, data)
    return out.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped(GOOD))
    for signature, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = data.find(signature)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(signature, at + 4)
    return bytes(data)


def local_name_differs() -> bytes:
    data = zipped(GOOD)
    at = data.index(b"train/good/1.png")
    return data[:at] + b"train/evil/1.png" + data[at + 16 :]


def with_bytes_as_name(raw: bytes) -> Make:
    """A member whose name is in an encoding that the archive does not tell."""
    stand_in = b"train/" + b"x" * (len(raw) - 6)
    return lambda: zipped({**GOOD, stand_in.decode(): b"x"}).replace(stand_in, raw)


def with_name_in_unicode(name: str, *, second: str, local_only: bool = False) -> bytes:
    """A member with the extra field that says its name again, here as `second`."""
    said = b"\1" + struct.pack("<L", zlib.crc32(name.encode())) + second.encode()
    field = struct.pack("<2H", 0x7075, len(said)) + said

    def prepare(info: zipfile.ZipInfo) -> None:
        if info.filename == name:
            info.extra = field

    data = zipped({**GOOD, name: b"x"}, prepare)
    if local_only:  # under a kind that nobody knows in the directory
        at = data.rindex(field)
        data = data[:at] + b"\x99\x99" + data[at + 2 :]
    return data


def local_size_differs() -> bytes:
    data = bytearray(zipped(GOOD))
    at = data.index(b"PK\3\4")
    data[at + 22 : at + 26] = struct.pack("<L", 9_999)
    return bytes(data)


def directory_size_differs(size: int) -> bytes:
    """Both headers claim a size that the data has not."""
    data = bytearray(zipped(GOOD))
    first, entry = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    for at in (first + 22, entry + 24):
        data[at : at + 4] = struct.pack("<L", size)
    return bytes(data)


def overlapping() -> bytes:
    """One member lies within another (as in D. Fifield's zip bomb)."""
    inside = zipped({"train/good/2.png": b"inside"})
    inside = inside[: inside.index(b"PK\1\2")]

    def stored(info: zipfile.ZipInfo) -> None:
        if info.filename == "train/good/1.png":
            info.compress_type = zipfile.ZIP_STORED

    data = bytearray(zipped({"train/good/1.png": inside, "train/good/2.png": b"inside"}, stored))
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[entry + 42 : entry + 46] = struct.pack("<L", data.index(inside))
    return bytes(data)


def damaged_zip() -> bytes:
    data = bytearray(zipped({"train/good/1.png": bytes(range(256)) * 40}))
    data[60] ^= 0xFF
    return bytes(data)


def damaged_tar() -> bytes:
    data = bytearray(tarred(GOOD))
    data[1024 + 10] ^= 0xFF  # the second member's header: tarfile alone stops silently
    return bytes(data)


def long_header() -> bytes:
    """A name of two megabytes: tarfile alone reads a header of any size into memory."""
    return gzip.compress(tarred({"a" * (2 << 20): b"x", **GOOD}))


def sparse() -> tarfile.TarInfo:
    return special(tarfile.GNUTYPE_SPARSE)


BAD: list[tuple[str, str, str, Make]] = [
    # id, suffix, words of the reason, bytes
    ("traversal", ".zip", "leads out", with_name("../escape.png")),
    ("traversal-deep", ".zip", "leads out", with_name("train/../../../escape.png")),
    ("traversal-tar", ".tar", "leads out", in_tar("train/../../escape.png")),
    ("absolute", ".zip", "absolute", with_name("/tmp/escape.png")),
    ("absolute-tar", ".tar", "absolute", in_tar("/tmp/escape.png")),
    ("drive", ".zip", "absolute", with_name("C:/escape.png")),
    ("backslash", ".zip", "backslash", with_name("train\\..\\..\\escape.png")),
    ("empty-part", ".zip", "empty part", with_name("train//good/9.png")),
    ("nul", ".zip", "control character", with_name("train/good/9.png\0.txt")),
    ("newline", ".tar", "control character", in_tar("train/good/9\n.png")),
    ("not-utf8", ".tar", "UTF-8", lambda: tarred({**GOOD, "train/good/\udcff.png": b"x"})),
    ("long-name", ".zip", "more than 255", with_name(f"train/good/{'x' * 300}.png")),
    ("long-path", ".zip", "parts", with_name("train/" + "deep/" * 40 + "9.png")),
    ("device-name", ".zip", "device of Windows", with_name("train/good/NUL.png")),
    ("dot-at-end", ".zip", "dot or a space", with_name("train/good./9.png")),
    ("twice", ".zip", "twice", twice),
    ("twice-tar", ".tar", "twice", lambda: tarred([*GOOD.items(), ("task.yaml", b"other")])),
    ("case", ".zip", "one name on some systems", with_name("train/good/1.PNG")),
    ("case-of-folder", ".zip", "one name on some systems", with_name("Train/good/7.png")),
    (
        "unicode-form", ".zip", "one name on some systems",
        lambda: zipped({**GOOD, "train/good/\u00e9.png": b"x", "train/good/e\u0301.png": b"y"}),
    ),
    ("file-and-folder", ".zip", "a file and a folder", with_name("train/good/1.png/inside.png")),
    ("link", ".tar", "symbolic link", lambda: tarred(GOOD, special(tarfile.SYMTYPE, link="/etc"))),
    ("link-in-zip", ".zip", "symbolic link", lambda: zip_mode(0o120777)),
    ("hard-link", ".tar", "hard link",
     lambda: tarred(GOOD, special(tarfile.LNKTYPE, link="train/good/1.png"))),
    ("link-to-folder-first", ".tar", "symbolic link",
     lambda: tarred([], special(tarfile.SYMTYPE, "train", "../../.."))),
    ("device", ".tar", "device", lambda: tarred(GOOD, special(tarfile.CHRTYPE))),
    ("block-device", ".tar", "device", lambda: tarred(GOOD, special(tarfile.BLKTYPE))),
    ("pipe", ".tar", "pipe", lambda: tarred(GOOD, special(tarfile.FIFOTYPE))),
    ("pipe-in-zip", ".zip", "pipe", lambda: zip_mode(0o010644)),
    ("sparse", ".tar", "sparse", lambda: tarred(GOOD, sparse())),
    ("unknown-kind", ".tar", "neither", lambda: tarred(GOOD, special(b"Z"))),
    ("many-files", ".zip", "more than 40 files",
     lambda: zipped({f"train/good/{n}.png": b"" for n in range(41)})),
    ("many-folders", ".tar", "more than 40 files",
     lambda: tarred({}, *[special(tarfile.DIRTYPE, f"train/{n}") for n in range(41)])),
    ("large", ".zip", "limit of 80 MB", lambda: zipped({"train/good/1.png": bytes(81 << 20)})),
    ("large-tar", ".tar.bz2", "limit of 80 MB",
     lambda: bz2.compress(_header_of(1 << 40) + bytes(8192))),
    ("bomb", ".zip", "250 times", lambda: zipped({"train/good/1.png": bytes(79 << 20)})),
    ("bomb-of-clutter", ".tar.xz", "250 times",
     lambda: lzma.compress(tarred({".hidden": bytes(79 << 20), **GOOD}), preset=0)),
    ("long-header", ".tar.gz", "headers of more than", long_header),
    ("more-than-declared", ".zip", "damaged", lambda: directory_size_differs(1)),
    ("less-than-declared", ".zip", "cut off", lambda: directory_size_differs(1 << 20)),
    ("encrypted", ".zip", "encrypted", encrypted),
    ("two-names", ".zip", "do not agree", local_name_differs),
    ("two-names-in-unicode", ".zip", "name in Unicode is another",
     lambda: with_name_in_unicode("train/good/9.png", second="train/evil/9.png")),
    ("two-names-before-it", ".zip", "name in Unicode is another",
     lambda: with_name_in_unicode("train/good/9.png", second="train/evil/9.png", local_only=True)),
    ("unknown-encoding", ".zip", "not UTF-8",
     with_bytes_as_name("train/りんご/9.png".encode("shift-jis"))),
    ("two-sizes", ".zip", "do not agree", local_size_differs),
    ("overlapping", ".zip", "shares bytes", overlapping),
    ("something-before", ".zip", "lies before", lambda: b"#!/bin/sh\n" * 9 + zipped(GOOD)),
    ("cut-off", ".zip", "damaged", lambda: zipped(GOOD)[:-30]),
    ("cut-off-tar", ".tar", "cut off", lambda: tarred(GOOD)[:1800]),
    ("cut-off-between", ".tar", "cut off", lambda: tarred(GOOD)[:2048]),
    ("cut-off-gz", ".tgz", "damaged", lambda: gzip.compress(tarred(GOOD))[:-20]),
    ("cut-off-xz", ".txz", "damaged", lambda: lzma.compress(tarred(GOOD))[:-20]),
    ("damaged", ".zip", "damaged", damaged_zip),
    ("damaged-header", ".tar", "damaged", damaged_tar),
    ("damaged-gz", ".tar.gz", "damaged", lambda: b"\x1f\x8b" + bytes(100)),
    ("goes-on", ".tar", "after its end", lambda: tarred(GOOD) + b"hidden" * 99),
    ("empty-file", ".zip", "damaged", bytes),
    ("no-members", ".zip", "no train folder", lambda: zipped({})),
    ("not-an-archive", ".zip", "damaged", lambda: b"GIF89a" * 100),
    ("other-kind", ".tar", "damaged", lambda: zipped(GOOD)),
    ("several-folders", ".zip", "several folders",
     lambda: zipped({"a/1.png": b"x", "b/1.png": b"y"})),
    ("no-train", ".zip", "no train folder", lambda: zipped({"cats/1.png": b"x"})),
    ("train-is-a-file", ".zip", "no train folder", lambda: zipped({"train": b"x"})),
    ("password-method", ".zip", "way that is not read", lambda: _method(99)),
    ("lzma-in-zip", ".zip", "way that is not read", lambda: _method(zipfile.ZIP_LZMA)),
]  # fmt: skip


def _header_of(size: int) -> bytes:
    info = tarfile.TarInfo("train/good/huge.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _method(method: int) -> bytes:
    data = bytearray(zipped({"train/good/1.png": b"x"}))
    for at in (data.index(b"PK\3\4") + 8, data.index(b"PK\1\2") + 10):
        data[at : at + 2] = struct.pack("<H", method)
    return bytes(data)
