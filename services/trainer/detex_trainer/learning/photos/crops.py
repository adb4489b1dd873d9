"""Square crops of photos that keep the subject whole, with small shifts and zooms.

All boxes are in pixels of the photo and may overhang it: what overhangs is filled with the photo's own edge and marked
as not valid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from detex_trainer.domain.views import View
from detex_trainer.intake.masks import Box, Mask, mask_to_image
from detex_trainer.learning.photos.box_resizing import Resampling, resize_box

_MARGIN = 1.04  # of the subject's box where the crop must grow beyond the photo's shorter side


@dataclass(frozen=True)
class Augmentation:
    """How much a crop may vary.

    Attributes:
        largest_zoom: The side is divided or multiplied by at most this, at least 1.
        largest_shift: Share of the side by which the crop moves at most, each way.
        mirror: Whether half of the crops are mirrored; wrong for lettering and for poses that name a side.
    """

    largest_zoom: float = 1.15
    largest_shift: float = 0.08
    mirror: bool = False


_SMALLEST_SCALE, _PLAIN_SCALE, _NEAR_SCALES, _NEAR_SHARE = 1 / 3, 0.6, (1.2, 1.4), 1 / 3


@dataclass(frozen=True)
class Crop:
    """A photo cut out and resized.

    Attributes:
        picture: RGB, side x side.
        mask: Grey, side x side, white is the subject.
        valid: Grey, side x side, black where the picture was filled up.
    """

    picture: Image.Image
    mask: Image.Image
    valid: Image.Image


def subject_crop(width: int, height: int, subject: Box) -> Box:
    """The square that shows the most of a photo and all of its subject.

    Its side is the photo's shorter one, or more where the subject is longer than that. It lies as near to the middle of
    the photo as the subject allows.
    """
    side = min(width, height)
    if max(subject.width, subject.height) > side:
        side = round(max(subject.width, subject.height) * _MARGIN)
    left = _placed((width - side) // 2, side, subject.left, subject.right)
    top = _placed((height - side) // 2, side, subject.top, subject.bottom)
    return Box(left, top, left + side, top + side)


def varied_crop(crop: Box, subject: Box, augmentation: Augmentation, generator: torch.Generator) -> Box:
    """The crop after a random zoom and shift that keep the subject whole."""
    zoom, right, down = (2 * torch.rand(3, generator=generator) - 1).tolist()
    side = max(round(crop.width * augmentation.largest_zoom**zoom), subject.width, subject.height)
    left = (crop.left + crop.right - side) // 2 + round(right * augmentation.largest_shift * side)
    top = (crop.top + crop.bottom - side) // 2 + round(down * augmentation.largest_shift * side)
    left = _placed(left, side, subject.left, subject.right)
    top = _placed(top, side, subject.top, subject.bottom)
    return Box(left, top, left + side, top + side)


def resized_crop(crop: Box, generator: torch.Generator) -> tuple[Box, View]:
    """The crop as Custom Diffusion resizes it (Kumari et al. 2023, section 3.3), at a random place.

    Two thirds show the crop at 1/3 to 1 of its size on a larger square, small where below 0.6; the others a part of it
    at 1.2 to 1.4 of its size.
    """
    near, size, right, down = torch.rand(4, generator=generator).tolist()
    smallest, largest = _NEAR_SCALES if near < _NEAR_SHARE else (_SMALLEST_SCALE, 1.0)
    scale = smallest + (largest - smallest) * size
    side = max(1, round(crop.width / scale))
    room = side - crop.width  # negative where only a part is shown
    left, top = crop.left - round(right * room), crop.top - round(down * room)
    view = View.NEAR if scale > 1 else View.SMALL if scale < _PLAIN_SCALE else View.AS_IT_IS
    return Box(left, top, left + side, top + side), view


def cut(picture: Image.Image, mask: Mask, box: Box, side: int, *, mirrored: bool = False) -> Crop:
    """Cut a square out of a photo and resize it.

    Args:
        picture: RGB, W x H.
        mask: (H, W).
        box: Square, may overhang.
        side: Side of the result in pixels.
        mirrored: Swap left and right.
    """
    everywhere = np.broadcast_to(np.uint8(255), mask.shape)
    crop = Crop(
        resize_box(np.asarray(picture), box, side, Resampling.LANCZOS),
        resize_box(np.asarray(mask_to_image(mask)), box, side, Resampling.BOX),
        resize_box(everywhere, box, side, Resampling.BOX, fill="black"),
    )
    if not mirrored:
        return crop
    swap = Image.Transpose.FLIP_LEFT_RIGHT
    return Crop(crop.picture.transpose(swap), crop.mask.transpose(swap), crop.valid.transpose(swap))


def _placed(start: int, side: int, subject_start: int, subject_end: int) -> int:
    """Move an interval of length `side` as little as possible so that it holds the subject's."""
    return min(max(start, subject_end - side), subject_start)
