"""A catalog of sample subjects, as large as it is asked for."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from detex_client.demo.scenario import SCENES
from detex_showroom import SampleSubject


def concept_name(subject: SampleSubject) -> str:
    """What the concept of a subject is called here."""
    return f"catalog-{subject.name}"


def write_table(path: Path, subjects: Sequence[SampleSubject], rows: int, *, training_steps: int) -> Path:
    """Write a catalog of so many rows, one picture each, over the subjects in turn and all scenes.

    Args:
        path: JSON lines.
        subjects: Sample subjects; the first row of each trains it.
        rows: Rows.
        training_steps: Optimisation steps of each training.
    """
    turns = product(range(rows), subjects)
    lines = []
    for number, (turn, subject) in zip(range(rows), turns, strict=False):
        row: dict[str, object] = {
            "sku": f"SKU-{number:05d}",
            "concept": concept_name(subject),
            "scenes": [list(SCENES.values())[turn % len(SCENES)]],
            "seed": number,
        }
        if turn == 0:
            photos = [str(photo.image_path) for photo in subject.photos]
            row |= {"photos": photos, "class_word": subject.class_word, "training_steps": training_steps}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
