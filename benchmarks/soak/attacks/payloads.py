"""Bytes that cost their sender little, and are made once."""

import functools
import io
import struct
import zlib

from PIL import Image

MEBIBYTE = 1024**2
HUGE_SIZE = (16383, 3051)
"""Just below the limit of pixels: 150 MB when decoded."""


def encoded(picture: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


@functools.cache
def small_photo(file_format: str = "PNG") -> bytes:
    """A photo without fault, of 64 x 64 pixels."""
    picture = Image.new("RGB", (64, 64), (200, 210, 220))
    picture.paste((30, 120, 60), (16, 16, 48, 48))
    return encoded(picture, file_format)


@functools.cache
def small_mask(level: int = 255) -> bytes:
    """A mask of the small photo, white in its middle."""
    picture = Image.new("L", (64, 64))
    picture.paste(level, (16, 16, 48, 48))
    return encoded(picture)


@functools.cache
def huge_picture() -> bytes:
    """A WebP of some dozen bytes that declares 50 megapixels, and has them."""
    return encoded(Image.new("RGB", HUGE_SIZE, (255, 255, 255)), "WEBP", lossless=True, quality=0, method=0)


@functools.cache
def thin_photo() -> bytes:
    """A PNG of 16,000 x 60 pixels."""
    return encoded(Image.new("RGB", (16_000, 60), (90, 160, 200)))


@functools.cache
def fill_bytes(size_bytes: int = 30 * MEBIBYTE) -> bytes:
    """A JPEG with so many fill bytes before its first marker, which its format allows."""
    photo = small_photo("JPEG")
    return photo[:2] + b"\xff" * size_bytes + photo[2:]


@functools.cache
def empty_segments(size_bytes: int = 8 * MEBIBYTE) -> bytes:
    """A JPEG with so many bytes of empty APP15 segments."""
    photo = small_photo("JPEG")
    return photo[:2] + b"\xff\xef\x00\x02" * (size_bytes // 4) + photo[2:]


@functools.cache
def empty_chunks(size_bytes: int = 8 * MEBIBYTE) -> bytes:
    """A PNG with so many bytes of empty private chunks."""
    photo = small_photo()
    return photo[:33] + chunk(b"aaAa") * (size_bytes // 12) + photo[33:]


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def handmade_png(width: int, height: int, pixels: bytes, *extra: bytes) -> bytes:
    """A PNG that says it is of this size, 8 bits RGB, with these filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@functools.cache
def broken_pictures() -> tuple[bytes, ...]:
    """Files that are not what they say."""
    row = b"\0" + b"\x7f" * (64 * 3)
    whole = small_photo()
    return (
        handmade_png(96, 96, b"\0" + b"\x7f" * 288),  # one row of 96
        handmade_png(64, 64, row * 64 + b"\0" * (100 * MEBIBYTE)),  # more rows than it says
        handmade_png(64, 64, row * 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * (100 * MEBIBYTE), 9))),
        handmade_png(2**31 - 1, 2**31 - 1, b"\0"),
        whole[:-40],
        whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
        small_photo("JPEG")[:200],
        b"GIF89a" + b"\0" * 100,
        b"",
    )


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a message on the wire."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


@functools.cache
def many_versions(count: int = 700_000) -> bytes:
    """A GenerateRequest that names versions of so many concepts."""
    entries = (_field(12, _field(1, b"%x" % number) + _field(2, b"")) for number in range(count))
    return _field(1, b"a mug") + b"".join(entries)


@functools.cache
def many_regions(count: int = 100_000) -> bytes:
    """A GenerateRequest of so many regions."""
    return _field(1, b"a mug") + _field(20, b"") * count


@functools.cache
def many_states(count: int = 21_000_000) -> bytes:
    """A ListJobsRequest that asks for so many states."""
    return _field(3, b"\x01" * count)


@functools.cache
def many_attributes(count: int = 2_000_000) -> bytes:
    """A SubmitJobRequest of so many attributes."""
    return _field(1, b"ts-0000000000000000") + _field(2, b"a") + _field(5, b"a") * count


@functools.cache
def large_message(size_bytes: int = 60 * MEBIBYTE) -> bytes:
    """A message of one unknown field of so many bytes."""
    return _field(1000, b"x" * size_bytes)


@functools.cache
def unreadable_message(size_bytes: int = 60 * MEBIBYTE) -> bytes:
    """So many bytes that are no message."""
    return b"x" * size_bytes


def prepare() -> None:
    """Make all of them, so that no attack waits for its bytes."""
    for make in (
        small_photo,
        small_mask,
        huge_picture,
        thin_photo,
        fill_bytes,
        empty_segments,
        empty_chunks,
        broken_pictures,
        many_versions,
        many_regions,
        many_states,
        many_attributes,
        large_message,
        unreadable_message,
    ):
        make()
