"""Lamp, stool, box, candle, clock, hat: things of the house. `shape` holds six free parameters in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.showroom.products.primitives import Part, Slot, ball, cuboid, cylinder, lathe


def lamp(shape: Sequence[float]) -> list[Part]:
    """A table lamp: disc foot, thin stem, conical shade."""
    height, wide, narrow = 0.5 + 0.2 * shape[0], 0.44 + 0.1 * shape[2], 0.2 + 0.1 * shape[3]
    foot_radius = 0.26 + 0.08 * shape[1]
    foot = lathe([(0, 0), (foot_radius, 0), (foot_radius, 0.07), (0.06, 0.12), (0.055, height)])
    shade = lathe([(wide, 0), (narrow, 0.48)]).moved(z=height - 0.06)
    return [shade, foot.painted(Slot.ACCENT)]


def stool(shape: Sequence[float]) -> list[Part]:
    """A thick round seat on four splayed legs."""
    height, radius, seat = 0.6 + 0.2 * shape[0], 0.4 + 0.1 * shape[1], 0.16 + 0.08 * shape[2]
    legs = []
    for angle in np.arange(4) * np.pi / 2 + np.pi / 4:
        leg = lathe([(0.06, 0), (0.06, height)]).turned(-0.14, "y").moved(x=radius * 0.62 + 0.14 * height)
        legs.append(leg.turned(float(angle), "z").painted(Slot.ACCENT))
    return [cylinder(radius, seat).moved(z=height), *legs]


def box(shape: Sequence[float]) -> list[Part]:
    """A gift box with a crossed ribbon and a bow."""
    width, depth, height = 0.75 + 0.2 * shape[0], 0.65 + 0.15 * shape[2], 0.6 + 0.3 * shape[1]
    ribbon = 0.12 + 0.06 * shape[3]
    body = cuboid(width, depth, height).moved(z=height / 2)
    bands = [
        cuboid(ribbon, depth * 1.03, height * 1.02).moved(z=height / 2),
        cuboid(width * 1.03, ribbon, height * 1.02).moved(z=height / 2),
    ]
    bow = [ball(0.13).scaled(1.3, 0.7, 0.9).moved(x=side * 0.15, z=height + 0.09) for side in (-1, 1)]
    return [body, *(part.painted(Slot.ACCENT) for part in (*bands, *bow))]


def candle(shape: Sequence[float]) -> list[Part]:
    """A thick candle on a plate, burning."""
    radius, height = 0.2 + 0.08 * shape[0], 0.6 + 0.3 * shape[1]
    plate = radius * (1.7 + 0.3 * shape[2])
    foot = lathe([(0, 0), (plate * 0.8, 0), (plate, 0.1), (plate - 0.05, 0.1), (0, 0.05)])
    flame = lathe([(0, 0), (0.075, 0.07), (0.055, 0.16), (0, 0.3)]).moved(z=height + 0.08)
    wick = lathe([(0.02, 0), (0.02, 0.12)]).moved(z=height)
    return [
        cylinder(radius, height).moved(z=0.02),
        foot.painted(Slot.ACCENT),
        wick.painted(Slot.DARK),
        flame.painted(Slot.GLOW),
    ]


def clock(shape: Sequence[float]) -> list[Part]:
    """An alarm clock: a drum on two feet with a pale face, two hands and two bells."""
    radius, depth = 0.42 + 0.06 * shape[0], 0.24 + 0.1 * shape[1]
    rim = (
        lathe([(radius * 0.78, 0), (radius, 0), (radius, depth), (0, depth)]).turned(np.pi / 2, "x").moved(y=depth / 2)
    )
    # Turned, the drum reaches from y = depth / 2 to -depth / 2; its open side must face the camera at -y.
    rim = rim.turned(np.pi, "z")
    face = lathe([(0, 0), (radius * 0.8, 0)]).turned(np.pi / 2, "x").moved(y=-depth / 2 + 0.03)
    hour, minute = 0.5 + 0.9 * shape[2], -0.6 - 0.9 * shape[3]
    hands = [
        cuboid(0.07, 0.02, length).moved(z=length / 2).turned(angle, "y").moved(y=-depth / 2)
        for length, angle in ((radius * 0.45, hour), (radius * 0.65, minute))
    ]
    bells = [
        ball(0.15 + 0.03 * shape[4])
        .scaled(z=0.75)
        .turned(side * 0.6, "y")
        .moved(x=side * radius * 0.62, z=radius * 0.88)
        for side in (-1, 1)
    ]
    feet = [
        lathe([(0.06, 0), (0.05, 0.3)]).turned(side * 2.6, "y").moved(x=side * radius * 0.5, z=-radius * 0.75)
        for side in (-1, 1)
    ]
    return [
        rim,
        face.painted(Slot.PALE),
        *(part.painted(Slot.DARK) for part in hands),
        *(part.painted(Slot.ACCENT) for part in (*bells, *feet)),
    ]


def hat(shape: Sequence[float]) -> list[Part]:
    """A top hat: a wide brim, a tall crown and a band."""
    radius, height, brim = 0.34 + 0.06 * shape[0], 0.5 + 0.3 * shape[1], 0.26 + 0.1 * shape[2]
    flare = 1.0 + 0.18 * shape[3]
    band = 0.14 + 0.05 * shape[4]
    crown = lathe([(radius, 0.03), (radius * flare, height), (radius * flare * 0.9, height + 0.04), (0, height + 0.04)])
    rim = lathe([(radius * 0.95, 0.0), (radius + brim, 0.05), (radius + brim, 0.09), (radius, 0.05)])
    ribbon = lathe([(radius * 1.03, 0.05), (radius * (1.03 + 0.18 * shape[3] * band / height), 0.05 + band)])
    return [crown, rim, ribbon.painted(Slot.ACCENT)]
