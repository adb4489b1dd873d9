"""Free profiles: what makes two products of one class and one set of proportions differ in their outline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.showroom.products.primitives import Part

PROFILE_PARAMETERS: Final = 4
"""Taper, waist, upper bulge and skew of a product, each in [0, 1]; 0.5 leaves it as its class has it."""

_LARGEST_TAPER: Final = 0.32
_LARGEST_WAIST: Final = 0.26
_LARGEST_BULGE: Final = 0.24
_LARGEST_SKEW: Final = 0.16
_LONGEST_EDGE: Final = 0.16  # of the product's height: longer ones are divided, or they would not bend


def with_profile(parts: Sequence[Part], profile: Sequence[float]) -> list[Part]:
    """The parts of a product, its width at each height changed by its profile.

    Args:
        parts: z up.
        profile: `PROFILE_PARAMETERS` numbers in [0, 1], or none.

    Raises:
        ValueError: if there are other numbers of them, or one is out of range.
    """
    if not profile:
        return list(parts)
    if len(profile) != PROFILE_PARAMETERS or not all(0 <= value <= 1 for value in profile):
        raise ValueError(f"profile: got {list(profile)}, expected {PROFILE_PARAMETERS} numbers in [0, 1]")
    taper, waist, bulge, skew = (2 * value - 1 for value in profile)
    everything = np.concatenate([part.vertices for part in parts])
    low, high = everything[:, 2].min(), everything[:, 2].max()
    span = max(float(high - low), 1e-9)
    bent = []
    for part in parts:
        fine = _divided(part, _LONGEST_EDGE * span)
        height = (fine.vertices[:, 2] - low) / span  # 0 at the foot, 1 at the top
        width = 1 + taper * _LARGEST_TAPER * (2 * height - 1)
        width += waist * _LARGEST_WAIST * np.sin(np.pi * height)
        width += bulge * _LARGEST_BULGE * np.exp(-(((height - 0.75) / 0.16) ** 2))
        vertices = fine.vertices * np.stack([width, width, np.ones_like(width)], axis=1)
        vertices[:, 0] += skew * _LARGEST_SKEW * span * (height - 0.5)
        bent.append(replace(fine, vertices=vertices))
    return bent


def _divided(part: Part, longest: float, rounds: int = 3) -> Part:
    """The same surface with triangles whose edges rise by no more than a length, by halving edges."""
    vertices, faces, coordinates = part.vertices, part.faces, part.texture_coordinates
    for _ in range(rounds):
        heights = vertices[faces][..., 2]  # (m, 3)
        if np.ptp(heights, axis=1).max(initial=0.0) <= longest:
            break
        vertices, faces, coordinates = _halved(vertices, faces, coordinates)
    return replace(part, vertices=vertices, faces=faces, texture_coordinates=coordinates)


def _halved(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], coordinates: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Each triangle as four, with the middles of its edges as further vertices."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, place = np.unique(edges, axis=0, return_inverse=True)
    first, second, third = (place.reshape(3, -1) + len(vertices)).astype(np.int64)
    a, b, c = faces.T
    fine = [[a, first, third], [first, b, second], [third, second, c], [first, second, third]]
    return (
        np.concatenate([vertices, vertices[unique].mean(axis=1)]),
        np.concatenate([np.stack(corner, axis=1) for corner in fine]),
        np.concatenate([coordinates, coordinates[unique].mean(axis=1)]),
    )
