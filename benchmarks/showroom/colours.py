"""Colours as people tell them apart: CIE L*a*b* (D65) of linear RGB, and the nearest name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.showroom.factors import COLOURS

# IEC 61966-2-1: linear sRGB to XYZ, and its white.
_TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE: Final = _TO_XYZ.sum(axis=1)
_LINEAR_BELOW: Final = (6 / 29) ** 3


def lab(linear_rgb: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """L*, a* and b* (..., 3) of linear RGB (..., 3) in [0, 1]."""
    ratio = np.asarray(linear_rgb, np.float64) @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > _LINEAR_BELOW, np.cbrt(np.maximum(ratio, 0)), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def delta_e(first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]) -> float:
    """Difference of two linear RGB colours, CIE 1976: 2 is just seen, 100 is black against white."""
    return float(np.linalg.norm(lab(first) - lab(second)))


def nearest_name(linear_rgb: Sequence[float]) -> str:
    """The named colour that is nearest by `delta_e`."""
    return min(COLOURS, key=lambda name: delta_e(linear_rgb, COLOURS[name]))
