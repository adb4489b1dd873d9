"""Photos of families: subjects that the same words describe, beside others of their class; two photos of each.

A shard depends on its split, its number and its plan alone, so any number of processes can render disjoint ones.
"""

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.showroom.factors import CLASSES
from benchmarks.showroom.photos import view_seed
from benchmarks.showroom.renderer import QUICK, Photo, badge_corners, render_photo
from benchmarks.showroom.shards import write_shard
from benchmarks.showroom.subject import Split, Subject, sample_subject, sibling, subject_seeds
from benchmarks.showroom.view import sample_view

PHOTOS_PER_SUBJECT: Final = 2
_SEED_STREAM: Final = 3_000_017


@dataclass(frozen=True)
class FamilyPlan:
    """What the shards of a split hold.

    Attributes:
        folder: Where they lie.
        split: Of the subjects.
        members: Subjects of one family: the same words, all else drawn anew.
        strangers: Other subjects of the class.
        size_pixels: Side of the photos.
    """

    folder: Path
    split: Split
    members: int
    strangers: int
    size_pixels: int = 128

    def path(self, number: int) -> Path:
        """The file of a shard; its labels lie beside it as `.jsonl`."""
        kind = f"{self.split}_{self.size_pixels}px_family_{self.members}_{self.strangers}"
        return self.folder / f"{kind}_{number:05d}.npz"

    def subjects(self, number: int) -> list[Subject]:
        """Subjects of a shard: the members of the family first, then the strangers."""
        word = CLASSES[number % len(CLASSES)]
        seeds = subject_seeds(self.split, _SEED_STREAM + number, 1 + self.strangers)
        first, *others = (sample_subject(seed, word, world="identity") for seed in seeds)
        return [first, *(sibling(first, member) for member in range(self.members - 1)), *others]


def render_families(plan: FamilyPlan, processes: int, seconds: float, count: int = 100_000) -> None:
    """Render shards side by side until the time is over or `count` are there; each appears at once and whole."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_render_shards, args=(plan, range(rank, count, processes), end))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _render_shards(plan: FamilyPlan, numbers: range, end: float) -> None:
    for number in numbers:
        path = plan.path(number)
        if path.exists():
            continue
        photos: list[Photo] = []
        for place, subject in enumerate(plan.subjects(number)):
            if time.monotonic() > end:
                return
            # Siblings share their seed: the place keeps their views apart.
            views = [view_seed(subject.seed, PHOTOS_PER_SUBJECT * place + n) for n in range(PHOTOS_PER_SUBJECT)]
            photos += [render_photo(subject, sample_view(seed), plan.size_pixels, QUICK) for seed in views]
        _write(path, photos)


def _write(path: Path, photos: list[Photo]) -> None:
    corners = [
        badge_corners(photo.labels.subject, photo.labels.view) if photo.labels.subject.badge else np.zeros((4, 2))
        for photo in photos
    ]
    badge_pixels = np.array([_badge_pixels(photo) for photo in photos], np.float32)
    write_shard(path, photos, badge_pixels=badge_pixels, corners=np.stack(corners).astype(np.float32))


def _badge_pixels(photo: Photo) -> float:
    """How many pixels the badge covers where it is seen."""
    return 0.0 if photo.badge_mask is None else float(photo.badge_mask.sum(dtype=np.float64)) / 255
