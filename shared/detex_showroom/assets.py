"""Where the embedded base model and the sample subjects lie on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_PACKAGE: Final = Path(__file__).resolve().parent


class AssetMissingError(FileNotFoundError):
    """A file that ships with the package is not there: the installation is incomplete."""


@dataclass(frozen=True)
class SamplePhoto:
    """One photo of a sample subject: an RGB PNG, its mask (8-bit grey PNG, 255 is the product) and its true labels.

    `labels` holds every factor of the render: `split`, `subject` (class, colours, pattern, shape, ...) and `view`
    (pose, scene, camera, light); `pose` and `scene` are the two named ones.
    """

    image_path: Path
    mask_path: Path
    labels: dict[str, Any]

    @property
    def pose(self) -> str:
        """Name of the pose, such as `lying`."""
        return str(self.labels["view"]["pose"])

    @property
    def scene(self) -> str:
        """Name of the surroundings, such as `beach`."""
        return str(self.labels["view"]["scene"])


@dataclass(frozen=True)
class SampleSubject:
    """A product that the embedded base model never saw: a name, its class in one word, and four photos of it."""

    name: str
    class_word: str
    photos: tuple[SamplePhoto, ...]


def base_model_path() -> Path:
    """Folder of the embedded base model, in the layout of a Stable Diffusion 1.x pipeline in diffusers format.

    Raises:
        AssetMissingError: if the folder holds no model.
    """
    folder = _PACKAGE / "base_model"
    if not (folder / "model_index.json").is_file():
        raise AssetMissingError(f"{folder}: the embedded base model is missing; install detex again")
    return folder


def sample_subjects() -> list[SampleSubject]:
    """The sample subjects, in alphabetical order.

    Raises:
        AssetMissingError: if the package holds none.
    """
    folders = sorted(path.parent for path in (_PACKAGE / "samples").glob("*/labels_0.json"))
    if not folders:
        raise AssetMissingError(f"{_PACKAGE / 'samples'}: the sample subjects are missing; install detex again")
    return [_load_subject(folder) for folder in folders]


def _load_subject(folder: Path) -> SampleSubject:
    photos = []
    for labels_path in sorted(folder.glob("labels_*.json")):
        number = labels_path.stem.removeprefix("labels_")
        labels: dict[str, Any] = json.loads(labels_path.read_text(encoding="utf-8"))
        photos.append(SamplePhoto(folder / f"photo_{number}.png", folder / f"mask_{number}.png", labels))
    return SampleSubject(folder.name, str(photos[0].labels["subject"]["class_word"]), tuple(photos))
