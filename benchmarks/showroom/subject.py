"""Subjects: individual products, and the rule that keeps those of different splits apart."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.showroom.factors import CLASSES, COLOURS, MATERIALS, PATTERNS
from benchmarks.showroom.products import SHAPE_PARAMETERS

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

_SUBJECT_STREAM: Final = 0x5B7EC7
_SEED_STREAM: Final = 0x5EED
_PLAIN_PROBABILITY: Final = 0.5
_COLOUR_GAIN_DEVIATION: Final = 0.06
_COLOUR_SHIFT_DEVIATION: Final = 0.015


class Subject(BaseModel):
    """One individual product.

    Colours are linear RGB reflectance in [0, 1]; `shape` holds the free parameters of the class, each in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    class_word: str
    shape: tuple[float, ...]
    main_colour: str
    accent_colour: str
    main_rgb: tuple[float, float, float]
    accent_rgb: tuple[float, float, float]
    pattern: str
    pattern_variant: int
    material: str


def split_of(subject_seed: int) -> Split:
    """The split that a subject belongs to. It depends on the seed alone, so no subject can ever be in two splits."""
    remainder = subject_seed % 10
    return "test" if remainder == 0 else "validation" if remainder == 1 else "train"


def subject_seeds(split: Split, seed: int, count: int) -> list[int]:
    """Seeds of `count` different subjects of a split, drawn by `seed`; the same arguments give the same list.

    Raises:
        ValueError: if the split is unknown, `seed` is negative or `count` is below 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected 0 or more")
    if count < 1:
        raise ValueError(f"count: got {count}, expected 1 or more")
    rng = np.random.default_rng([_SEED_STREAM, SPLITS.index(split), seed])
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        candidate = int(rng.integers(1 << 53))
        if split_of(candidate) == split:
            seeds[candidate] = None
    return list(seeds)


def sample_subject(subject_seed: int, class_word: str | None = None) -> Subject:
    """The subject that belongs to a seed; `class_word` overrides its class and nothing else.

    Raises:
        ValueError: if `subject_seed` is negative or the class is unknown.
    """
    if subject_seed < 0:
        raise ValueError(f"subject_seed: got {subject_seed}, expected 0 or more")
    if class_word is not None and class_word not in CLASSES:
        raise ValueError(f"class_word: got {class_word!r}, expected one of {', '.join(CLASSES)}")
    rng = np.random.default_rng([_SUBJECT_STREAM, subject_seed])
    drawn_class = str(rng.choice(CLASSES))
    main, accent = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    others = (1 - _PLAIN_PROBABILITY) / (len(PATTERNS) - 1)
    pattern = str(rng.choice(PATTERNS, p=[_PLAIN_PROBABILITY, *[others] * (len(PATTERNS) - 1)]))
    return Subject(
        seed=subject_seed,
        class_word=class_word or drawn_class,
        shape=tuple(round(float(value), 6) for value in rng.random(SHAPE_PARAMETERS)),
        main_colour=main,
        accent_colour=accent,
        main_rgb=_jittered(COLOURS[main], rng),
        accent_rgb=_jittered(COLOURS[accent], rng),
        pattern=pattern,
        pattern_variant=int(rng.integers(24)),
        material=str(rng.choice(MATERIALS)),
    )


def _jittered(colour: tuple[float, float, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """The colour as this subject's maker mixed it: a common gain and a small shift of every channel."""
    gain = 1 + rng.normal() * _COLOUR_GAIN_DEVIATION
    red, green, blue = (
        round(float(np.clip(value * gain + rng.normal() * _COLOUR_SHIFT_DEVIATION, 0.015, 0.95)), 6) for value in colour
    )
    return red, green, blue
