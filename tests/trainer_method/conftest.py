"""A tiny base model and a small training set for the tests of this folder."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings, ObjectStoreSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import JobPreview, JobProgress
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord, TrainingSetRecord
from tests.tiny_models import write_tiny_model

torch.set_num_threads(1)

PHOTOS = 3


@dataclass
class RecordingReporter:
    """Keeps all news of a job."""

    news: list[JobProgress] = field(default_factory=list)
    previews: list[JobPreview] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)

    def progress(self, progress: JobProgress) -> None:
        self.news.append(progress)

    def preview(self, preview: JobPreview) -> None:
        self.previews.append(preview)

    def checkpoint(self, step: int, seconds: float) -> None:
        self.checkpoints.append(step)


def draw_photo(index: int, width: int = 40, height: int = 32) -> tuple[Image.Image, Image.Image]:
    """A red box on a surrounding of its own colour and texture, and its mask."""
    rng = np.random.default_rng(index)
    pixels = np.empty((height, width, 3))
    pixels[:] = rng.uniform(40, 220, 3)
    pixels += rng.normal(0, 8, pixels.shape)
    mask = np.zeros((height, width), dtype=np.uint8)
    left, top = 8 + 3 * index, 10
    mask[top : top + 14, left : left + 12] = 255
    pixels[mask > 0] = (200, 20, 30)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Image.fromarray(mask)


def make_training_set(*, masks: bool = True, captions: tuple[str, ...] = ("", "", "")) -> TrainingSet:
    photos = []
    for index in range(PHOTOS):
        picture, mask = draw_photo(index, width=40 + 8 * index)
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        record = PhotoRecord(
            photo_index=index,
            width=picture.width,
            height=picture.height,
            sha256=digest,
            picture_sha256=digest,
            mask_sha256=digest if masks else None,
            mask_source=MaskSource.UPLOADED if masks else MaskSource.SEGMENTER,
            mask_share=0.1 if masks else 0.0,
            caption=captions[index],
        )
        photos.append(TrainingPhoto(record, picture, mask if masks else None))
    record = TrainingSetRecord(
        training_set_id="ts-0123456789abcdef",
        tenant="default",
        digest="ab" * 32,
        class_word="mug",
        photos=tuple(photo.record for photo in photos),
        warnings=(),
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    return TrainingSet(record, tuple(photos))


@pytest.fixture(scope="session")
def model_settings(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSettings:
    """Settings of the tiny base model; its folder is not to be changed."""
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", "sd1")
    return BaseModelSettings(name="tiny", source=str(folder))


@pytest.fixture(scope="session")
def base_model(model_settings: BaseModelSettings) -> BaseModel:
    """The tiny base model in float32; not to be changed."""
    return load_base_model(model_settings)


@pytest.fixture(scope="session")
def training_set() -> TrainingSet:
    """Three photos of different sizes with masks."""
    return make_training_set()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty object store."""
    return FolderStore(tmp_path / "store")


@pytest.fixture
def make_spec(model_settings: BaseModelSettings, tmp_path: Path):
    """Makes job specs; keyword arguments are hyperparameters. Nothing begins at plain words, for speed."""

    def make(
        method: str = "detex", attributes: tuple[str, ...] | None = None, dtype: str = "auto", **overrides: object
    ) -> JobSpec:
        if attributes is None:
            attributes = ("pose", "background") if method == "detex" else ()
        plain = {"attribute_start": "noun"} | ({"subject_start": "class_word"} if method == "detex" else {})
        return JobSpec.model_validate(
            {
                "job_id": "job-0123456789abcdef",
                "tenant": "default",
                "concept_name": "my-mug",
                "training_set_id": "ts-0123456789abcdef",
                "method": method,
                "hyperparameters": resolve_hyperparameters(method, {"steps": 3, **plain, **overrides}),
                "attributes": attributes,
                "base_model": model_settings,
                "device": "cpu",
                "dtype": dtype,
                "work_folder": tmp_path,
                "object_store": ObjectStoreSettings(url=f"folder://{tmp_path}/store"),
            }
        )

    return make
