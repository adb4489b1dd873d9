"""Scenes: floor, backdrop and light of every surrounding, painted anew for every photo from its scene seed.

A backdrop's row 0 touches the floor; the camera sees about its lower 85 %, and only the lower third from above. All
colours are linear RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.showroom.textures import Field, Rgb, Texture, blend, value_noise

SIZE: Final = 96


@dataclass(frozen=True)
class Light:
    """Radiance of the surrounding sky and irradiance of the sun or lamp, linear RGB."""

    sky: Rgb
    sun: Rgb


@dataclass(frozen=True)
class Surroundings:
    """What a photo is taken in: two textures of shape (96, 96, 3) and the light."""

    floor: Texture
    backdrop: Texture
    light: Light


DAY: Final = Light((0.50, 0.52, 0.55), (1.5, 1.42, 1.3))
ROOM: Final = Light((0.52, 0.51, 0.49), (1.1, 1.05, 1.0))
LIGHTS: Final[dict[str, Light]] = {
    "forest": Light((0.42, 0.50, 0.38), (1.0, 1.05, 0.8)),
    "city": Light((0.34, 0.33, 0.42), (0.9, 0.8, 0.65)),
    "sunset": Light((0.50, 0.36, 0.34), (1.5, 0.85, 0.5)),
    "stage": Light((0.30, 0.28, 0.28), (1.9, 1.75, 1.5)),
    "space": Light((0.36, 0.36, 0.46), (1.3, 1.3, 1.45)),
    "underwater": Light((0.30, 0.50, 0.60), (0.8, 1.15, 1.25)),
    "kitchen": ROOM,
    "library": Light((0.46, 0.43, 0.38), (1.1, 1.0, 0.85)),
    "studio": ROOM,
    "wooden table": ROOM,
    "chessboard": ROOM,
}


class _Canvas:
    """What the painters share: noise, and `x` to the right and `h` upwards in [0, 1], all of shape (96, 96)."""

    def __init__(self, rng: np.random.Generator) -> None:
        h, x = (np.mgrid[0:SIZE, 0:SIZE] + 0.5) / SIZE
        self.rng = rng
        self.x: Field = x
        self.h: Field = h
        self.noise = value_noise(rng, SIZE)
        self.phase = float(rng.random())

    def plain(self, colour: Rgb) -> Field:
        area: Field = np.ones((SIZE, SIZE, 1)) * np.asarray(colour)
        return area


def _beach(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.35, 0.66, 0.92), (0.12, 0.36, 0.82), c.h)
    sea = c.h < 0.36
    wall[sea] = np.asarray((0.01, 0.20, 0.42)) * (0.8 + 0.5 * c.noise[sea][:, None])
    wall[c.h < 0.05] = (0.85, 0.92, 0.95)
    return blend((0.70, 0.52, 0.26), (0.86, 0.70, 0.42), c.noise), wall


def _forest(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.012, 0.06, 0.014), (0.05, 0.18, 0.04), c.noise)
    wall[np.sin(c.x * 38 + c.phase * 6.3 + c.noise) > 0.6] = (0.13, 0.06, 0.025)
    return blend((0.03, 0.075, 0.015), (0.13, 0.13, 0.035), c.noise), wall


def _snow(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.70, 0.80, 0.90), (0.42, 0.56, 0.74), c.h)
    for tree in range(5):
        middle = (tree + 0.5 + 0.5 * (c.phase - 0.5)) / 5
        top = 0.42 + 0.2 * float(c.rng.random())
        wall[(c.h < top) & (np.abs(c.x - middle) < 0.09 * (1 - c.h / top))] = (0.06, 0.20, 0.17)
    return blend((0.72, 0.79, 0.88), (0.88, 0.92, 0.96), c.noise), wall


def _desert(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.92, 0.72, 0.42), (0.40, 0.58, 0.80), c.h)
    wall[c.h < 0.28 + 0.16 * np.sin(c.x * 7 + c.phase * 6.3)] = (0.58, 0.24, 0.06)
    return blend((0.66, 0.30, 0.08), (0.80, 0.42, 0.14), 0.5 + 0.5 * np.sin(c.h * 40 + 5 * c.noise)), wall


def _city(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.05, 0.03, 0.12), (0.006, 0.006, 0.04), c.h)
    heights = np.asarray([0.75, 0.5, 0.9, 0.6, 0.8, 0.45, 0.7]) + 0.1 * (c.rng.random(7) - 0.5)
    house = c.h < heights[(c.x * 7).astype(int)]
    wall[house] = (0.03, 0.03, 0.045)
    lit = (np.mod(c.x * 21, 1) < 0.55) & (np.mod(c.h * 14, 1) < 0.5)
    shine = c.rng.random((16, 24))[(c.h * 14).astype(int), (c.x * 21).astype(int)] > 0.35
    wall[house & lit & shine] = (0.95, 0.70, 0.22)
    floor = blend((0.035, 0.035, 0.045), (0.07, 0.07, 0.08), c.noise)
    floor[(np.abs(c.h - 0.3) < 0.02) | (np.abs(c.h - 0.85) < 0.02)] = (0.7, 0.6, 0.1)
    return floor, wall


def _brick_wall(c: _Canvas) -> tuple[Field, Field]:
    row = np.floor(c.h * 11)
    across = np.mod(c.x * 7 + 0.5 * np.mod(row, 2), 1)
    wall = blend((0.32, 0.07, 0.035), (0.46, 0.13, 0.07), c.noise)
    wall[(across < 0.09) | (np.mod(c.h * 11, 1) < 0.17)] = (0.58, 0.54, 0.48)
    floor = blend((0.16, 0.16, 0.16), (0.26, 0.26, 0.25), c.noise)
    return floor, wall


def _wooden_table(c: _Canvas) -> tuple[Field, Field]:
    grain = 0.5 + 0.5 * np.sin(c.h * 34 + c.noise * 7)
    return blend((0.17, 0.06, 0.015), (0.38, 0.17, 0.05), grain), blend((0.62, 0.54, 0.36), (0.72, 0.65, 0.48), c.h)


def _meadow(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.50, 0.75, 0.93), (0.16, 0.42, 0.86), c.h)
    cloud = np.clip(value_noise(c.rng, SIZE, 3) * 3 - 1.8, 0, 1) * (c.h > 0.3)
    wall = wall * (1 - cloud[..., None]) + 0.92 * cloud[..., None]
    wall[c.h < 0.14 + 0.08 * np.sin(c.x * 5 + c.phase * 6.3)] = (0.06, 0.26, 0.03)
    floor = blend((0.06, 0.28, 0.015), (0.16, 0.44, 0.05), c.noise)
    floor[c.rng.random((24, 24)).repeat(4, 0).repeat(4, 1) > 0.95] = (0.92, 0.85, 0.2)
    return floor, wall


def _kitchen(c: _Canvas) -> tuple[Field, Field]:
    wall = c.plain((0.40, 0.68, 0.60)) * (0.94 + 0.1 * c.noise[..., None])
    wall[(np.mod(c.x * 7 + c.phase, 1) < 0.1) | (np.mod(c.h * 7, 1) < 0.1)] = (0.85, 0.88, 0.86)
    floor = blend((0.50, 0.50, 0.51), (0.66, 0.66, 0.67), c.noise**2)
    return floor, wall


def _sunset(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.95, 0.34, 0.05), (0.20, 0.03, 0.20), c.h * 1.25)
    wall[(c.x - 0.3 - 0.4 * c.phase) ** 2 + (c.h - 0.3) ** 2 < 0.018] = (1.0, 0.82, 0.25)
    return blend((0.05, 0.015, 0.05), (0.13, 0.04, 0.08), c.noise), wall


def _studio(c: _Canvas) -> tuple[Field, Field]:
    grey = 0.42 + 0.14 * c.phase
    return c.plain((grey, grey, grey)), blend((grey, grey, grey), (grey * 0.55,) * 3, c.h)


def _stage(c: _Canvas) -> tuple[Field, Field]:
    folds = 0.5 + 0.5 * np.sin(c.x * 42 + c.phase * 6.3 + c.noise)
    boards = np.where(np.mod(c.x * 9, 1) < 0.08, 0.0, 0.5 + 0.5 * c.noise)
    return blend((0.05, 0.02, 0.008), (0.22, 0.09, 0.03), boards), blend(
        (0.13, 0.003, 0.006), (0.50, 0.012, 0.02), folds
    )


def _library(c: _Canvas) -> tuple[Field, Field]:
    shelf, book = (c.h * 5).astype(int), (c.x * 22).astype(int)
    covers = np.asarray([(0.4, 0.05, 0.04), (0.05, 0.2, 0.1), (0.06, 0.1, 0.3), (0.5, 0.32, 0.08), (0.35, 0.3, 0.25)])
    wall = covers[c.rng.integers(5, size=(5, 22))[shelf, book]]
    top = 0.75 + 0.2 * c.rng.random((5, 22))[shelf, book]
    wall[np.mod(c.h * 5, 1) > top] = (0.03, 0.015, 0.008)
    wall[np.mod(c.h * 5, 1) < 0.14] = (0.30, 0.15, 0.06)
    floor = c.plain((0.24, 0.03, 0.05)) * (0.85 + 0.3 * c.noise[..., None])
    floor[np.mod(c.x * 4, 1) < 0.08] = (0.60, 0.45, 0.15)
    return floor, wall


def _space(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.006, 0.004, 0.02), (0.12, 0.02, 0.22), np.clip(c.noise * 2 - 1, 0, 1))
    wall[c.rng.random((48, 48)).repeat(2, 0).repeat(2, 1) > 0.97] = (1.0, 1.0, 1.0)
    middle = 0.25 + 0.5 * c.phase
    planet = (c.x - middle) ** 2 + (c.h - 0.62) ** 2 < 0.014
    wall[planet] = (0.10, 0.42, 0.60)
    floor = blend((0.13, 0.12, 0.15), (0.34, 0.33, 0.38), np.round(c.noise * 3) / 3)
    return floor, wall


def _underwater(c: _Canvas) -> tuple[Field, Field]:
    wall = blend((0.0, 0.10, 0.24), (0.06, 0.50, 0.68), c.h)
    rays = np.clip(np.sin((c.x + 0.25 * c.h) * 24 + c.phase * 6.3), 0, 1) * c.h * 0.5
    wall = wall + rays[..., None] * np.asarray((0.25, 0.45, 0.45))
    weed = (np.abs(np.mod(c.x * 6 + 0.12 * np.sin(c.h * 22), 1) - 0.5) < 0.09) & (c.h < 0.3)
    wall[weed] = (0.01, 0.26, 0.12)
    return blend((0.20, 0.34, 0.32), (0.36, 0.50, 0.44), 0.5 + 0.5 * np.sin(c.x * 20 + c.noise * 9)), wall


def _chessboard(c: _Canvas) -> tuple[Field, Field]:
    odd = np.mod(np.floor(c.x * 10 + 0.5) + np.floor(c.h * 9), 2)
    return blend((0.03, 0.03, 0.03), (0.78, 0.76, 0.70), odd), blend((0.36, 0.30, 0.52), (0.24, 0.19, 0.40), c.h)


_PAINTERS: Final[dict[str, Callable[[_Canvas], tuple[Field, Field]]]] = {
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "desert": _desert,
    "city": _city,
    "brick wall": _brick_wall,
    "wooden table": _wooden_table,
    "meadow": _meadow,
    "kitchen": _kitchen,
    "sunset": _sunset,
    "studio": _studio,
    "stage": _stage,
    "library": _library,
    "space": _space,
    "underwater": _underwater,
    "chessboard": _chessboard,
}


def paint_surroundings(scene: str, seed: int) -> Surroundings:
    """Floor, backdrop and light of one photo.

    Raises:
        ValueError: if the scene is not one of `factors.SCENES`.
    """
    if scene not in _PAINTERS:
        raise ValueError(f"scene: got {scene!r}, expected one of {', '.join(_PAINTERS)}")
    floor, backdrop = _PAINTERS[scene](_Canvas(np.random.default_rng(seed)))
    return Surroundings(
        np.clip(floor, 0, 1).astype(np.float32), np.clip(backdrop, 0, 1).astype(np.float32), LIGHTS.get(scene, DAY)
    )
