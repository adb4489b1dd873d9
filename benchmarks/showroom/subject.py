"""Subjects: individual products, and the rule that keeps those of different splits apart."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from benchmarks.showroom.colours import nearest_name
from benchmarks.showroom.factors import BADGE_COLOURS, CLASSES, COLOURS, MATERIALS, PATTERNS
from benchmarks.showroom.products import SHAPE_PARAMETERS
from benchmarks.showroom.products.profile import PROFILE_PARAMETERS

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

_SUBJECT_STREAM: Final = 0x5B7EC7
_SEED_STREAM: Final = 0x5EED
_PLAIN_PROBABILITY: Final = 0.5
_COLOUR_GAIN_DEVIATION: Final = 0.06
_COLOUR_SHIFT_DEVIATION: Final = 0.015
_IDENTITY_STREAM: Final = 0x1DE7
_SIBLING_STREAM: Final = 0x51B1
_LARGEST_DRIFT: Final = 0.4
"""Share of the way from a named colour to another one that a colour may lie."""
_LEAST_CELLS: Final = 3
BADGE_SIDE: Final = 3
"""Cells of a badge along each side."""

World = Literal["words", "identity"]
"""`words`: the former world, in which words say nearly all of a subject. `identity`: profiles, colours between the
named ones, and badges, which no caption describes."""
Badges = Literal["never", "some", "always"]
_BADGE_PROBABILITY: Final[dict[Badges, float]] = {"never": 0.0, "some": 0.5, "always": 1.0}


class Subject(BaseModel):
    """One individual product.

    Colours are linear RGB reflectance in [0, 1]; `shape` holds the free parameters of the class, each in [0, 1].
    Subjects of the former world, and labels of that time, have no profile and no badge.

    Attributes:
        profile: What changes the outline, each in [0, 1], see `products.profile`.
        badge: Cells of the badge in rows from its upper left corner, true where a cell has the dark colour; empty where
            there is none.
        badge_rgb: Light and dark colour of the badge.
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
    profile: tuple[float, ...] = ()
    badge: tuple[bool, ...] = ()
    badge_rgb: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None


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


def sample_subject(
    subject_seed: int, class_word: str | None = None, world: World = "words", badges: Badges = "some"
) -> Subject:
    """The subject that belongs to a seed.

    Args:
        subject_seed: Any number from 0.
        class_word: Overrides its class and nothing else.
        world: What subjects are made of; the same words come of a seed in both.
        badges: Which subjects of the world `identity` have one; it decides nothing else.

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
    subject = Subject(
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
    if world == "words":
        return subject
    return _with_identity(subject, np.random.default_rng([_IDENTITY_STREAM, subject_seed]), badges)


def sibling(subject: Subject, number: int) -> Subject:
    """A subject that the same words describe: all that no caption says is drawn anew by `number`, from 0.

    It keeps class, colour names, pattern, material and whether there is a badge, and the seed, which names the split.
    """
    rng = np.random.default_rng([_SIBLING_STREAM, subject.seed, number])
    words_anew = subject.model_copy(
        update={
            "shape": tuple(round(float(value), 6) for value in rng.random(SHAPE_PARAMETERS)),
            "main_rgb": _jittered(COLOURS[subject.main_colour], rng),
            "accent_rgb": _jittered(COLOURS[subject.accent_colour], rng),
            "pattern_variant": int(rng.integers(24)),
        }
    )
    return _with_identity(words_anew, rng, "always" if subject.badge else "never")


def _with_identity(subject: Subject, rng: np.random.Generator, badges: Badges) -> Subject:
    """The subject with a profile, colours between the named ones, and perhaps a badge."""
    profile = tuple(round(float(value), 6) for value in rng.random(PROFILE_PARAMETERS))
    main, accent = _drifted(subject.main_colour, rng), _drifted(subject.accent_colour, rng)
    light, dark = BADGE_COLOURS[int(rng.integers(len(BADGE_COLOURS)))]
    cells = rng.permutation(BADGE_SIDE**2) < rng.integers(_LEAST_CELLS, BADGE_SIDE**2 - _LEAST_CELLS + 1)
    has_badge = rng.random() < _BADGE_PROBABILITY[badges]
    return subject.model_copy(
        update={
            "profile": profile,
            "main_rgb": main,
            "accent_rgb": accent,
            "badge": tuple(bool(cell) for cell in cells) if has_badge else (),
            "badge_rgb": (light, dark) if has_badge else None,
        }
    )


def _drifted(name: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour on the way from a named one to another, as far as it still has its own name."""
    other = str(rng.choice([each for each in COLOURS if each != name]))
    share = float(rng.random()) * _LARGEST_DRIFT
    start, end = np.asarray(COLOURS[name]), np.asarray(COLOURS[other])
    colour = _jittered(_rgb(start + share * (end - start)), rng)
    while nearest_name(colour) != name and share > 1e-3:
        share /= 2
        colour = _rgb(start + share * (end - start))
    return colour


def _rgb(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue


def _jittered(colour: tuple[float, float, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """The colour as this subject's maker mixed it: a common gain and a small shift of every channel."""
    gain = 1 + rng.normal() * _COLOUR_GAIN_DEVIATION
    red, green, blue = (
        round(float(np.clip(value * gain + rng.normal() * _COLOUR_SHIFT_DEVIATION, 0.015, 0.95)), 6) for value in colour
    )
    return red, green, blue
