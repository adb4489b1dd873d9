"""Masks of the subject: arrays of 0 to 1, from a picture, for a crop, at the size of latents.

Shapes: (H, W) of a photo in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.float32]

_ON_SUBJECT = 0.5


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; right and bottom are exclusive and all may lie outside of the picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top


def mask_from_image(image: Image.Image) -> Mask:
    """Grey values of an image (white is the subject) as (H, W) from 0 to 1."""
    return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)


def mask_to_image(mask: Mask) -> Image.Image:
    """The mask as an 8-bit grey image."""
    return Image.fromarray(np.round(mask * 255).clip(0, 255).astype(np.uint8))


def whole_picture(width: int, height: int) -> Mask:
    """The mask of a picture that is all subject."""
    return np.ones((height, width), dtype=np.float32)


def mask_share(mask: Mask) -> float:
    """Share of the picture that the mask covers, 0 to 1."""
    return float(mask.mean())


def subject_box(mask: Mask) -> Box:
    """The smallest box around the subject; the whole picture where the mask is empty."""
    rows = np.flatnonzero((mask >= _ON_SUBJECT).any(axis=1))
    columns = np.flatnonzero((mask >= _ON_SUBJECT).any(axis=0))
    if not rows.size:
        return Box(0, 0, mask.shape[1], mask.shape[0])
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def downsample_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks at the size of latents or attention maps, by the share of each cell that is covered.

    Args:
        masks: (B, 1, H, W).
        height: Height wanted, at most H.
        width: Width wanted, at most W.

    Returns:
        (B, 1, height, width), with the mean of `masks` where the sizes divide.
    """
    # Imported here: those who only look for subjects need no torch, which takes seconds and hundreds of megabytes.
    from torch.nn import functional

    return functional.adaptive_avg_pool2d(masks, (height, width))
