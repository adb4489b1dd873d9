"""Photo sessions: several photos of one subject, each view drawn from the subject's seed, and their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.showroom.factors import POSES, SCENES
from benchmarks.showroom.renderer import FULL_QUALITY, Photo, RenderQuality, render_photo
from benchmarks.showroom.subject import Badges, Split, World, sample_subject, subject_seeds
from benchmarks.showroom.view import sample_view

_SESSION_STREAM: Final = 0x9107


def view_seed(subject_seed: int, photo: int) -> int:
    """Seed of the view of a subject's photo number `photo`."""
    return int(np.random.default_rng([_SESSION_STREAM, subject_seed, photo]).integers(1 << 53))


def photograph(
    subject_seed: int,
    photos: int,
    size_pixels: int = 128,
    distinct: bool = True,
    world: World = "words",
    badges: Badges = "some",
    quality: RenderQuality = FULL_QUALITY,
) -> Iterator[Photo]:
    """Take `photos` photos of the subject that belongs to a seed.

    With `distinct`, no pose and no scene comes twice before every one has come once; else both are drawn independently.
    `world` and `badges` are as of `sample_subject`.

    Raises:
        ValueError: if `photos` is below 1, or as `render_photo` does.
    """
    if photos < 1:
        raise ValueError(f"photos: got {photos}, expected 1 or more")
    subject = sample_subject(subject_seed, world=world, badges=badges)
    rng = np.random.default_rng([_SESSION_STREAM, subject_seed])
    poses, scenes = rng.permutation(POSES), rng.permutation(SCENES)
    for photo in range(photos):
        pose = str(poses[photo % len(poses)]) if distinct else None
        scene = str(scenes[photo % len(scenes)]) if distinct else None
        yield render_photo(subject, sample_view(view_seed(subject_seed, photo), pose, scene), size_pixels, quality)


def write_photos(
    split: Split,
    seed: int,
    subjects: int,
    photos: int,
    size_pixels: int,
    folder: Path,
    world: World = "words",
    badges: Badges = "some",
) -> Iterator[Path]:
    """Render subjects of a split into a folder each: `photo_0.png`, `mask_0.png`, `labels_0.json`, ...

    Yields the folder of every finished subject, named by its seed and class. Raises as `subject_seeds` and
    `photograph` do.
    """
    for subject_seed in subject_seeds(split, seed, subjects):
        target = folder / f"{subject_seed}_{sample_subject(subject_seed).class_word}"
        target.mkdir(parents=True, exist_ok=True)
        session = photograph(subject_seed, photos, size_pixels, world=world, badges=badges)
        for number, photo in enumerate(session):
            Image.fromarray(photo.image).save(target / f"photo_{number}.png")
            Image.fromarray(photo.mask).save(target / f"mask_{number}.png")
            (target / f"labels_{number}.json").write_text(
                photo.labels.model_dump_json(indent=1) + "\n", encoding="utf-8"
            )
        yield target
