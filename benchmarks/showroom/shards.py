"""Training shards: many photos in one `.npz` with their labels beside it in JSON lines.

A shard's content depends on (split, seed, shard number, size) alone, so shards can be rendered by any number of
processes, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.showroom.photos import photograph
from benchmarks.showroom.renderer import Photo, PhotoLabels
from benchmarks.showroom.subject import Split, subject_seeds

SUBJECTS_PER_SHARD: Final = 125
PHOTOS_PER_SUBJECT: Final = 2
PHOTOS_PER_SHARD: Final = SUBJECTS_PER_SHARD * PHOTOS_PER_SUBJECT


@dataclass(frozen=True)
class PhotoSet:
    """Photos in memory: images (n, size, size, 3) and masks (n, size, size), uint8, with one label set each."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    labels: Sequence[PhotoLabels]


@dataclass(frozen=True)
class ShardPlan:
    """One shard to render: 125 subjects of a split with two photos each."""

    folder: Path
    split: Split
    seed: int
    number: int
    size_pixels: int = 128

    @property
    def path(self) -> Path:
        """The shard's `.npz`; its labels lie beside it as `.jsonl`."""
        return self.folder / f"{self.split}_{self.size_pixels}px_seed{self.seed}_{self.number:04d}.npz"


def render_shard(plan: ShardPlan) -> Path:
    """Render one shard unless it is there already; the `.npz` appears last and at once."""
    if plan.path.exists():
        return plan.path
    plan.folder.mkdir(parents=True, exist_ok=True)
    # Each shard draws from a seed range of its own; two shards share a subject with a chance of about 1e-12.
    seeds = subject_seeds(plan.split, plan.seed * 1_000_003 + plan.number, SUBJECTS_PER_SHARD)
    photos = [
        photo for seed in seeds for photo in photograph(seed, PHOTOS_PER_SUBJECT, plan.size_pixels, distinct=False)
    ]
    write_shard(plan.path, photos, compressed=True)
    return plan.path


def write_shard(path: Path, photos: Sequence[Photo], *, compressed: bool = False, **further: NDArray[Any]) -> None:
    """Write photos and their labels; the `.npz` appears last and at once.

    Args:
        path: Of the `.npz`; the labels go beside it as JSON lines.
        photos: At least one, of one size.
        compressed: Whether the arrays are; that takes longer to write and to read.
        further: Arrays to write beside `images` and `masks`.
    """
    labels = "".join(photo.labels.model_dump_json() + "\n" for photo in photos)
    path.with_suffix(".jsonl").write_text(labels, encoding="utf-8")
    images, masks = np.stack([photo.image for photo in photos]), np.stack([photo.mask for photo in photos])
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        save = np.savez_compressed if compressed else np.savez
        save(stream, images=images, masks=masks, allow_pickle=False, **further)
    partial.replace(path)


def render_shards(plans: Sequence[ShardPlan], processes: int) -> Iterator[Path]:
    """Render shards on several processes, one core each; yields paths as they are finished."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(render_shard, plan) for plan in plans]):
            yield future.result()


def load_shards(paths: Sequence[Path]) -> PhotoSet:
    """Read finished shards into memory, in the order given.

    Raises:
        ValueError: if `paths` is empty.
        FileNotFoundError: if a shard or its labels are missing.
    """
    if not paths:
        raise ValueError("paths: got no shard, expected at least one")
    images: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.uint8]] = []
    labels: list[PhotoLabels] = []
    for path in paths:
        with np.load(path) as arrays:
            images.append(arrays["images"])
            masks.append(arrays["masks"])
        lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
        labels.extend(PhotoLabels.model_validate_json(line) for line in lines)
    return PhotoSet(np.concatenate(images), np.concatenate(masks), labels)
