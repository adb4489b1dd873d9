"""Pictures for tests, encoded by Pillow or by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detex_core.errors import InvalidInputError
from detex_core.images import decode_photo

WIDTH, HEIGHT = 60, 40


def gradient(mode: str = "RGB") -> Image.Image:
    """A picture of 60 x 40 whose corners differ: red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([columns * 4, rows * 6, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand: `rows` are the raw rows, each beginning with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def close(image: Image.Image, expected: Image.Image, tolerance: int) -> bool:
    difference = np.asarray(image).astype(int) - np.asarray(expected).astype(int)
    return image.size == expected.size and bool(np.abs(difference).mean() <= tolerance)


def refusal(data: bytes, decode: Callable[..., Image.Image] = decode_photo, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as raised:
        decode(data, field="photos[2]", **options)
    (violation,) = raised.value.violations
    assert violation.field == "photos[2]"
    return violation.sentence()
