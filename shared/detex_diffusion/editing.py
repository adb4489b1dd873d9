"""Photos as the start or as part of new pictures: sizes, masks, latents to hold on to, and putting both together.

Keeping is told by an array (H, W) float32: 1 where a pixel of the photo stays exactly as it is, 0 where the picture is
redrawn, in between at soft edges. A product to keep and an area to repaint are the same thing seen from two sides.

Legend: H and W height and width in pixels, C latent channels, h and w latent height and width.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn import functional

from detex_diffusion.latents import encode_images, to_pixels

Keeping = NDArray[np.float32]

_FEATHER = 1 / 256  # of the shorter side: how far the photo reaches beyond what is kept, fading
_SHADOW_FLATNESS = 0.16  # height of a contact shadow in its widths
_BAND = 256  # rows of a photo that are put together at a time
_FOOT = 0.15  # lowest part of a product that stands on the ground, of its height


def drawing_size(photo: tuple[int, int], area: int, multiple: int) -> tuple[int, int]:
    """Width and height in which to draw for a photo: multiples of `multiple` nearest to its shape.

    They have `area` pixels at most, and as many as the shape allows; a photo so long and narrow that its shorter side
    would have none is drawn less long.

    Raises:
        ValueError: Not even one multiple by one fits into `area`.
    """
    cells = area // multiple**2  # of the drawing, at most
    if cells < 1:
        raise ValueError(f"area: {area} pixels hold no square of {multiple}")
    width, height = photo
    scale = math.sqrt(area / (width * height)) / multiple
    exact = width * scale, height * scale
    columns, rows = (sorted({max(1, math.floor(side)), max(1, math.ceil(side))}) for side in exact)
    fitting = [(across, down) for across in columns for down in rows if across * down <= cells]
    if not fitting:
        fitting = [(min(columns[0], cells), 1) if width > height else (1, min(rows[0], cells))]
    across, down = min(
        fitting, key=lambda size: (abs(math.log(size[0] / size[1] * height / width)), -size[0] * size[1])
    )
    return across * multiple, down * multiple


def covering(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The photo in a size, scaled to cover it and cut at its centre; as it is where it has that size."""
    width, height = size
    if photo.size == size:
        return photo
    scale = min(photo.width / width, photo.height / height)
    left, top = (photo.width - width * scale) / 2, (photo.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return photo.resize(size, Image.Resampling.LANCZOS, box=box)


def flattened(photo: Image.Image) -> Image.Image:
    """RGB; what is transparent shows white."""
    if photo.mode != "RGBA":
        return photo.convert("RGB")
    white = Image.new("RGBA", photo.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, photo).convert("RGB")


def keeping(photo: Image.Image, mask: Image.Image | None, *, repaint: bool) -> Keeping:
    """Where the photo stays.

    Args:
        photo: RGB, or RGBA whose transparent pixels are never kept.
        mask: Grey, of the photo's size; None takes the photo's transparency alone.
        repaint: White of the mask is to be redrawn, rather than kept.
    """
    kept = np.ones((photo.height, photo.width), dtype=np.float32)
    if mask is not None:
        white = _shares(mask.convert("L"))
        kept = 1 - white if repaint else white
    return kept * _shares(photo.getchannel("A")) if photo.mode == "RGBA" else kept


def held_latents(kept: Keeping, height: int, width: int) -> Tensor:
    """Which latents stay those of the photo: (1, h, w) float32, 1 where all pixels below are kept, else 0."""
    drawn = torch.from_numpy(kept < 0.5).float()[None]
    return 1 - functional.adaptive_max_pool2d(drawn, (height, width))


def photo_latents(vae: Any, photo: Image.Image, size: tuple[int, int], *, cut: bool) -> Tensor:
    """Latents (C, h, w) float32 of a photo, on the device of the VAE.

    Args:
        vae: AutoencoderKL of the base model.
        photo: RGB.
        size: Width and height in which is drawn.
        cut: Fill the size and cut what is over, rather than show all of the photo.
    """
    scaled = covering(photo, size) if cut or photo.size == size else photo.resize(size, Image.Resampling.LANCZOS)
    return encode_images(vae, to_pixels([scaled]))[0].float()


def put_together(photo: Image.Image, drawn: Image.Image, kept: Keeping, *, shadow: float = 0.0) -> Image.Image:
    """The photo where it is kept, and around it what was drawn; in the size of the photo.

    Pixels that are kept in full are the photo's, bit for bit. Just outside, the photo fades into the drawing.

    Args:
        photo: RGB.
        drawn: RGB of any size; scaled to the photo's.
        kept: (H, W) of the photo.
        shadow: Opacity, 0 to 1, of a contact shadow below what is kept; it darkens what was drawn and so has its tint.
    """
    scene = np.asarray(drawn.convert("RGB").resize(photo.size, Image.Resampling.LANCZOS))
    light = 1 - shadow * _contact_shadow(kept) if shadow > 0 else None
    pixels = np.asarray(photo.convert("RGB"))
    share = _feathered(kept)
    together = np.empty_like(pixels)
    # In bands, for numbers of a whole photo would take a gigabyte.
    for top in range(0, len(pixels), _BAND):
        band = slice(top, top + _BAND)
        behind = scene[band].astype(np.float32)
        if light is not None:
            behind *= light[band, :, None]
        mixed = pixels[band] * share[band, :, None] + behind * (1 - share[band, :, None])
        together[band] = np.where(kept[band, :, None] >= 1, pixels[band], np.rint(mixed).clip(0, 255))
    return Image.fromarray(together)


def _feathered(kept: Keeping) -> Keeping:
    """The share of the photo in each pixel: what is kept, and a fading edge outside of it."""
    radius = max(1, round(min(kept.shape) * _FEATHER))
    inside = torch.from_numpy(kept >= 0.5).float()[None, None]
    for axis in ((1, 2 * radius + 1), (2 * radius + 1, 1)):
        inside = functional.avg_pool2d(
            inside, axis, stride=1, padding=(axis[0] // 2, axis[1] // 2), count_include_pad=False
        )
    reaching: Keeping = inside[0, 0].numpy()
    return np.maximum(kept, reaching)


def _contact_shadow(kept: Keeping) -> Keeping:
    """A soft ellipse below what is kept: (H, W) in 0 to 1."""
    height, width = kept.shape
    rows = np.flatnonzero((kept >= 0.5).any(axis=1))
    if not rows.size:
        return np.zeros_like(kept)
    top, bottom = int(rows[0]), int(rows[-1])
    foot = kept[bottom - round((bottom - top) * _FOOT) : bottom + 1] >= 0.5
    columns = np.flatnonzero(foot.any(axis=0))
    left, right = float(columns[0]), float(columns[-1]) + 1
    reach = (right - left) * 0.1
    half = (right - left + 2 * reach) * _SHADOW_FLATNESS / 2
    canvas = Image.new("L", (width, height), 0)
    ImageDraw.Draw(canvas).ellipse((left - reach, bottom - half, right + reach, bottom + half), fill=255)
    return _shares(canvas.filter(ImageFilter.GaussianBlur(half / 2)))


def _shares(grey: Image.Image) -> Keeping:
    """A grey picture as numbers of 0 to 1."""
    return np.asarray(grey, dtype=np.float32) / np.float32(255)
