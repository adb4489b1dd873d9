"""A square box of a photo brought to another size, whether or not it overhangs the photo.

What overhangs is never laid out in full: a photo of 16,000 x 60 pixels has boxes of 16,000 x 16,000. Columns and rows
are resized one after the other, as Pillow does it, each with as much of what overhangs as its filter reaches; beyond
that all is one colour.

Legend: H, W of a photo in pixels, C channels.
"""

import math
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detex_trainer.intake.masks import Box

Pixels = NDArray[np.uint8]

_BAND_BYTES = 8 * 1024**2


class Resampling(Enum):
    """A filter of Pillow: its number there, and how far it reaches in pixels of the smaller picture."""

    LANCZOS = (Image.Resampling.LANCZOS, 3.0)
    BOX = (Image.Resampling.BOX, 0.5)


def resize_box(
    pixels: Pixels, box: Box, side: int, resampling: Resampling, *, fill: Literal["edge", "black"] = "edge"
) -> Image.Image:
    """Cut a square out of a photo and resize it; takes memory by the size of photo and result, not of the box.

    Args:
        pixels: (H, W) or (H, W, C).
        box: Square that shows at least one pixel of the photo; may overhang.
        side: Side of the result in pixels.
        resampling: The filter.
        fill: What lies beyond the photo: its edge going on, or black.
    """
    height, width = pixels.shape[:2]
    top, left = max(0, box.top), max(0, box.left)
    shown = pixels[top : min(height, box.bottom), left : min(width, box.right)]
    narrow = _resize_columns(shown, left - box.left, box.width, side, resampling, fill)
    turned = _resize_columns(narrow.swapaxes(0, 1), top - box.top, box.height, side, resampling, fill)
    return Image.fromarray(np.ascontiguousarray(turned.swapaxes(0, 1)))


def _resize_columns(pixels: Pixels, before: int, length: int, side: int, resampling: Resampling, fill: str) -> Pixels:
    """Bring columns to another number.

    Args:
        pixels: (H, W) or (H, W, C).
        before: Columns of the box before the first of these, at least 0.
        length: Columns of the box, at least `before` + W.
        side: Columns of the result.
        resampling: The filter.
        fill: What the other columns of the box hold.
    """
    number, reach = resampling.value
    height, width = pixels.shape[:2]
    support = reach * max(1.0, length / side)
    # Columns of the result that see a column of the photo, and the columns of the box that those see.
    first = max(0, math.floor((before - support) * side / length) - 1)
    last = min(side, math.ceil((before + width + support) * side / length) + 1)
    start = max(0, math.floor(first * length / side - support) - 1)
    end = min(length, math.ceil(last * length / side + support) + 1)
    padding = [(0, 0), (max(0, before - start), max(0, end - before - width))] + [(0, 0)] * (pixels.ndim - 2)
    beyond = [(0, 0), (first, side - last)] + [(0, 0)] * (pixels.ndim - 2)
    span = (first * length / side - start, last * length / side - start)
    band = max(1, _BAND_BYTES // ((end - start) * max(1, math.prod(pixels.shape[2:]))))
    resized = np.empty((height, side, *pixels.shape[2:]), dtype=np.uint8)
    for row in range(0, height, band):
        wide = _padded(pixels[row : row + band], padding, fill)
        picture = Image.fromarray(np.ascontiguousarray(wide))
        seen = picture.resize((last - first, picture.height), number, box=(span[0], 0, span[1], picture.height))
        resized[row : row + band] = _padded(np.asarray(seen), beyond, fill)
    return resized


def _padded(pixels: Pixels, padding: list[tuple[int, int]], fill: str) -> Pixels:
    if not any(before or after for before, after in padding):
        return pixels
    return np.pad(pixels, padding, mode="edge") if fill == "edge" else np.pad(pixels, padding)
