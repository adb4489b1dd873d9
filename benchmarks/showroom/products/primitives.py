"""Triangle meshes of the simple solids that products are assembled from.

Coordinates: z is up, -y faces the camera. Texture coordinates are in tiles of the product's pattern; one tile spans
what the camera sees of a solid from one side, so that patterns look equally coarse on every product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]


class Slot(IntEnum):
    """Which surface a part shows."""

    MAIN = 0
    """The subject's pattern in its two colours."""
    ACCENT = 1
    """The subject's second colour."""
    DARK = 2
    """Near black: wheels, eyes, lenses, wicks."""
    GLOW = 3
    """Bright yellow: flames."""
    PALE = 4
    """Near white: clock faces."""
    BADGE = 5
    """A badge, where the subject has one."""


@dataclass(frozen=True)
class Part:
    """A mesh with one surface: vertices (n, 3), triangles (m, 3), texture coordinates (n, 2)."""

    vertices: Vertices
    faces: Faces
    texture_coordinates: Vertices
    slot: Slot = Slot.MAIN

    def painted(self, slot: Slot) -> Part:
        """The same mesh with another surface."""
        return replace(self, slot=slot)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """Translated."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def scaled(self, x: float = 1.0, y: float = 1.0, z: float = 1.0) -> Part:
        """Scaled about the origin."""
        return replace(self, vertices=self.vertices * np.array([x, y, z]))

    def turned(self, angle_radians: float, axis: str) -> Part:
        """Rotated about the axis `x`, `y` or `z` through the origin."""
        return replace(self, vertices=self.vertices @ rotation(angle_radians, axis).T)


def rotation(angle_radians: float, axis: str) -> Vertices:
    """Right-handed rotation matrix (3, 3) about the axis `x`, `y` or `z`."""
    cosine, sine = np.cos(angle_radians), np.sin(angle_radians)
    if axis == "x":
        return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    if axis == "y":
        return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    if axis == "z":
        return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    raise ValueError(f"axis: got {axis!r}, expected x, y or z")


def _grid_faces(rows: int, columns: int) -> Faces:
    """Two triangles per cell of a (rows, columns) grid of vertices in row-major order."""
    first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([first, first + columns, first + 1], 1)
    upper = np.stack([first + 1, first + columns, first + columns + 1], 1)
    return np.concatenate([lower, upper])


def lathe(profile: list[tuple[float, float]], segments: int = 36) -> Part:
    """Surface of revolution about z of a profile of (radius, height) points."""
    points = np.array(profile)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    vertices = np.stack(
        [
            np.outer(np.cos(angle), points[:, 0]),
            np.outer(np.sin(angle), points[:, 0]),
            np.tile(points[:, 1], (segments + 1, 1)),
        ],
        -1,
    ).reshape(-1, 3)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    # Half of the turn faces the camera and shows one tile, hence two tiles around.
    around = np.repeat(angle / np.pi, len(points))
    along = np.tile(length / max(length[-1], 1e-9), segments + 1)
    return Part(vertices, _grid_faces(segments + 1, len(points)), np.stack([around, along], 1))


def cylinder(radius: float, height: float) -> Part:
    """Closed cylinder standing on z = 0; its mantle carries the whole tile."""
    mantle = lathe([(radius, 0), (radius, height)])
    return joined([mantle, disc(radius), disc(radius).moved(z=height)])


def disc(radius: float) -> Part:
    """Flat disc in the plane z = 0."""
    flat = lathe([(0, 0), (radius, 0)])
    return replace(flat, texture_coordinates=flat.vertices[:, :2] / (2 * radius) + 0.5)


def torus(ring_radius: float, tube_radius: float) -> Part:
    """Torus about the y axis: a ring seen face-on by the camera."""
    around = np.linspace(0, 2 * np.pi, 29)[:, None]
    tube = np.linspace(0, 2 * np.pi, 13)[None, :]
    radius = ring_radius + tube_radius * np.cos(tube)
    vertices = np.stack(
        [radius * np.cos(around), np.broadcast_to(tube_radius * np.sin(tube), (29, 13)), radius * np.sin(around)], -1
    ).reshape(-1, 3)
    return Part(vertices, _grid_faces(29, 13), vertices[:, [0, 2]] / (2 * ring_radius) + 0.5)


def ball(radius: float) -> Part:
    """Sphere about the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 15)
    return lathe([(radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angle], 28)


def cuboid(width: float, depth: float, height: float) -> Part:
    """Box about the origin; every face shows one tile."""
    vertices: list[Vertices] = []
    faces: list[Faces] = []
    coordinates: list[Vertices] = []
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for side in (-1.0, 1.0):
            quad = np.full((4, 3), side)
            quad[:, others] = corner
            faces.append(np.array([[0, 1, 2], [0, 2, 3]]) + 4 * len(vertices))
            vertices.append(quad)
            coordinates.append(corner / 2 + 0.5)
    half = np.array([width, depth, height]) / 2
    return Part(np.concatenate(vertices) * half, np.concatenate(faces), np.concatenate(coordinates))


def joined(parts: list[Part]) -> Part:
    """One mesh of several; the surface is that of the first."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)]),
        np.concatenate([part.texture_coordinates for part in parts]),
        parts[0].slot,
    )
