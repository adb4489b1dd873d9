"""Notes in picture files: the orientation is found, and nothing else of them costs anything."""

import io
import logging
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from detex_core.images import decode_photo, decoding_bytes, read_size
from detex_core.picture_notes import orientation, split_jpeg
from tests.core.pictures import HEIGHT, WIDTH, chunk, encoded, gradient

TURNED = 6
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PNG, JPEG, WEBP = encoded(gradient()), encoded(gradient(), "JPEG"), encoded(gradient(), "WEBP")


def tiff(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    packed = b"".join(struct.pack(f"{order}HHL4s", *entry) for entry in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}LH", 8, len(entries)) + packed + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(content)) + content


def with_exif(picture: bytes, exif: bytes) -> bytes:
    """EXIF data in the file, in as many segments as a JPEG needs."""
    if picture is JPEG:
        pieces = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
        return JPEG[:2] + b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces) + JPEG[2:]
    if picture is PNG:
        return PNG[:33] + chunk(b"eXIf", exif) + PNG[33:]
    sides = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    exif += bytes(len(exif) % 2)
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + WEBP[12:]
    chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


@pytest.mark.parametrize("picture", [PNG, JPEG, WEBP], ids=["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("entry_count", [0, 5, 65_534])
def test_no_entry_reaches_the_log_and_none_is_copied(
    picture: bytes, entry_count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each entry names a megabyte, and all the same one."""
    entries = [(tag, 7, 1_000_000 + tag, b"\x08\0\0\0") for tag in range(1, 1 + entry_count) if tag != 0x0112]
    data = with_exif(picture, tiff(*entries, (0x0112, 3, 1, b"\x06\0\0\0")) + bytes(100_000))
    logging.captureWarnings(True)
    try:
        assert read_size(data, field="photo") == (HEIGHT, WIDTH)
        assert decode_photo(data, field="photo").size == (HEIGHT, WIDTH)
    finally:
        logging.captureWarnings(False)
    assert caplog.records == []


@pytest.mark.parametrize("picture", [PNG, JPEG], ids=["PNG", "JPEG"])
def test_headers_are_read_without_a_pixel(picture: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert read_size(picture, field="photo") == (WIDTH, HEIGHT)
    assert decoding_bytes(picture, field="photo") > WIDTH * HEIGHT


def test_other_places_of_the_orientation() -> None:
    exif = tiff((0x0112, 3, 1, b"\0\x06\0\0"), order=">")
    profile = f"\nexif\n{len(exif):8}\n{exif.hex()}\n"
    files = {
        "behind the pixels of a PNG": PNG[:-12] + chunk(b"eXIf", exif) + PNG[-12:],
        "as text in a PNG": PNG[:33]
        + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode()))
        + PNG[33:],
        "XMP in a PNG": PNG[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + PNG[33:],
        "XMP in a JPEG": JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP) + JPEG[2:],
        "a JPEG": with_exif(JPEG, exif),
        "a WebP": with_exif(WEBP, exif),
    }
    for where, data in files.items():
        assert read_size(data, field="photo") == (HEIGHT, WIDTH), where
        assert decode_photo(data, field="photo").size == (HEIGHT, WIDTH), where


@pytest.mark.parametrize(
    ("kind", "count", "value", "expected"),
    [(3, 1, b"\x08\0\0\0", 8), (4, 1, b"\x03\0\0\0", 3), (3, 0, b"\x08\0\x08\0", 1), (2, 1, b"8\0\0\0", 1)],
)
def test_values_are_read_as_pillow_reads_them(kind: int, count: int, value: bytes, expected: int) -> None:
    exif = tiff((0x0112, kind, count, value))
    assert orientation(exif, b"") == expected
    known = Image.Exif()
    known.load(exif)
    found = known.get(0x0112, 1)
    assert (found if isinstance(found, int) else 1) == expected


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"Exif\0\0"]))
def test_no_notes_are_too_odd(data: bytes, before: bytes) -> None:
    assert orientation(before + data, data) >= 0
    notes = split_jpeg(JPEG[:2] + segment(0xE1, before + data) + data + JPEG[2:])
    assert len(notes.picture) <= len(JPEG) + len(before) + 2 * len(data) + 4


def test_what_says_how_to_read_the_pixels_stays() -> None:
    profile = bytes(range(256)) * 600
    data = encoded(gradient("CMYK"), "JPEG", icc_profile=profile, exif=tiff(), comment=b"taken at home")
    left = split_jpeg(data).picture
    assert b"taken at home" not in left
    with Image.open(io.BytesIO(left)) as picture:
        assert (picture.info["icc_profile"], picture.info["adobe_transform"]) == (profile, 0)
