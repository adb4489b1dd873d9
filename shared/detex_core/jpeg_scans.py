"""The scans of a JPEG: whether all of them are there, and whether a reader finds what it needs in each.

Readers fill up what is missing before an early end marker and say nothing of it. Format: ITU-T T.81, annex B; numbers
of blocks by its section A.2.
"""

import re
from dataclasses import dataclass, field

_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length: TEM, RST0 to RST7, SOI, EOI
_START_OF_SCAN, _END_OF_IMAGE, _RESTART_INTERVAL = 0xDA, 0xD9, 0xDD
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF markers; the others are DHT, JPG and DAC
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC_FRAMES = frozenset(range(0xC9, 0xD0))
_RESTARTS = tuple(bytes((0xFF, marker)) for marker in range(0xD0, 0xD8))
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
OTHER_BITS = bytes((73 * position + 181) % 255 for position in range(1024))
"""Readers fill up with zeros: these begin with a one, so that the first bit that is read of them makes a difference. No
byte is 0xFF."""


@dataclass(frozen=True)
class JpegScans:
    """The scans of a JPEG.

    Attributes:
        are_complete: Whether the scans that are there say everything of the picture: all coefficients of all
            components to their last bit, and all restart intervals.
        is_arithmetic: Whether bits are coded so that they may end early; then their ends say nothing.
        ends: Where the bits of each end.
        end: Where the marker of the picture's end lies, or would lie.
    """

    are_complete: bool
    is_arithmetic: bool
    ends: tuple[int, ...]
    end: int

    def with_other_bits(self, data: bytes) -> bytes:
        """The file with bits behind those of each scan: a reader passes over them where it has found all it needs."""
        pieces, copied = [], 0
        for end in self.ends:
            pieces += [data[copied:end], OTHER_BITS]
            copied = end
        return b"".join((*pieces, data[copied : self.end], b"\xff\xd9"))


def read_jpeg_scans(data: bytes) -> JpegScans:
    """Go through the markers of a JPEG that has passed `check_structure`."""
    position, frame, interval = 2, _Frame(), 0
    ends: list[int] = []
    while (found := _NEXT_MARKER.search(data, position)) is not None:
        marker, start = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            return frame.scans(ends, found.start())
        if marker in _ALONE:
            position = start
            continue
        position = start + max(2, int.from_bytes(data[start : start + 2]))
        content = data[start + 2 : position]
        if marker in _FRAMES and not frame.components:
            frame = _Frame.read(marker, content)
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(content[:2])
        elif marker == _START_OF_SCAN and content:
            ends.append(_end_of_bits(data, position))
            restarts = sum(data.count(restart, position, ends[-1]) for restart in _RESTARTS) if interval else 0
            frame.add_scan(content, interval, restarts)
    return frame.scans(ends, ends[-1] if ends else len(data))


def _end_of_bits(data: bytes, start: int) -> int:
    found = _NEXT_MARKER.search(data, start)
    if found is not None:
        return found.start()
    # No marker follows, as where a file was cut off; zeros may stand for what did not come.
    end = max(start, len(data.rstrip(b"\0")))
    return end + (end < len(data) and data[end - 1] == 0xFF)


@dataclass
class _Frame:
    """What the header of a frame says, and which bits of its coefficients are still to come."""

    marker: int = 0
    height: int = 0
    width: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)  # samples across and down, by component
    missing: dict[int, list[int | None]] = field(default_factory=dict)  # by component, of each coefficient
    lacks_intervals: bool = False

    @classmethod
    def read(cls, marker: int, content: bytes) -> "_Frame":
        if len(content) < 6:
            return cls()
        components = {
            content[at]: (content[at + 1] >> 4, content[at + 1] & 15)
            for at in range(6, min(6 + 3 * content[5], len(content) - 2), 3)
        }
        height, width = int.from_bytes(content[1:3]), int.from_bytes(content[3:5])
        return cls(marker, height, width, components, {name: [None] * 64 for name in components})

    def add_scan(self, content: bytes, interval: int, restarts: int) -> None:
        count = content[0]
        first, last, bits = 0, 63, 0
        if self.marker in _PROGRESSIVE_FRAMES and len(content) >= 4 + 2 * count:
            first, last, bits = content[1 + 2 * count], min(63, content[2 + 2 * count]), content[3 + 2 * count] & 15
        names = [name for name in content[1 : 1 + 2 * count : 2] if name in self.components]
        for name in names:
            self.missing[name][first : last + 1] = [bits] * max(0, last + 1 - first)
        if interval and restarts < (self._units(names) - 1) // interval:
            self.lacks_intervals = True

    def _units(self, names: list[int]) -> int:
        """Coded units (MCU) of a scan of these components."""
        across = max((each for each, _ in self.components.values()), default=1) or 1
        down = max((each for _, each in self.components.values()), default=1) or 1
        if len(names) == 1:
            own_across, own_down = self.components[names[0]]
            columns, rows = -(-self.width * own_across // across), -(-self.height * own_down // down)
            return -(-columns // 8) * -(-rows // 8)
        return -(-self.width // (8 * across)) * -(-self.height // (8 * down))

    def scans(self, ends: list[int], end: int) -> JpegScans:
        # Coefficients that no scan names are zeros to all readers; writers leave out none but the highest frequencies.
        whole = all(left[0] == 0 and not any(left) for left in self.missing.values())
        is_complete = whole and not self.lacks_intervals
        return JpegScans(is_complete, self.marker in _ARITHMETIC_FRAMES, tuple(ends), end)
