"""Pictures that end too early are refused wherever they are cut, and whole ones of every structure are taken."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_core.errors import InvalidInputError
from detex_core.images import decode_photo
from tests.core.pictures import HEIGHT, WIDTH, encoded, gradient, refusal

END, SCAN = b"\xff\xd9", b"\xff\xda"


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def segments(jpeg: bytes) -> tuple[dict[int, list[bytes]], bytes]:
    """The segments of a JPEG of one scan by their markers, and the bits of that scan."""
    found: dict[int, list[bytes]] = {}
    position = 2
    while True:
        size = 2 + int.from_bytes(jpeg[position + 2 : position + 4])
        found.setdefault(jpeg[position + 1], []).append(jpeg[position : position + size])
        position += size
        if jpeg[position - size + 1] == 0xDA:
            return found, jpeg[position:-2]


def one_scan_for_each_component(picture: Image.Image) -> bytes:
    """A sequential JPEG that is not interleaved, as jpegtran writes it when told to."""
    parts = [segments(encoded(band, "JPEG", quality=90)) for band in picture.convert("YCbCr").split()]
    tables = parts[0][0]
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, picture.height, picture.width, 3) + components
    scans = [SCAN + b"\0\x08\x01" + bytes([number, 0]) + b"\0\x3f\0" + parts[number - 1][1] for number in (1, 2, 3)]
    return b"".join((b"\xff\xd8", *tables[0xE0], *tables[0xDB], frame, *tables[0xC4], *scans, END))


JPEGS = [
    *(
        encoded(picture, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        for picture in (gradient(), noise())
        for quality in (30, 95)
        for subsampling in (0, 2)
        for progressive in (False, True)
    ),
    *(encoded(gradient(mode), "JPEG", progressive=progressive) for mode in ("L", "CMYK") for progressive in (0, 1)),
    encoded(noise(), "JPEG", restart_marker_rows=1),
    encoded(noise(), "JPEG", restart_marker_blocks=1, progressive=True),
    encoded(Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 50)), "JPEG", optimize=True),
    one_scan_for_each_component(noise()),
]
WEBPS = [
    encoded(noise(), "WEBP", quality=80),
    encoded(gradient(), "WEBP", quality=20),
    encoded(noise(), "WEBP", lossless=True),
]


def is_refused_or_whole(data: bytes, whole: bytes) -> bool:
    """What a file that lacks nothing but what no reader needs shows is what the whole file shows."""
    try:
        found = decode_photo(data, field="photo")
    except InvalidInputError:
        return True
    return found.tobytes() == decode_photo(whole, field="photo").tobytes()


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(JPEGS), st.floats(0.0, 1.0, exclude_max=True), st.sampled_from([END, END + END, bytes(5_000)]))
def test_a_jpeg_that_is_cut_anywhere_is_refused_whatever_it_ends_with(data: bytes, share: float, after: bytes) -> None:
    """Readers fill up what lies behind an early end marker; downloads that break off leave zeros."""
    pixels = data.index(SCAN) + 2
    cut = pixels + int(share * (len(data) - 2 - pixels))
    assert is_refused_or_whole(data[:cut] + after, data)


@pytest.mark.parametrize("data", JPEGS)
def test_the_last_bytes_of_a_jpeg_are_missed_too(data: bytes) -> None:
    for missing in range(1, 60):
        assert is_refused_or_whole(data[: -2 - missing] + END, data)


def test_a_jpeg_that_ends_between_two_restart_intervals_is_refused() -> None:
    data = encoded(noise(), "JPEG", restart_marker_rows=1)
    assert data.count(b"\xff\xd0") == 1
    for number in range(2):
        assert "scans or rows are missing" in refusal(data[: data.index(bytes((0xFF, 0xD0 + number)))] + END)


@pytest.mark.parametrize("data", JPEGS)
@pytest.mark.parametrize("after", [b"", b"\0" * 100, b"\xff\xd8 another picture"])
def test_whole_jpegs_are_read_as_pillow_reads_them(data: bytes, after: bytes) -> None:
    with Image.open(io.BytesIO(data)) as expected:
        assert decode_photo(data + after, field="photo").tobytes() == expected.convert("RGB").tobytes()


@settings(deadline=None)
@given(st.sampled_from(WEBPS), st.floats(0.0, 1.0, exclude_max=True))
def test_a_webp_that_is_cut_anywhere_is_refused_though_its_sizes_are_those_of_what_is_left(
    data: bytes, share: float
) -> None:
    (size,) = struct.unpack_from("<I", data, 16)
    left = int(share * size)
    content = data[20 : 20 + left] + bytes(left % 2)
    cut = data[12:16] + struct.pack("<I", left) + content
    assert is_refused_or_whole(b"RIFF" + struct.pack("<I", 4 + len(cut)) + b"WEBP" + cut, data)


@pytest.mark.parametrize("frame", [0xC9, 0xCA])
def test_arithmetic_coding_whose_end_cannot_be_seen_is_refused_by_name(frame: int) -> None:
    coded = encoded(gradient(), "JPEG", progressive=frame == 0xCA)
    plain = b"\xff\xc2" if frame == 0xCA else b"\xff\xc0"
    assert coded.count(plain) == 1
    told = refusal(coded.replace(plain, bytes([0xFF, frame])))
    assert "a JPEG with arithmetic coding" in str(told)
    assert "Huffman" in str(told)
