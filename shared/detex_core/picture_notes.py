"""What a picture file says of its orientation, read without a reader.

Readers take EXIF data apart whole, tell the log of each of its thousands of entries that is odd, and decode a PNG to
look for more of it behind the pixels. Formats: TIFF 6.0, section 2; EXIF 2.32, section 4.5; XMP part 3, section 1.1.3.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

UPRIGHT = 1

_ORIENTATION_TAG = 0x0112
_WHOLE_NUMBERS = {3: "H", 4: "L"}  # types of TIFF values: SHORT and LONG
_VALUE_BYTES = 4  # more lie elsewhere in the file
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN = 0xDA
# What says how pixels are to be read: JFIF, colour profiles, Adobe's colour transform. Other APP segments and comments
# are notes.
_NOTES = frozenset({*range(0xE0, 0xF0), 0xFE} - {0xE0, 0xE2, 0xEE})


@dataclass(frozen=True)
class JpegNotes:
    """A JPEG without its notes, and its orientation.

    Attributes:
        picture: The file without them.
        orientation: As EXIF counts it, 1 to 8; another number where the file says so, 1 where it says nothing.
    """

    picture: bytes
    orientation: int


def orientation(exif: bytes, xmp: bytes) -> int:
    """Orientation by EXIF data, or else by XMP; 1 where neither says it in an orderly way.

    Args:
        exif: From the TIFF header on, or from the name before it; may be empty or damaged.
        xmp: A packet of XMP; may be empty.
    """
    while exif.startswith(_EXIF):
        exif = exif[len(_EXIF) :]
    found = _in_tiff(exif)
    if found is None and (said := _IN_XMP.search(xmp)) is not None:
        found = int(said[1])
    return UPRIGHT if found is None else found


def split_jpeg(data: bytes) -> JpegNotes:
    """Take the notes out of a JPEG that has passed `check_structure`."""
    kept, exif, xmp = bytearray(), bytearray(), b""
    copied = 0
    for marker, start, content, end in _segments(data):
        if marker not in _NOTES:
            continue
        kept += data[copied:start]
        copied = min(end, len(data))
        if marker == 0xE1:
            if data.startswith(_EXIF, content):
                exif += data[content + len(_EXIF) : end]
            elif data.startswith(_XMP, content):
                xmp = data[content + len(_XMP) : end]
    kept += data[copied:]
    return JpegNotes(bytes(kept), orientation(bytes(exif), xmp))


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Marker, start, start of the content and end of each segment before the pixels."""
    position = 2
    while position + 1 < len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):
            position += 1
            continue
        marker, start = data[position + 1], position
        if marker == _START_OF_SCAN:
            return
        position += 2
        if marker not in _ALONE:
            position += max(2, int.from_bytes(data[position : position + 2]))
            yield marker, start, start + 4, position


def _in_tiff(data: bytes) -> int | None:
    """Value of the first entry for the orientation in the first directory; None where there is none that can be."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or 42 not in data[2:4] or len(data) < 10:
        return None
    (first,) = struct.unpack_from(f"{order}L", data, 4)
    if first + 2 > len(data):
        return None
    (count,) = struct.unpack_from(f"{order}H", data, first)
    entries = data[first + 2 : first + 2 + 12 * count]
    for tag, kind, values, value in struct.iter_unpack(f"{order}HHL4s", entries[: len(entries) // 12 * 12]):
        if tag == _ORIENTATION_TAG and kind in _WHOLE_NUMBERS:
            number = f"{order}{_WHOLE_NUMBERS[kind]}"
            if 0 < values * struct.calcsize(number) <= _VALUE_BYTES:
                return int(struct.unpack_from(number, value)[0])
    return None
