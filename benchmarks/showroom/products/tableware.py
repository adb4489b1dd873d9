"""Mug, bottle, vase, teapot, bowl: vessels turned on a lathe. `shape` holds six free parameters in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.showroom.products.primitives import Part, Slot, ball, lathe, torus


def mug(shape: Sequence[float]) -> list[Part]:
    """A wide cup with one big ring handle."""
    radius, height, flare = 0.36 + 0.1 * shape[0], 0.72 + 0.25 * shape[1], 0.9 + 0.2 * shape[2]
    body = lathe(
        [
            (0, 0),
            (radius, 0),
            (radius * flare, height),
            (radius * flare - 0.05, height),
            (radius - 0.06, 0.08),
            (0, 0.08),
        ]
    )
    handle = torus(0.2 + 0.05 * shape[3], 0.055 + 0.02 * shape[4]).moved(x=radius + 0.1, z=height * 0.5)
    return [body, handle.painted(Slot.ACCENT)]


def bottle(shape: Sequence[float]) -> list[Part]:
    """A slim body, sloping shoulders, a long neck and a cap."""
    radius, height, neck = 0.22 + 0.08 * shape[0], 0.75 + 0.15 * shape[1], 0.09 + 0.03 * shape[2]
    body = lathe([(0, 0), (radius, 0), (radius, height), (neck, height + 0.25), (neck, height + 0.5)])
    cap_radius, cap = neck + 0.04, 0.14 + 0.08 * shape[3]
    lid = lathe([(0, 0), (cap_radius, 0), (cap_radius, cap), (0, cap)]).moved(z=height + 0.45)
    return [body, lid.painted(Slot.ACCENT)]


def vase(shape: Sequence[float]) -> list[Part]:
    """A round belly, a narrow neck and a flaring rim."""
    radius, belly, rim = 0.2 + 0.05 * shape[0], 0.38 + 0.12 * shape[1], 0.26 + 0.12 * shape[3]
    neck = 0.11 + 0.05 * shape[2]
    body = lathe(
        [(0, 0), (radius, 0), (belly * 0.93, 0.22), (belly, 0.38), (belly * 0.9, 0.55), (neck * 1.3, 0.78), (neck, 0.9)]
    )
    collar = lathe([(neck, 0.9), (neck * 1.15, 1.0), (rim, 1.15), (rim * 0.93, 1.15), (neck, 1.0)])
    return [body, collar.painted(Slot.ACCENT)]


def teapot(shape: Sequence[float]) -> list[Part]:
    """A bulging body with a spout to one side, a ring handle to the other and a knob on the lid."""
    radius = 0.4 + 0.07 * shape[0]
    body = lathe(
        [
            (0, 0),
            (radius * 0.7, 0),
            (radius, 0.22),
            (radius, 0.38),
            (radius * 0.75, 0.56),
            (radius * 0.3, 0.66),
            (0, 0.68),
        ]
    )
    spout = lathe([(0.13, 0), (0.06, 0.55)]).turned(0.75 + 0.25 * shape[3], "y").moved(x=radius * 0.75, z=0.2)
    handle = torus(0.2 + 0.04 * shape[2], 0.05).moved(x=-radius - 0.08, z=0.36)
    knob = ball(0.08 + 0.03 * shape[1]).moved(z=0.74)
    return [body, *(part.painted(Slot.ACCENT) for part in (spout, handle, knob))]


def bowl(shape: Sequence[float]) -> list[Part]:
    """A wide, low, open half-sphere on a foot."""
    radius, height = 0.58 + 0.08 * shape[0], 0.38 + 0.14 * shape[1]
    body = lathe(
        [
            (0.24, 0.08),
            (radius * 0.72, 0.08 + height * 0.32),
            (radius * 0.93, 0.08 + height * 0.65),
            (radius, 0.08 + height),
        ]
    )
    inside = lathe(
        [(radius, 0.08 + height), (radius - 0.06, 0.08 + height), (radius * 0.66, 0.08 + height * 0.36), (0, 0.14)]
    )
    foot = lathe([(0, 0), (0.26 + 0.06 * shape[2], 0), (0.24, 0.1)])
    return [body, inside.painted(Slot.ACCENT), foot.painted(Slot.ACCENT)]
