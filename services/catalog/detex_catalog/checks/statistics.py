"""Statistics of colour and structure of a picture, by plain arithmetic: no weights, nothing learned.

Colour: a histogram over CIE L*a*b* bins, smoothed in a* and b*. Structure: histograms of rotation-invariant uniform
local binary patterns of the lightness at two radii (Ojala, Pietikainen and Maenpaa, 2002), which tell stripes, dots and
plain surfaces apart wherever they lie.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SIDE = 128
"""Longer side in pixels that pictures are brought to."""
_LIGHTNESS_BINS, _HUE_BINS = 3, 16
_HUE_RANGE = 96.0
_RADII = (1, 2)
_SMOOTHING = 0.7

Array = NDArray[np.float32]


@dataclass(frozen=True)
class PictureStatistics:
    """What is compared of one picture (h x w pixels after scaling).

    Attributes:
        bins: (h, w) colour bin of each pixel.
        patterns: (radii, h, w) local binary pattern of each pixel, 0 to 9.
        weights: (h, w) how much each pixel belongs to the product, 0 to 1; where nobody knows, the middle counts most.
    """

    bins: NDArray[np.intp]
    patterns: NDArray[np.intp]
    weights: Array

    @property
    def share(self) -> float:
        """Share of the picture that the product takes."""
        return float(self.weights.mean())

    def colours(self, weights: Array | None = None) -> Array:
        """Smoothed colour histogram, (colour bins,), which sums to 1; over the product's pixels by default."""
        shape = (_LIGHTNESS_BINS, _HUE_BINS, _HUE_BINS)
        chosen = self.weights if weights is None else weights
        counts = np.bincount(self.bins.ravel(), chosen.ravel(), minlength=int(np.prod(shape)))
        smooth = ndimage.gaussian_filter(counts.reshape(shape), (0.5, _SMOOTHING, _SMOOTHING), mode="constant").ravel()
        shares: Array = (smooth / max(smooth.sum(), 1e-12)).astype(np.float32)
        return shares

    def structure(self, weights: Array | None = None) -> Array:
        """Histograms of patterns, (radii, 10), each of which sums to 1; over the product's pixels by default."""
        chosen = (self.weights if weights is None else weights).ravel()
        rows = [np.bincount(patterns.ravel(), chosen, minlength=10) for patterns in self.patterns]
        return np.stack([row / max(row.sum(), 1e-12) for row in rows]).astype(np.float32)


def statistics_of(image: Image.Image, mask: Image.Image | None = None) -> PictureStatistics:
    """The statistics of a picture.

    Args:
        image: In any size; transparent pixels are not the product.
        mask: The product in white on black, of the same size; None takes the product to be in the middle.
    """
    scale = SIDE / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    if mask is None and "A" in image.getbands():
        mask = image.getchannel("A")
    small = image.convert("RGB").resize(size, Image.Resampling.BOX)
    lab = lab_of(np.asarray(small, dtype=np.float32) / np.float32(255))
    if mask is None:
        weights = _middle(lab.shape[0], lab.shape[1])
    else:
        grey = np.asarray(mask.convert("L").resize(size, Image.Resampling.BOX), dtype=np.float32)
        weights = grey / np.float32(255)
    return PictureStatistics(_colour_bins(lab), _patterns(lab[..., 0]), weights)


def lab_of(rgb: Array) -> Array:
    """CIE L*a*b* (D65) of sRGB values from 0 to 1; both (h, w, 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    white = np.array([0.95047, 1.0, 1.08883])
    ratio = linear @ to_xyz.T / white
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _middle(height: int, width: int) -> Array:
    """(height, width): 1 in the middle, 0.13 in the middle of each side."""
    rows, columns = np.linspace(-2, 2, height)[:, None], np.linspace(-2, 2, width)[None, :]
    return np.exp(-(rows**2 + columns**2) / 2).astype(np.float32)


def _colour_bins(lab: Array) -> NDArray[np.intp]:
    lightness = np.clip(lab[..., 0] / 100 * _LIGHTNESS_BINS, 0, _LIGHTNESS_BINS - 1).astype(np.intp)
    hues = np.clip((lab[..., 1:] + _HUE_RANGE) / (2 * _HUE_RANGE) * _HUE_BINS, 0, _HUE_BINS - 1).astype(np.intp)
    bins: NDArray[np.intp] = (lightness * _HUE_BINS + hues[..., 0]) * _HUE_BINS + hues[..., 1]
    return bins


def _patterns(lightness: Array) -> NDArray[np.intp]:
    """(radii, h, w): how many of 8 neighbours are lighter where they are so in one run, 9 where they are not."""
    found = []
    for radius in _RADII:
        padded = np.pad(lightness, radius, mode="reflect")
        height, width = lightness.shape
        offsets = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
        lighter = np.stack(
            [
                padded[radius * (1 + dy) : radius * (1 + dy) + height, radius * (1 + dx) : radius * (1 + dx) + width]
                > lightness + 2.0
                for dy, dx in offsets
            ]
        )
        changes = (lighter != np.roll(lighter, 1, axis=0)).sum(axis=0)
        found.append(np.where(changes <= 2, lighter.sum(axis=0), 9))
    return np.stack(found).astype(np.intp)
