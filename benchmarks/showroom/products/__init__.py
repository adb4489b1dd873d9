"""Meshes of the product classes: `build_product("mug", shape)` gives the parts of one individual mug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.showroom.products import furnishings, playthings, tableware
from benchmarks.showroom.products.primitives import Part, Slot, joined, rotation

__all__ = ["SHAPE_PARAMETERS", "Part", "Slot", "build_product", "joined", "rotation"]

SHAPE_PARAMETERS: Final = 6
"""Number of continuous shape parameters of every class, each in [0, 1]."""

_BUILDERS: Final[dict[str, Callable[[Sequence[float]], list[Part]]]] = {
    builder.__name__: builder
    for builder in (
        tableware.mug,
        tableware.bottle,
        tableware.vase,
        tableware.teapot,
        tableware.bowl,
        furnishings.lamp,
        furnishings.stool,
        furnishings.box,
        furnishings.candle,
        furnishings.clock,
        furnishings.hat,
        playthings.robot,
        playthings.car,
        playthings.rocket,
        playthings.duck,
        playthings.camera,
    )
}


def build_product(class_word: str, shape: Sequence[float]) -> list[Part]:
    """Parts of one individual of a class, z up, front towards -y, about one unit in size.

    Raises:
        ValueError: if the class is unknown, or `shape` does not hold `SHAPE_PARAMETERS` numbers in [0, 1].
    """
    if class_word not in _BUILDERS:
        raise ValueError(f"class_word: got {class_word!r}, expected one of {', '.join(_BUILDERS)}")
    if len(shape) != SHAPE_PARAMETERS or not all(0 <= value <= 1 for value in shape):
        raise ValueError(f"shape: got {list(shape)}, expected {SHAPE_PARAMETERS} numbers in [0, 1]")
    return _BUILDERS[class_word](shape)
