"""Cells as values: texts of CSV, and numbers and lists of JSONL and Parquet.

Each reader takes what a cell holds and returns a value, or raises ValueError with what is accepted and what was given.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from detex_catalog.table.faults import shown

SEPARATOR = "|"
"""Between the entries of a list in one cell."""
_SIZE = re.compile(r"(\d{1,6})(?:\s*[xX×]\s*(\d{1,6}))?")

Reader = Callable[[Any], Any]


def text(shortest: int, longest: int, pattern: str | None = None, accepted: str = "") -> Reader:
    """A text of a number of characters without control characters, which fits a pattern as a whole."""

    def read(cell: Any) -> str:
        value = str(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell
        if not isinstance(value, str):
            raise ValueError(f"must be a text, got {shown(cell)}")
        value = value.strip()
        if not shortest <= len(value) <= longest:
            raise ValueError(f"must have {shortest} to {longest:,} characters, got {len(value):,}")
        if any(character < " " and character not in "\n\t" for character in value):
            raise ValueError(f"must have no control characters, got {shown(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"must be text that UTF-8 can carry, got {shown(value)}") from None
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(f"must be {accepted}, got {shown(value)}")
        return value

    return read


def texts(each: Reader, most: int) -> Reader:
    """A list of texts, in one cell between bars (`|`)."""

    def read(cell: Any) -> tuple[str, ...]:
        entries = cell.split(SEPARATOR) if isinstance(cell, str) else cell
        if not isinstance(entries, list):
            raise ValueError(f"must be a list, or texts between bars (|), got {shown(cell)}")
        found = [entry for entry in entries if not (isinstance(entry, str) and not entry.strip())]
        if len(found) > most:
            raise ValueError(f"must be at most {most} entries, got {len(found)}")
        return tuple(each(entry) for entry in found)

    return read


def whole(lowest: int, highest: int) -> Reader:
    """A whole number within bounds."""

    def read(cell: Any) -> int:
        value = cell
        if isinstance(cell, str):
            value = int(cell) if re.fullmatch(r"-?[0-9]{1,18}", cell.strip()) else None
        elif isinstance(cell, float):
            value = int(cell) if cell.is_integer() else None
        if value is None or isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, got {shown(cell)}")
        if not lowest <= value <= highest:
            raise ValueError(f"must be {lowest:,} to {highest:,}, got {value:,}")
        return value

    return read


def number(lowest: float, highest: float) -> Reader:
    """A number within bounds."""

    def read(cell: Any) -> float:
        try:
            value = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"must be a number, got {shown(cell)}")
        if not lowest <= value <= highest:
            raise ValueError(f"must be {lowest:g} to {highest:g}, got {value:g}")
        return value

    return read


def size(multiple: int, largest_side: int) -> Reader:
    """Width and height in pixels as `640x480`, or one number for both."""

    def read(cell: Any) -> tuple[int, int]:
        given = str(cell).strip() if isinstance(cell, int | str) and not isinstance(cell, bool) else ""
        match = _SIZE.fullmatch(given)
        if match is None:
            raise ValueError(f"must be WIDTHxHEIGHT in pixels, for example 640x480, got {shown(cell)}")
        sides = int(match[1]), int(match[2] or match[1])
        if any(side % multiple or not multiple <= side <= largest_side for side in sides):
            raise ValueError(f"must be multiples of {multiple} from {multiple} to {largest_side:,}, got {given}")
        return sides

    return read
