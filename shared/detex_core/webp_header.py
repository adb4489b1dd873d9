"""What the header of a WebP file says, without the reader, which makes room for all pixels as soon as it opens one.

Formats: RFC 9649 (the container and lossless pictures), RFC 6386 section 9.1 (lossy pictures).
"""

from dataclasses import dataclass

from detex_core.jpeg_scans import OTHER_BITS

_ANIMATED = 0x02
_MAX_CHUNKS = 64


@dataclass(frozen=True)
class WebPHeader:
    """The header.

    Attributes:
        width: Pixels.
        height: Pixels.
        frames: Pictures of an animation; 0 where it is none.
        exif: Content of its EXIF chunk; empty where it has none.
        xmp: Content of its XMP chunk; empty where it has none.
    """

    width: int
    height: int
    frames: int
    exif: bytes
    xmp: bytes


def read_webp_header(data: bytes) -> WebPHeader:
    """The header of a file that begins as a WebP file does.

    Raises:
        ValueError: It is cut off or damaged, or has more chunks than any writer makes.
    """
    announced = 8 + int.from_bytes(data[4:8], "little")
    if announced > len(data):
        raise ValueError(f"cut off after {len(data):,} of {announced:,} bytes")
    size: tuple[int, int] | None = None
    canvas: tuple[int, int] | None = None
    is_animated, frames, exif, xmp, position = False, 0, b"", b"", 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > announced:
            break
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if start + length > len(data):
            raise ValueError(f"its chunk {name!r} is cut off")
        content = data[start : start + min(length, 16)]
        if name == b"VP8X" and length >= 10:
            is_animated = bool(content[0] & _ANIMATED)
            canvas = (1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little"))
        elif name == b"VP8 " and size is None and length >= 10:
            if content[3:6] != b"\x9d\x01\x2a":
                raise ValueError("its picture has no start code")
            sides = (int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little"))
            size = (sides[0] & 0x3FFF, sides[1] & 0x3FFF)
        elif name == b"VP8L" and size is None and length >= 5:
            bits = int.from_bytes(content[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif name == b"ANMF":
            frames += 1
        elif name == b"EXIF":
            exif = data[start : start + length]
        elif name == b"XMP ":
            xmp = data[start : start + length]
        position = start + length + length % 2
    else:
        if not frames:
            raise ValueError(f"more than {_MAX_CHUNKS} chunks")
    found = canvas or size
    if found is None or (size is None and not is_animated):
        raise ValueError("it has no picture")
    return WebPHeader(*found, frames=max(1, frames) if is_animated else 0, exif=exif, xmp=xmp)


def webp_with_other_bits(data: bytes) -> bytes:
    """The file with bits behind those of its lossy picture: a reader passes over them where it has found all it needs.

    Args:
        data: A file whose header has been read.

    Returns:
        The file itself where it has no lossy picture; readers of lossless ones refuse what is cut off.
    """
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length
        if data[position : position + 4] == b"VP8 ":
            content = data[position + 8 : end] + OTHER_BITS + bytes(length % 2)
            rest = data[12:position] + b"VP8 " + (length + len(OTHER_BITS)).to_bytes(4, "little") + content
            rest += data[end + length % 2 : 8 + int.from_bytes(data[4:8], "little")]
            return b"RIFF" + (4 + len(rest)).to_bytes(4, "little") + b"WEBP" + rest
        position = end + length % 2
    return data
