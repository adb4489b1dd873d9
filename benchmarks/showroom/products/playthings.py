"""Robot, car, rocket, duck, camera: toys and gear. `shape` holds six free parameters in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.showroom.products.primitives import Part, Slot, ball, cuboid, cylinder, lathe


def robot(shape: Sequence[float]) -> list[Part]:
    """A toy robot: block body and head, two arms, two legs, two eyes."""
    width, height, head = 0.44 + 0.12 * shape[0], 0.42 + 0.12 * shape[1], 0.32 + 0.08 * shape[2]
    arm = 0.36 + 0.1 * shape[3]
    top = 0.3 + height
    body = cuboid(width, 0.32, height).moved(z=0.27 + height / 2)
    limbs = [cuboid(0.15, 0.2, 0.3).moved(x=side * width / 4, z=0.14) for side in (-1, 1)]
    limbs += [cuboid(0.12, 0.15, arm).moved(x=side * (width / 2 + 0.09), z=top - arm / 2) for side in (-1, 1)]
    skull = cuboid(head, 0.28, head * 0.85).moved(z=top + head * 0.43)
    eyes = [ball(0.06).moved(x=side * head * 0.25, y=-0.14, z=top + head * 0.5) for side in (-1, 1)]
    return [body, *(part.painted(Slot.ACCENT) for part in (*limbs, skull)), *(part.painted(Slot.DARK) for part in eyes)]


def car(shape: Sequence[float]) -> list[Part]:
    """A toy car: long body, cabin and four wheels."""
    length, body_height = 1.1 + 0.15 * shape[0], 0.28 + 0.08 * shape[1]
    cabin_length, cabin_height = length * (0.45 + 0.1 * shape[2]), 0.24 + 0.08 * shape[3]
    wheel = 0.16 + 0.04 * shape[4]
    body = cuboid(length, 0.5, body_height).moved(z=wheel + body_height / 2)
    cabin = cuboid(cabin_length, 0.44, cabin_height).moved(x=-0.06, z=wheel + body_height + cabin_height / 2)
    wheels = [
        cylinder(wheel, 0.12).turned(np.pi / 2, "x").moved(x=x * length * 0.31, y=y * 0.25 + 0.06, z=wheel)
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    return [body, cabin.painted(Slot.ACCENT), *(part.painted(Slot.DARK) for part in wheels)]


def rocket(shape: Sequence[float]) -> list[Part]:
    """A toy rocket: slim hull, pointed nose, three fins."""
    radius, height, nose = 0.2 + 0.05 * shape[0], 0.55 + 0.15 * shape[1], 0.34 + 0.1 * shape[2]
    hull = lathe([(0, 0), (radius * 0.75, 0), (radius, 0.22), (radius, height)]).moved(z=0.2)
    tip = lathe([(radius, 0), (radius * 0.62, nose * 0.5), (0, nose)]).moved(z=0.2 + height)
    fin_length = 0.26 + 0.08 * shape[3]
    fins = [
        cuboid(fin_length, 0.07, 0.4).moved(x=radius + fin_length * 0.3, z=0.2).turned(float(angle), "z")
        for angle in np.arange(4) * np.pi / 2
    ]
    return [hull, *(part.painted(Slot.ACCENT) for part in (tip, *fins))]


def duck(shape: Sequence[float]) -> list[Part]:
    """A bath duck: oval body, round head, beak, tail and eyes, seen from its side."""
    length, head = 0.5 + 0.08 * shape[0], 0.25 + 0.05 * shape[1]
    height = 0.36 + 0.05 * shape[2]
    body = ball(1.0).scaled(length, 0.4, height).moved(z=height)
    skull = ball(head).moved(x=length * 0.55, z=height * 1.75 + head * 0.6)
    beak = lathe([(0.14, 0), (0.1, 0.14), (0, 0.24 + 0.06 * shape[3])]).turned(np.pi / 2, "y").scaled(z=0.5)
    beak = beak.moved(x=length * 0.55 + head * 0.8, z=height * 1.75 + head * 0.45)
    tail = lathe([(0.17, 0), (0, 0.34)]).turned(-0.8, "y").moved(x=-length * 0.78, z=height * 1.15)
    wings = [
        ball(1.0)
        .scaled(length * 0.5, 0.08, height * 0.5)
        .turned(0.25, "y")
        .moved(x=-length * 0.15, y=side * 0.37, z=height * 1.1)
        for side in (-1, 1)
    ]
    eyes = [
        ball(0.05).moved(x=length * 0.55 + head * 0.45, y=side * head * 0.8, z=height * 1.75 + head * 0.85)
        for side in (-1, 1)
    ]
    return [
        body,
        skull,
        *(part.painted(Slot.ACCENT) for part in (beak, tail, *wings)),
        *(part.painted(Slot.DARK) for part in eyes),
    ]


def camera(shape: Sequence[float]) -> list[Part]:
    """A photo camera: flat body, big lens, viewfinder hump and shutter button."""
    width, height = 0.95 + 0.2 * shape[0], 0.58 + 0.1 * shape[1]
    lens, barrel = 0.22 + 0.05 * shape[2], 0.26 + 0.16 * shape[3]
    body = cuboid(width, 0.32, height).moved(z=height / 2)
    tube = cylinder(lens, barrel).turned(np.pi / 2, "x").moved(y=-0.14, z=height * 0.48)
    glass = lathe([(0, 0), (lens * 0.7, 0)]).turned(np.pi / 2, "x").moved(y=-0.15 - barrel, z=height * 0.48)
    hump = cuboid(0.32 + 0.1 * shape[4], 0.26, 0.17).moved(z=height + 0.08)
    button = cylinder(0.07, 0.08).moved(x=width * 0.36, z=height)
    return [body, *(part.painted(Slot.ACCENT) for part in (tube, hump, button)), glass.painted(Slot.DARK)]
