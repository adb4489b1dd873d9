"""What can be seen of a photo at a glance: how sharp it is, what it looks like, what surrounds the subject.

Legend: H, W of a picture brought down to a small size.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

_SHARPNESS_SIDE: Final = 256  # pixels of the longer side; finer blur than this does not matter to training
_HASH_SIDE: Final = 8
_SURROUNDINGS_SIDE: Final = 64
_COLOR_LEVELS: Final = 6
_FAINT: Final = 2.0  # grey levels; differences below are noise


@dataclass(frozen=True)
class PhotoLook:
    """A photo at a glance.

    Attributes:
        blur: From 0 (sharp) to 1 (blurred), after Crete et al., "The blur effect", 2007; 0 for a picture without edges.
        fingerprint: Difference hash of 64 bits: pictures that look alike differ in few of them; None for a picture that
            shows next to nothing.
        surroundings: Shares of the colours around the subject (216,), which sum to 1; None where nothing is around it.
    """

    blur: float
    fingerprint: int | None
    surroundings: Array | None


def look_at(picture: Image.Image, mask: Image.Image | None) -> PhotoLook:
    """Look at a photo, mode RGB, and its mask, mode L, of the same size; without a mask its border is looked at."""
    return PhotoLook(_blur(picture), _fingerprint(picture), _surroundings(picture, mask))


def likeness(first: PhotoLook, second: PhotoLook) -> float:
    """Share of fingerprint bits that two photos have in common, 0 to 1; 0 where one has none."""
    if first.fingerprint is None or second.fingerprint is None:
        return 0.0
    return 1 - (first.fingerprint ^ second.fingerprint).bit_count() / _HASH_SIDE**2


def shared_surroundings(first: PhotoLook, second: PhotoLook) -> float:
    """How much the colours around two subjects overlap, 0 to 1."""
    if first.surroundings is None or second.surroundings is None:
        return 0.0
    return float(np.minimum(first.surroundings, second.surroundings).sum())


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BOX)


def _blur(picture: Image.Image) -> float:
    grey = np.asarray(_reduced(picture.convert("L"), _SHARPNESS_SIDE), dtype=np.float64)  # (H, W)
    return max(_blur_along(grey), _blur_along(grey.T))


def _blur_along(grey: Array) -> float:
    """Share of the differences between neighbours that survive another blur, along the first axis."""
    if grey.shape[0] < 16:
        return 0.0
    window = 9
    sums = np.pad(grey.cumsum(axis=0), ((1, 0), (0, 0)))
    smooth = (sums[window:] - sums[:-window]) / window
    margin = window // 2
    kept = grey[margin : margin + smooth.shape[0]]
    differences, smooth_differences = np.abs(np.diff(kept, axis=0)), np.abs(np.diff(smooth, axis=0))
    differences = np.where(differences < _FAINT, 0, differences)
    total = float(differences.sum())
    if total == 0:
        return 0.0
    lost = np.maximum(0, differences - smooth_differences).sum()
    return float((total - lost) / total)


def _fingerprint(picture: Image.Image) -> int | None:
    small = picture.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float64)
    if float(grey.std()) < _FAINT:
        return None
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes())


def _surroundings(picture: Image.Image, mask: Image.Image | None) -> Array | None:
    small = np.asarray(_reduced(picture, _SURROUNDINGS_SIDE), dtype=np.int64)  # (H, W, 3)
    height, width = small.shape[:2]
    if mask is not None:
        around = np.asarray(mask.resize((width, height), Image.Resampling.BOX)) < 32
    else:
        around = np.ones((height, width), dtype=bool)
        around[height // 6 : height - height // 6, width // 6 : width - width // 6] = False
    if around.sum() < 0.02 * around.size:
        return None
    levels = small[around] * _COLOR_LEVELS // 256
    bins = (levels[:, 0] * _COLOR_LEVELS + levels[:, 1]) * _COLOR_LEVELS + levels[:, 2]
    counts = np.bincount(bins, minlength=_COLOR_LEVELS**3).astype(np.float64)
    return np.asarray(counts / counts.sum())
