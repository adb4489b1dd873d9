"""The factors of the rendered world: every word that a photo's labels may contain, and the product colours."""

from __future__ import annotations

from typing import Final

CLASSES: Final = (
    "mug",
    "bottle",
    "vase",
    "teapot",
    "bowl",
    "lamp",
    "stool",
    "box",
    "robot",
    "car",
    "rocket",
    "candle",
    "duck",
    "camera",
    "hat",
    "clock",
)
"""Product classes, one English word each."""

POSES: Final = ("upright", "lying", "tilted", "upside down", "seen from above", "floating")
"""How the product is placed before the camera; each has its own distribution of rotations (see `view`)."""

SCENES: Final = (
    "beach",
    "forest",
    "snow",
    "desert",
    "city",
    "brick wall",
    "wooden table",
    "meadow",
    "kitchen",
    "sunset",
    "studio",
    "stage",
    "library",
    "space",
    "underwater",
    "chessboard",
)
"""Surroundings; each has a floor, a backdrop and a light of its own (see `scenes`)."""

COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.75, 0.04, 0.04),
    "orange": (0.90, 0.30, 0.02),
    "yellow": (0.90, 0.72, 0.04),
    "green": (0.06, 0.42, 0.08),
    "blue": (0.04, 0.12, 0.70),
    "purple": (0.28, 0.05, 0.50),
    "pink": (0.92, 0.36, 0.55),
    "white": (0.88, 0.88, 0.88),
    "black": (0.025, 0.025, 0.03),
    "turquoise": (0.04, 0.60, 0.58),
}
"""Names of product colours and their linear RGB reflectance in [0, 1]; a subject's colour is a mild jitter of it."""

BADGE_COLOURS: Final[tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]] = (
    ((0.88, 0.88, 0.88), (0.025, 0.025, 0.03)),
    ((0.90, 0.72, 0.04), (0.04, 0.06, 0.45)),
    ((0.88, 0.88, 0.88), (0.60, 0.03, 0.03)),
    ((0.92, 0.55, 0.62), (0.06, 0.20, 0.10)),
    ((0.55, 0.80, 0.85), (0.25, 0.04, 0.40)),
    ((0.90, 0.72, 0.04), (0.025, 0.025, 0.03)),
)
"""Pairs of a light and a dark colour that a badge may have, linear RGB; no caption names them."""

PATTERNS: Final = ("plain", "striped", "dotted", "checkered")
"""Patterns of the product's main surface; `plain` has half of the probability."""

MATERIALS: Final = ("matte", "glossy")
"""Surface of the whole product: a diffuse one, or a smooth plastic."""
