"""Bitmap textures: product patterns and the value noise that the scenes are painted with.

All textures are float32 arrays of linear RGB reflectance in [0, 1], shape (rows, columns, 3). Row 0 is the bottom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.float32]
Field = NDArray[np.float64]
Rgb = tuple[float, float, float]

PATTERN_SIZE = 48


def pattern_texture(pattern: str, main: Rgb, accent: Rgb, variant: int) -> Texture:
    """Paint one tile of a product pattern, shape (48, 48, 3); it repeats without a seam in both directions.

    `variant` (any non-negative integer) chooses direction, count and phase. The motifs are a quarter to a third of the
    tile so that they survive at 64 pixels too, where a tile covers about 35 pixels.

    Raises:
        ValueError: if `pattern` is not one of `factors.PATTERNS`.
    """
    v, u = (np.mgrid[0:PATTERN_SIZE, 0:PATTERN_SIZE] + 0.5) / PATTERN_SIZE
    count = 3 + variant % 2
    phase = (variant // 2 % 4) / 4
    if pattern == "plain":
        motif = np.zeros_like(u)
    elif pattern == "striped":
        direction = (v, u, u + v)[variant // 8 % 3]
        motif = np.sin(2 * np.pi * (count * direction + phase)) > 0
    elif pattern == "dotted":
        row = np.floor(v * 4)
        across = np.mod(u * 3 + 0.5 * np.mod(row, 2) + phase, 1) - 0.5
        motif = (across / 3) ** 2 + ((np.mod(v * 4, 1) - 0.5) / 4) ** 2 < 0.095**2
    elif pattern == "checkered":
        motif = np.mod(np.floor(u * 4) + np.floor(v * 4), 2) > 0
    else:
        raise ValueError(f"pattern: got {pattern!r}, expected one of plain, striped, dotted, checkered")
    weight = motif.astype(np.float32)[..., None]
    tile: Texture = (np.asarray(main) * (1 - weight) + np.asarray(accent) * weight).astype(np.float32)
    return tile


def value_noise(rng: np.random.Generator, size: int, octaves: int = 4) -> Field:
    """Sum of bilinearly interpolated random grids (value noise), scaled to [0, 1], shape (size, size)."""
    total = np.zeros((size, size))
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        grid = rng.random((cells + 1, cells + 1))
        position = np.linspace(0, cells, size, endpoint=False)
        low = position.astype(int)
        part = position - low
        along = grid[:, low] * (1 - part) + grid[:, low + 1] * part
        total += (along[low] * (1 - part[:, None]) + along[low + 1] * part[:, None]) / 1.6**octave
    scaled: Field = (total - total.min()) / (np.ptp(total) + 1e-9)
    return scaled


def blend(first: Rgb, second: Rgb, weight: Field) -> Field:
    """Mix two colours by a field of weights in [0, 1]: shape (rows, columns) to (rows, columns, 3)."""
    clipped = np.clip(weight, 0, 1)[..., None]
    mixed: Field = np.asarray(first) * (1 - clipped) + np.asarray(second) * clipped
    return mixed
