"""The outline of a picture file, walked within bounds before a reader sees it.

Readers go through files piece by piece in Python, and give each empty piece the time of a full one: megabytes of fill
bytes or of empty chunks hold them up for half a minute. No camera and no editor writes such files.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from detex_core.errors import invalid_input

MAX_JPEG_SEGMENTS = 1_024
MAX_JPEG_SCANS = 100
MAX_JPEG_HEADER_BYTES = 16 * 1024**2
MAX_JPEG_FILL_BYTES = 4_096
MAX_PNG_CHUNKS = 1_024
"""Beside those of the pixels."""
MAX_PNG_PIXEL_CHUNKS = 65_536

_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length: TEM, RST0 to RST7, SOI, EOI
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BLOCK_BYTES = 1024**2


def check_structure(data: bytes, *, field: str) -> None:
    """Refuse a JPEG or PNG of more pieces than readers should go through; what is damaged otherwise is left to them.

    Args:
        data: The file.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: It has too many segments, scans or chunks, or too much lies before its pixels.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data, field)
    elif data.startswith(b"\x89PNG"):
        _check_png(data, field)


def png_rows_are_complete(data: bytes) -> bool:
    """Whether a PNG has all the rows that its header promises; takes no more memory for a larger picture."""
    needed, unpacked, reader = _png_bytes(data), 0, zlib.decompressobj()
    for start, size in _png_chunks(data, b"IDAT"):
        packed = data[start : start + size]
        while unpacked < needed and packed and not reader.eof:
            unpacked += len(reader.decompress(packed, _BLOCK_BYTES))
            packed = reader.unconsumed_tail
        if unpacked >= needed or reader.eof:
            break
    # Only where all was unpacked but for what is left in the reader: else this would unpack a bomb whole.
    return unpacked >= needed or unpacked + len(reader.flush()) >= needed


def png_exif(data: bytes) -> bytes:
    """The EXIF data of a PNG, wherever its chunk stands; empty where there is none."""
    start, size = next(_png_chunks(data, b"eXIf"), (0, 0))
    return data[start : start + size]


def _check_jpeg(data: bytes, field: str) -> None:
    position, segments, fill = 2, 0, 0
    while position + 1 < len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):
            position += 1
            fill += 1
            if fill > MAX_JPEG_FILL_BYTES:
                raise _too_much(field, f"more than {MAX_JPEG_FILL_BYTES:,} bytes between its segments")
            continue
        marker = data[position + 1]
        position += 2
        segments += 1
        if segments > MAX_JPEG_SEGMENTS:
            raise _too_much(field, f"more than {MAX_JPEG_SEGMENTS:,} segments")
        if marker == _START_OF_SCAN:
            _check_jpeg_scans(data, position, field)
            return
        if marker not in _JPEG_ALONE:
            position += max(2, int.from_bytes(data[position : position + 2]))
        if position > MAX_JPEG_HEADER_BYTES:
            raise _too_much(field, f"more than {MAX_JPEG_HEADER_BYTES:,} bytes before its pixels")


def _check_jpeg_scans(data: bytes, position: int, field: str) -> None:
    # Each scan of a progressive file goes over the whole picture, however little it says.
    scans = segments = 1
    while (found := _NEXT_MARKER.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        segments += 1
        scans += marker == _START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            raise _too_much(field, f"more than {MAX_JPEG_SCANS} scans")
        if segments > MAX_JPEG_SEGMENTS:
            raise _too_much(field, f"more than {MAX_JPEG_SEGMENTS:,} segments between its scans")
        if marker == _END_OF_IMAGE:
            return
        position += max(2, int.from_bytes(data[position : position + 2]))


def _check_png(data: bytes, field: str) -> None:
    others = pixels = 0
    for name, _, _ in _all_png_chunks(data):
        pixels += name == b"IDAT"
        others += name != b"IDAT"
        if others > MAX_PNG_CHUNKS:
            raise _too_much(field, f"more than {MAX_PNG_CHUNKS:,} chunks beside those of its pixels")
        if pixels > MAX_PNG_PIXEL_CHUNKS:
            raise _too_much(field, f"its pixels in more than {MAX_PNG_PIXEL_CHUNKS:,} chunks")


def _all_png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk's content."""
    position = 8
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        name = data[position + 4 : position + 8]
        yield name, position + 8, size
        if name == b"IEND":
            return
        position += 12 + size


def _png_chunks(data: bytes, wanted: bytes) -> Iterator[tuple[int, int]]:
    return ((start, size) for name, start, size in _all_png_chunks(data) if name == wanted)


def _png_bytes(data: bytes) -> int:
    """Bytes of all rows with their filter bytes, by the header (PNG specification, section 8.2 for interlaced ones)."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    passes = _PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - top) // down)
        if columns and rows:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _too_much(field: str, what: str) -> Exception:
    return invalid_input(field, f"a file with {what}", "an ordinary image file")
