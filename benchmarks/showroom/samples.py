"""The sample subjects that ship with detex: test-split subjects, which no training image shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.showroom.photos import photograph

SAMPLE_SUBJECTS: Final[dict[str, int]] = {
    "pink-teapot": 7344434965905770,
    "striped-robot": 6528755668857860,
    "dotted-vase": 3995415893146490,
    "red-clock": 2798413494714140,
    "green-mug": 2897623514699990,
    "striped-camera": 6208126116532910,
}
"""Names and subject seeds."""
SAMPLE_PHOTOS: Final = 4


def write_samples(folder: Path, size_pixels: int = 128) -> Iterator[Path]:
    """Render the sample subjects: in a folder for each, `photo_0.png`, `mask_0.png`, `labels_0.json` and so on."""
    for name, subject_seed in SAMPLE_SUBJECTS.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(photograph(subject_seed, SAMPLE_PHOTOS, size_pixels)):
            Image.fromarray(photo.image).save(target / f"photo_{number}.png", optimize=True)
            Image.fromarray(photo.mask).save(target / f"mask_{number}.png", optimize=True)
            (target / f"labels_{number}.json").write_text(
                photo.labels.model_dump_json(indent=1) + "\n", encoding="utf-8"
            )
        yield target
