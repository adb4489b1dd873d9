"""Files that are no photos: of other formats, damaged, bombs, random bytes."""

import contextlib
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_core import images
from detex_core.errors import InvalidInputError
from detex_core.images import MAX_IMAGE_BYTES, decode_mask, decode_photo, decoding_bytes, read_size
from tests.core.pictures import HEIGHT, WIDTH, chunk, encoded, gradient, png, refusal


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animations_are_refused(file_format: str) -> None:
    data = encoded(gradient(), file_format, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    assert "animation of 2" in refusal(data)


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused(file_format: str) -> None:
    assert "PNG, JPEG or WebP" in refusal(encoded(gradient(), file_format))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"hello", b"<svg/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert "PNG, JPEG or WebP" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [encoded(gradient()), encoded(gradient(), "JPEG"), encoded(gradient(), "WEBP"), encoded(gradient("CMYK"), "JPEG")],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(data: bytes, share: float) -> None:
    assert "damaged or truncated" in refusal(data[: int(len(data) * share)])


def test_a_flipped_bit_in_a_png_is_refused() -> None:
    data = bytearray(encoded(gradient()))
    data[data.index(b"IDAT") + 60] ^= 4
    assert "damaged" in refusal(bytes(data))


@pytest.mark.parametrize(("width", "height"), [(31, 100), (100, 31), (1, 1)])
def test_tiny_pictures_are_refused(width: int, height: int) -> None:
    assert f"{width} x {height} pixels" in refusal(encoded(Image.new("RGB", (width, height))))


@pytest.mark.parametrize(
    ("width", "height"), [(0, 0), (100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 40), (8_000, 7_000)]
)
def test_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    data = png(width, height, 8, 2, b"\0")
    tracemalloc.start()
    try:
        sentence = refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert "pixels" in sentence or "damaged" in sentence


def test_other_bombs_are_refused_by_their_header() -> None:
    jpeg = bytearray(encoded(gradient(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, frame + 5, 60_000, 60_000)
    assert "60,000 x 60,000" in refusal(bytes(jpeg))
    webp = bytearray(encoded(gradient("RGBA"), "WEBP", lossless=True))
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x10, 0, 0, 0]) + struct.pack("<I", 16_000)[:3] * 2
    bomb = b"RIFF" + struct.pack("<I", len(webp) - 8 + len(extended)) + b"WEBP" + extended + webp[12:]
    assert "photos[2]" in refusal(bytes(bomb))


def test_text_chunks_that_unpack_to_gigabytes_are_refused() -> None:
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000)))
    rows = (b"\0" + bytes(WIDTH * 3)) * HEIGHT
    refusal(png(WIDTH, HEIGHT, 8, 2, rows, text))


def test_files_that_are_too_large_are_refused() -> None:
    assert "67,108,865 bytes" in refusal(encoded(gradient()).ljust(MAX_IMAGE_BYTES + 1, b"\0"))


def test_photos_that_show_nothing_are_refused() -> None:
    assert "transparent" in refusal(encoded(Image.new("RGBA", (WIDTH, HEIGHT), (200, 0, 0, 0))))


@given(data=st.binary(max_size=200))
@settings(max_examples=150)
def test_random_bytes_are_refused(data: bytes) -> None:
    refusal(data)


SAMPLES = [
    encoded(gradient()),
    encoded(gradient().quantize(8)),
    encoded(gradient(), "JPEG"),
    encoded(gradient("CMYK"), "JPEG"),
    encoded(gradient("RGBA"), "WEBP", lossless=True),
    encoded(gradient(), "WEBP"),
]


@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_decode_or_are_refused(sample: bytes, changes: list[tuple[float, int]]) -> None:
    data = bytearray(sample)
    for position, value in changes:
        data[int(position * len(data))] = value
    try:
        image = decode_photo(bytes(data), field="photo")
    except InvalidInputError:
        return
    assert image.mode in ("RGB", "RGBA")


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_size_of_a_webp_takes_no_memory_for_its_pixels(
    options: dict[str, Any], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(gradient(mode), "WEBP", **options)
    assert decode_photo(data, field="photo").size == (WIDTH, HEIGHT)
    monkeypatch.setattr(images, "_read_header", None)  # what opens a reader
    assert read_size(data, field="photo") == (WIDTH, HEIGHT)
    assert decoding_bytes(data, field="photo") >= 4 * WIDTH * HEIGHT


def test_a_few_bytes_that_declare_a_large_webp_are_known_by_their_header() -> None:
    sides = struct.pack("<I", (16_382) | (3_050 << 14))
    tiny = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + sides + b"\0"
    data = b"RIFF" + struct.pack("<I", 4 + len(tiny)) + b"WEBP" + tiny
    tracemalloc.start()
    try:
        assert read_size(data, field="photo") == (16_383, 3_051)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    with pytest.raises(InvalidInputError, match="the size of its photo, 100 x 100 pixels"):
        decode_mask(data, field="mask", size=(100, 100))


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_no_webp_header_is_too_odd_to_read(content: bytes) -> None:
    data = b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content
    with contextlib.suppress(InvalidInputError):
        read_size(data, field="photo")
