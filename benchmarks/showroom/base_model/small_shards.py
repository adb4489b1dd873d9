"""Small training shards with their captions as token ids, for a training that begins while photos are being rendered.

A shard's content depends on the split, the world and its number alone, so any number of processes can render
disjoint numbers of them.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.showroom.base_model.corpus import FACTORS, factor_word
from benchmarks.showroom.base_model.tokenizer import MAX_TOKENS, build_tokenizer
from benchmarks.showroom.captions import sample_caption
from benchmarks.showroom.photos import photograph
from benchmarks.showroom.renderer import QUICK
from benchmarks.showroom.shards import write_shard
from benchmarks.showroom.subject import Split, World, subject_seeds

SUBJECTS: Final = 25
PHOTOS_PER_SUBJECT: Final = 2
CAPTIONS: Final = 16
"""Of each photo, drawn when it is rendered."""
_SEED_STREAM: Final = 1_000_003


def shard_path(folder: Path, split: Split, size_pixels: int, number: int) -> Path:
    """Where a small shard lies."""
    return folder / f"{split}_{size_pixels}px_small_{number:05d}.npz"


def render_small_shards(
    folder: Path,
    split: Split,
    size_pixels: int,
    processes: int,
    seconds: float,
    first: int = 0,
    count: int = 100_000,
    world: World = "identity",
) -> None:
    """Render shards side by side until the time is over or all are there; a shard appears at once and whole.

    Each holds `images` (n, s, s, 3) and `masks` (n, s, s), uint8, `tokens` (n, 16, 48) and `factors` (n, 6), int16,
    with its labels beside it as JSON lines.

    Args:
        folder: Where to.
        split: Of the subjects.
        size_pixels: Side of the photos.
        processes: Each renders on one core.
        seconds: After which no further photo is begun.
        first: Number of the first shard.
        count: Shards at most.
        world: What subjects are made of; a folder holds photos of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    numbers = [range(first + rank, first + count, processes) for rank in range(processes)]
    workers = [context.Process(target=_render, args=(folder, split, size_pixels, each, end, world)) for each in numbers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _render(
    folder: Path, split: Split, size_pixels: int, numbers: range, end: float, world: World = "identity"
) -> None:
    tokenizer = build_tokenizer()
    for number in numbers:
        path = shard_path(folder, split, size_pixels, number)
        if path.exists():
            continue
        rng = np.random.default_rng([77, number])
        photos = []
        for seed in subject_seeds(split, _SEED_STREAM * 77 + number, SUBJECTS):
            if time.monotonic() > end:
                return
            photos += list(
                photograph(seed, PHOTOS_PER_SUBJECT, size_pixels, distinct=False, world=world, quality=QUICK)
            )
        captions = [sample_caption(photo.labels, rng, 0.0) for photo in photos for _ in range(CAPTIONS)]
        ids = tokenizer(
            captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="np"
        ).input_ids
        factors = [
            [words.index(factor_word(photo.labels, name)) for name, words in FACTORS.items()] for photo in photos
        ]
        tokens = ids.reshape(len(photos), CAPTIONS, MAX_TOKENS).astype(np.int16)
        write_shard(path, photos, tokens=tokens, factors=np.array(factors, np.int16))
