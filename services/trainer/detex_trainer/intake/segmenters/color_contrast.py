"""The built-in segmenter: the subject is what differs in colour from the border of the photo.

In the manner of GrabCut (Rother et al., 2004): two Gaussian mixtures over colours, one begun on the border of the photo
and one on what the first explains badly, refitted in turns; in place of a graph cut the evidence is smoothed along the
picture's own edges with a guided filter (He et al., 2010). It needs no weights and takes about half a second. It serves
product photos before calm surroundings; a subject of its background's colour, or one that touches most of the border,
needs a mask sent with the photo or a learned segmenter.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detex_core.errors import FailedPreconditionError
from detex_trainer.intake.masks import Mask
from detex_trainer.intake.segmenters.color_model import Array, fit_color_model

_WORKING_SIDE: Final = 128  # pixels of the longer side
_BORDER: Final = 0.08  # of each side
_ROUNDS: Final = 4
_SUBJECT_COLORS: Final = 3  # fewer than around it: a subject may not explain its surroundings as well
_SURROUNDINGS_COLORS: Final = 8
_CLEAR_EVIDENCE: Final = 2.0  # log odds above which a pixel serves to refit the subject's colours
_SMALLEST_SUBJECT: Final = 16  # pixels at working size
_SMALLEST_CONTRAST: Final = 1.0  # mean log odds by colour on the subject
_SMALLEST_SHARE: Final = 0.005
_LARGEST_SHARE: Final = 0.9


class SubjectNotFoundError(FailedPreconditionError):
    """The segmenter found no subject; a mask or an alpha channel would help."""

    reason = "SUBJECT_NOT_FOUND"


class ColorContrastSegmenter:
    """Tells the subject from its surroundings by colour; deterministic."""

    def segment(self, photo: Image.Image) -> Mask:
        """The subject's mask (H, W), hard but for its border; raises SubjectNotFoundError."""
        scale = min(1.0, _WORKING_SIDE / max(photo.size))
        size = (max(8, round(photo.width * scale)), max(8, round(photo.height * scale)))
        lab = _cielab(np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BOX), dtype=np.float64) / 255)
        evidence, contrast = _evidence(lab)
        # thin bridges to regions of like colour must not carry the mask along
        thickness = _detail_radius(*evidence.shape)
        mask = _dilated(_largest_region(_eroded(evidence > 0, thickness)), thickness)
        share = float(mask.mean())
        stands_out = bool(mask.any()) and float(contrast[mask].mean()) >= _SMALLEST_CONTRAST
        if not stands_out or not _SMALLEST_SHARE <= share <= _LARGEST_SHARE:
            raise SubjectNotFoundError(
                f"No subject could be separated from the background by colour (the best guess covers {share:.0%} of "
                "the photo). Send a mask with the photo, or a photo with an alpha channel."
            )
        soft = Image.fromarray(mask.astype(np.float32)).resize(photo.size, Image.Resampling.BILINEAR)
        return np.asarray(soft, dtype=np.float32).clip(0, 1)


def _evidence(lab: Array) -> tuple[Array, Array]:
    """Two maps (h, w), above 0 where the subject is likelier than its surroundings: smoothed, and by colour alone."""
    height, width, _ = lab.shape
    colors = lab.reshape(-1, 3)
    border = _border(height, width).ravel()
    near_middle = _middle_prior(height, width).ravel()
    surroundings = fit_color_model(colors[border], np.ones(int(border.sum())), components=_SURROUNDINGS_COLORS)
    surprise = -surroundings.log_likelihood(colors) + near_middle
    threshold = np.quantile(surprise[border], 0.9)
    subject = (surprise > threshold) & ~border
    if subject.sum() < _SMALLEST_SUBJECT:
        return np.full((height, width), -1.0), np.zeros((height, width))
    guide, radius = lab[..., 0] / 100, _detail_radius(height, width)
    evidence = contrast = np.zeros((height, width))
    for _ in range(_ROUNDS):
        model = fit_color_model(colors, subject.astype(np.float64) + 1e-6, _SUBJECT_COLORS)
        surroundings = fit_color_model(colors, (~subject).astype(np.float64) + 1e-6, _SURROUNDINGS_COLORS)
        ratio = model.log_likelihood(colors) - surroundings.log_likelihood(colors)
        contrast = ratio.clip(-6, 6).reshape(height, width)
        evidence = _guided_filter(guide, contrast + near_middle.reshape(height, width), radius)
        subject = (evidence.ravel() > _CLEAR_EVIDENCE) & ~border
        if subject.sum() < _SMALLEST_SUBJECT:
            break
    return evidence, contrast


def _detail_radius(height: int, width: int) -> int:
    """Size in pixels below which details are taken for noise."""
    return max(1, round(max(height, width) / 64))


def _eroded(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """The mask without a rim of so many pixels."""
    return ~_dilated(~mask, times)


def _dilated(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """The mask with a rim of so many pixels."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        mask = mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _border(height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = max(1, round(height * _BORDER)), max(1, round(width * _BORDER))
    border = np.ones((height, width), dtype=bool)
    border[rows:-rows, columns:-columns] = False
    return border


def _middle_prior(height: int, width: int) -> Array:
    """Log odds that a place belongs to the subject: +1 in the middle, falling to -2 at the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    prior: Array = 1 - 1.5 * (x**2 + y**2)
    return prior


def _cielab(rgb: Array) -> Array:
    """SRGB (h, w, 3) from 0 to 1 to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.asarray([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.asarray([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def _guided_filter(guide: Array, values: Array, radius: int, epsilon: float = 1e-3) -> Array:
    """Smooth `values` (h, w) but not across edges of `guide` (h, w)."""
    mean_guide, mean_values = _box_mean(guide, radius), _box_mean(values, radius)
    variance = _box_mean(guide * guide, radius) - mean_guide**2
    slope = (_box_mean(guide * values, radius) - mean_guide * mean_values) / (variance + epsilon)
    offset = mean_values - slope * mean_guide
    return np.asarray(_box_mean(slope, radius) * guide + _box_mean(offset, radius))


def _box_mean(values: Array, radius: int) -> Array:
    padded = np.pad(values, radius + 1, mode="edge").cumsum(axis=0).cumsum(axis=1)
    side = 2 * radius + 1
    total = padded[side:-1, side:-1] - padded[: -side - 1, side:-1] - padded[side:-1, : -side - 1]
    return np.asarray((total + padded[: -side - 1, : -side - 1]) / side**2)


def _largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected region of a mask, with its holes filled."""
    left = mask.copy()
    largest, largest_size = np.zeros_like(mask), 0
    while left.any():
        y, x = divmod(int(np.argmax(left)), left.shape[1])
        region = _connected_region(left, y, x)
        left &= ~region
        if region.sum() > largest_size:
            largest, largest_size = region, int(region.sum())
    outside = _connected_region(np.pad(~largest, 1, constant_values=True), 0, 0)  # the rest is the region and its holes
    return ~outside[1:-1, 1:-1]


def _connected_region(mask: NDArray[np.bool_], y: int, x: int) -> NDArray[np.bool_]:
    """All that is True and reached from (y, x) by steps up, down, left and right."""
    height, width = mask.shape
    region = np.zeros_like(mask)
    region[y, x] = True
    pending = deque([(y, x)])
    while pending:
        y, x = pending.popleft()
        for row, column in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= row < height and 0 <= column < width
            if inside and mask[row, column] and not region[row, column]:
                region[row, column] = True
                pending.append((row, column))
    return region
