"""Files that would hold readers up, and files that end before their picture does."""

import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.image_structure import MAX_JPEG_SEGMENTS, MAX_PNG_CHUNKS, check_structure, png_rows_are_complete
from detex_core.images import decode_photo, read_size
from tests.core.pictures import HEIGHT, WIDTH, chunk, close, encoded, gradient, png, refusal

PNG, JPEG = encoded(gradient()), encoded(gradient(), "JPEG")
PROGRESSIVE = encoded(gradient(), "JPEG", progressive=True)
SCAN = PROGRESSIVE.rindex(b"\xff\xda")
EMPTY_SEGMENT = b"\xff\xe5\0\2"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (JPEG[:2] + b"\xff" * 30_000_000 + JPEG[2:], "between its segments"),
        (JPEG[:2] + b"\xff\0" * 1_000_000 + JPEG[2:], "between its segments"),
        (JPEG[:2] + EMPTY_SEGMENT * 7_000_000 + JPEG[2:], f"more than {MAX_JPEG_SEGMENTS:,} segments"),
        (JPEG[:2] + b"\xff\xd8" * 7_000_000 + JPEG[2:], f"more than {MAX_JPEG_SEGMENTS:,} segments"),
        (JPEG[:2] + (b"\xff\xe5\xff\xff" + bytes(65_533)) * 300 + JPEG[2:], "before its pixels"),
        (PROGRESSIVE[:-2] + PROGRESSIVE[SCAN:-2] * 200 + PROGRESSIVE[-2:], "scans"),
        (PNG[:33] + chunk(b"teXt", b"") * 2_000_000 + PNG[33:], f"more than {MAX_PNG_CHUNKS:,} chunks"),
        (PNG[:-12] + chunk(b"teXt", b"") * 2_000_000 + PNG[-12:], f"more than {MAX_PNG_CHUNKS:,} chunks"),
        (PNG[:33] + chunk(b"IDAT", b"") * 2_000_000 + PNG[33:], "its pixels in more than"),
    ],
)
def test_files_of_endless_pieces_are_refused_at_once(data: bytes, what: str) -> None:
    began = time.process_time()
    assert what in refusal(data)
    assert what in refusal(data, read_size)  # type: ignore[arg-type]
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + b"\xff" * 1_000 + JPEG[2:],
        JPEG[:2] + EMPTY_SEGMENT * 300 + JPEG[2:],
        JPEG[:2] + (b"\xff\xe5\xff\xff" + bytes(65_533)) * 100 + JPEG[2:],
        PNG[:33] + chunk(b"teXt", b"key\0value") * 300 + PNG[33:],
        PROGRESSIVE,
        JPEG + bytes(1_000_000),
    ],
)
def test_files_with_much_beside_their_pixels_are_taken(data: bytes) -> None:
    assert close(decode_photo(data, field="photo"), gradient(), 3)


@pytest.mark.parametrize(("bits", "colour", "channels"), [(8, 2, 3), (1, 0, 1), (16, 6, 4), (4, 3, 1), (8, 4, 2)])
@pytest.mark.parametrize("rows", [1, HEIGHT - 1, HEIGHT])
def test_a_png_without_its_last_rows_is_refused(bits: int, colour: int, channels: int, rows: int) -> None:
    row = b"\0" + b"\x11" * (-(-WIDTH * bits * channels // 8))
    palette = [chunk(b"PLTE", bytes(range(48)))] if colour == 3 else []
    data = png(WIDTH, HEIGHT, bits, colour, row * rows, *palette)
    if rows == HEIGHT:
        assert decode_photo(data, field="photo").size == (WIDTH, HEIGHT)
    else:
        assert "last rows are missing" in refusal(data)


def test_a_png_that_unpacks_to_more_than_its_rows_takes_no_more_memory() -> None:
    rows = (b"\0" + bytes(WIDTH * 3)) * HEIGHT + bytes(300_000_000)
    data = png(WIDTH, HEIGHT, 8, 2, rows)
    del rows
    tracemalloc.start()
    try:
        png_rows_are_complete(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@given(width=st.integers(32, 60), height=st.integers(32, 60), missing=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_interlaced_png_is_complete_with_all_its_passes(width: int, height: int, missing: int) -> None:
    """Adam7: seven passes of growing density, each with rows of its own."""
    rows = b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        columns = len(range(left, width, across))
        rows += (b"\0" + b"\x7f" * 3 * columns) * len(range(top, height, down))
    rows = rows[: len(rows) - missing]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    if missing:
        refusal(data)
    else:
        assert decode_photo(data, field="photo").getpixel((5, 5)) == (127, 127, 127)


@given(data=st.binary(max_size=300), start=st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xda"]))
@settings(max_examples=300)
def test_the_outline_of_any_short_file_is_walked_to_its_end(data: bytes, start: bytes) -> None:
    check_structure(start + data, field="photo")  # nothing so short is too much, and nothing makes it stumble
