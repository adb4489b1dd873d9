"""Badges: a grid of cells in two colours on the product's front, which tells one individual from another.

A badge is a decal: a small sheet that follows the surface, put where the front is widest and smoothest. Where that is
follows from a picture of the product's depth as seen from its front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import mitsuba
import numpy as np
from numpy.typing import NDArray

from benchmarks.showroom.products import Part, joined
from benchmarks.showroom.subject import BADGE_SIDE, Subject
from benchmarks.showroom.textures import Texture

_RAYS: Final = 48
"""Of the picture of the depth, along each side."""
_SIDES: Final = (17, 15, 13, 11, 9, 7)
_SMALLEST_SIDES: Final = (5, 3)
"""Sides of the badge that are tried, in rays, the largest first; the smallest only where there is no other place."""
_LARGEST_RELIEF: Final = 0.35
"""Of its side: how deep the surface may be bent below a badge; where all places are worse, the smoothest is taken."""
_LIFT: Final = 0.025
"""Of half the product's size: how far the sheet lies before the nearest point around each of its own."""
_CELL_PIXELS: Final = 16
_RIM_PIXELS: Final = 8


def badge_texture(subject: Subject) -> Texture:
    """The cells within a rim of the light colour, (64, 64, 3) linear RGB, row 0 at the bottom.

    Raises:
        ValueError: if the subject has no badge.
    """
    if not subject.badge or subject.badge_rgb is None:
        raise ValueError("badge: the subject has none")
    light, dark = (np.asarray(colour, np.float32) for colour in subject.badge_rgb)
    cells = np.asarray(subject.badge, bool).reshape(BADGE_SIDE, BADGE_SIDE)[::-1]
    inner = np.where(np.kron(cells, np.ones((_CELL_PIXELS, _CELL_PIXELS), bool))[..., None], dark, light)
    side = BADGE_SIDE * _CELL_PIXELS + 2 * _RIM_PIXELS
    texture: Texture = np.broadcast_to(light, (side, side, 3)).astype(np.float32).copy()
    texture[_RIM_PIXELS:-_RIM_PIXELS, _RIM_PIXELS:-_RIM_PIXELS] = inner
    return texture


def badge_sheet(parts: Sequence[Part]) -> Part:
    """The sheet of a badge on a product's front (towards -y), with texture coordinates from 0 to 1."""
    vertices = np.concatenate([part.vertices for part in parts])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    half = 0.52 * float(max(high[0] - low[0], high[2] - low[2]))
    centre = (low + high) / 2
    depth, hit = _front(parts, centre, half, float(low[1]))
    row, column, side = _place(depth, hit)
    step = 2 * half / _RAYS
    # Pixel 0 of the depth's first row is at the upper left, as the camera sees the front.
    across = centre[0] - half + (column + np.arange(side) + 0.5) * step
    down = centre[2] + half - (row + np.arange(side) + 0.5) * step
    x, z = np.meshgrid(across, down)
    around = np.pad(np.where(hit, depth, np.inf), 1, constant_values=np.inf)
    nearest = np.lib.stride_tricks.sliding_window_view(around, (3, 3)).min(axis=(2, 3))
    y = nearest[row : row + side, column : column + side] - _LIFT * half
    u, v = np.meshgrid(np.linspace(0, 1, side), np.linspace(1, 0, side))
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    return Part(np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1), faces, np.stack([u.ravel(), v.ravel()], axis=1))


def _front(
    parts: Sequence[Part], centre: NDArray[np.float64], half: float, nearest: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The y coordinate (rays, rays) of what is seen from the front, and where anything is."""
    whole = joined(list(parts))
    mesh = mitsuba.Mesh("product", len(whole.vertices), len(whole.faces))
    buffers = mitsuba.traverse(mesh)
    buffers["vertex_positions"] = whole.vertices.ravel().astype(np.float32)
    buffers["faces"] = whole.faces.ravel().astype(np.uint32)
    buffers.update()
    transform = mitsuba.ScalarTransform4f()
    eye = [float(centre[0]), nearest - 1.0, float(centre[2])]
    look = transform.look_at(origin=eye, target=[eye[0], eye[1] + 1.0, eye[2]], up=[0, 0, 1])
    scene = mitsuba.load_dict(
        {
            "type": "scene",
            "product": mesh,
            "front": {
                "type": "orthographic",
                # Mitsuba's camera looks along +z with +x to its left.
                "to_world": look @ transform.scale([half, half, 1]),
                "film": {
                    "type": "hdrfilm",
                    "width": _RAYS,
                    "height": _RAYS,
                    "rfilter": {"type": "box"},
                    "pixel_format": "rgb",
                    "component_format": "float32",
                },
                "sampler": {"type": "independent", "sample_count": 1},
            },
        },
        parallel=False,
    )
    depths = mitsuba.load_dict({"type": "aov", "aovs": "depth:depth"})
    seen = np.asarray(mitsuba.render(scene, integrator=depths, seed=0))[..., -1].astype(np.float64)
    return seen + nearest - 1.0, seen > 0


def _place(depth: NDArray[np.float64], hit: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Row, column and side of the largest square that lies on the product and is smooth, near the product's middle."""
    rows, columns = np.nonzero(hit)
    middle = np.array([rows.mean(), columns.mean()])
    step = 2 / _RAYS
    best: tuple[float, int, int, int] | None = None
    for side in (*_SIDES, *_SMALLEST_SIDES):
        if best is not None and side in _SMALLEST_SIDES:
            break
        windows = np.lib.stride_tricks.sliding_window_view(hit, (side, side)).all(axis=(2, 3))
        if not windows.any():
            continue
        relief = np.lib.stride_tricks.sliding_window_view(np.where(hit, depth, 0.0), (side, side))
        range_of = np.ptp(relief.reshape(*relief.shape[:2], -1), axis=2)
        for row, column in np.argwhere(windows):
            away = float(np.hypot(*(np.array([row, column]) + side / 2 - middle))) / _RAYS
            cost = float(range_of[row, column]) / (side * step) + 0.6 * away
            if best is None or cost < best[0]:
                best = (cost, int(row), int(column), side)
        if best is not None and best[0] < _LARGEST_RELIEF:
            break
    if best is None:
        raise ValueError("badge: the product has no place for one")
    return best[1:]
