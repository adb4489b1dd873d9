"""Captions of photos: many wordings of the same factors, with factors dropped at random.

The forms that customization uses are among them: "a photo of a mug", "a photo of a mug with lying pose in beach
background", and natural ones such as "a red mug lying on a beach", so that the words *pose* and *background* come to
mean what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.showroom.factors import CLASSES, COLOURS, MATERIALS, PATTERNS, POSES, SCENES
from benchmarks.showroom.renderer import PhotoLabels
from benchmarks.showroom.subject import Subject

OPENINGS: Final = ("a photo of", "a photo of", "a photo of", "a picture of", "an image of", "a close photo of", "")

POSE_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "upright": ("upright", "standing upright", "standing"),
    "lying": ("lying", "lying on its side", "lying down"),
    "tilted": ("tilted", "leaning", "tilted to the side"),
    "upside down": ("upside down", "turned upside down", "standing upside down"),
    "seen from above": ("seen from above", "from above", "viewed from above"),
    "floating": ("floating", "floating in the air", "hovering in the air"),
}

SCENE_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "beach": ("on a beach", "on the beach", "at the beach"),
    "forest": ("in a forest", "in the forest"),
    "snow": ("in the snow", "on snow"),
    "desert": ("in a desert", "in the desert"),
    "city": ("in a city", "in the city", "in a city at night"),
    "brick wall": ("in front of a brick wall", "by a brick wall"),
    "wooden table": ("on a wooden table", "on the wooden table"),
    "meadow": ("in a meadow", "on a meadow"),
    "kitchen": ("in a kitchen", "in the kitchen"),
    "sunset": ("at sunset", "in front of a sunset"),
    "studio": ("in a studio", "in the studio"),
    "stage": ("on a stage", "on the stage"),
    "library": ("in a library", "in the library"),
    "space": ("in space", "in outer space"),
    "underwater": ("underwater", "under water"),
    "chessboard": ("on a chessboard", "on the chessboard"),
}

EMPTY_PROBABILITY: Final = 0.1
_FORMAL_PROBABILITY: Final = 0.3
_DROP_POSE: Final = 0.25
_DROP_SCENE: Final = 0.15
_DROP_COLOURS: Final = 0.25
_NAME_BADGE: Final = 0.6
_POSE_FIRST: Final = 0.15
_SCENE_FIRST: Final = 0.1


def sample_caption(labels: PhotoLabels, rng: np.random.Generator, empty_probability: float = EMPTY_PROBABILITY) -> str:
    """Draw one caption of a photo; empty with the given probability (for classifier-free guidance)."""
    if rng.random() < empty_probability:
        return ""
    view = labels.view
    pose = "" if rng.random() < _DROP_POSE else view.pose
    scene = "" if rng.random() < _DROP_SCENE else view.scene
    thing = describe(labels.subject, rng)
    if rng.random() < _FORMAL_PROBABILITY:
        ending = f" with {pose} pose" if pose else ""
        ending += f" in {scene} background" if scene else ""
        body = with_article(thing) + ending
        scene_phrase = ""
    else:
        pose_phrase = _choice(rng, POSE_PHRASES[pose]) if pose else ""
        scene_phrase = _choice(rng, SCENE_PHRASES[scene]) if scene else ""
        if pose in ("upright", "tilted", "floating") and rng.random() < _POSE_FIRST:
            body = with_article(f"{pose} {thing}")
        else:
            body = f"{with_article(thing)} {pose_phrase}".strip()
    if scene_phrase and rng.random() < _SCENE_FIRST:
        return f"{scene_phrase}, {body}"
    return f"{_choice(rng, OPENINGS)} {body} {scene_phrase}".strip()


def describe(subject: Subject, rng: np.random.Generator) -> str:
    """Name a subject by its class and, at random, its colours, pattern, material and badge; no article."""
    words: list[str] = []
    details = ""
    material = subject.material if rng.random() < 0.1 else ""
    badge = " with a badge" if subject.badge and rng.random() < _NAME_BADGE else ""
    if rng.random() >= _DROP_COLOURS:
        patterned = subject.pattern != "plain"
        if patterned and rng.random() < 0.6:
            words = [subject.main_colour, "and", subject.accent_colour]
        else:
            words = [subject.main_colour]
            if rng.random() < 0.4:
                details = f" with {subject.accent_colour} details"
    if subject.pattern != "plain" and rng.random() < 0.75:
        words.append(subject.pattern)
    elif subject.pattern == "plain" and rng.random() < 0.1:
        words.append("plain")
    if badge and details:
        badge = f" and{badge.removeprefix(' with')}"
    return " ".join(word for word in (material, *words, subject.class_word) if word) + details + badge


def with_article(noun_phrase: str) -> str:
    """Put *a* or *an* before a phrase."""
    return f"{'an' if noun_phrase[:1] in 'aeiou' else 'a'} {noun_phrase}"


def caption_words() -> list[str]:
    """Every word that a caption can hold, once each, in alphabetical order."""
    phrases: list[str] = [*OPENINGS, *CLASSES, *COLOURS, *PATTERNS, *MATERIALS, *POSES, *SCENES]
    phrases += [phrase for wordings in (*POSE_PHRASES.values(), *SCENE_PHRASES.values()) for phrase in wordings]
    phrases += ["a an and with details badge in pose background"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def _choice(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
