"""The record of a training set as it is stored: set.json."""

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from detex_core.artifact.manifest import Sha256, TenantName
from detex_core.errors import NotFoundError

MAX_PHOTOS = 64
MAX_CAPTION_CHARACTERS = 1_000
MAX_CLASS_WORD_CHARACTERS = 64
MAX_FILE_NAME_CHARACTERS = 255

TrainingSetId = Annotated[str, StringConstraints(pattern=r"^ts-[0-9a-f]{16}$")]


class MaskSource(StrEnum):
    """Where the mask of a photo comes from."""

    UPLOADED = "uploaded"
    ALPHA = "alpha"
    SEGMENTER = "segmenter"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PhotoRecord(_Record):
    """One photo of a training set.

    Attributes:
        photo_index: Position in the set, from 0.
        width: Width in pixels, after EXIF rotation.
        height: Height in pixels, after EXIF rotation.
        sha256: SHA-256 of the file as sent.
        picture_sha256: SHA-256 of the stored photo_<i>.png.
        mask_sha256: SHA-256 of the stored mask; None where no subject was found yet.
        mask_file: Name of the stored mask where it is not mask_<i>.png, which it is not once it was replaced.
        mask_source: Where the mask comes from.
        mask_share: Share of the picture that the mask covers, 0 to 1; 0 where there is no mask yet.
        caption: What the photo shows, in words; may be empty.
        file_name: Name of the file as its caller gave it, for errors; may be empty.
    """

    photo_index: int = Field(ge=0, lt=MAX_PHOTOS)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    sha256: Sha256
    picture_sha256: Sha256
    mask_sha256: Sha256 | None
    mask_file: str = Field(default="", pattern=r"^(mask_[0-9]+_[0-9a-f]{16}\.png)?$")
    mask_source: MaskSource
    mask_share: float = Field(ge=0, le=1)
    caption: str = Field(max_length=MAX_CAPTION_CHARACTERS)
    file_name: str = Field(default="", max_length=MAX_FILE_NAME_CHARACTERS)


class TrainingSetRecord(_Record):
    """Contents of set.json, written after all photos and masks; sets stored before there was a choice are kept.

    Attributes:
        training_set_id: Id of the set.
        tenant: Owner.
        digest: SHA-256 over class word, photos, masks and captions.
        class_word: One or two plain words for what the subject is.
        photos: The photos in the order of their indices, which have no gaps.
        warnings: Sentences on what may spoil the result.
        keep_photos: Whether it stays when its jobs have ended.
        create_time: When it was uploaded.
    """

    schema_version: Literal[1] = 1
    training_set_id: TrainingSetId
    tenant: TenantName
    digest: Sha256
    class_word: str = Field(min_length=1, max_length=MAX_CLASS_WORD_CHARACTERS)
    photos: tuple[PhotoRecord, ...] = Field(min_length=1, max_length=MAX_PHOTOS)
    warnings: tuple[str, ...]
    keep_photos: bool = True
    create_time: AwareDatetime


def training_set_digest(class_word: str, photos: Sequence[PhotoRecord]) -> str:
    """SHA-256 (hex) over what a training set teaches: class word, photos as sent, stored masks, captions."""
    content = [(photo.sha256, photo.mask_sha256 or "", photo.caption) for photo in photos]
    return hashlib.sha256(json.dumps([class_word, content]).encode()).hexdigest()


def training_set_not_found(training_set_id: str) -> NotFoundError:
    """The error for a training set that there is not."""
    return NotFoundError(
        f"training_set_id: there is no training set {training_set_id[:80]!r}; UploadTrainingSet returns the id. "
        "Photos are deleted when the jobs of their set have ended, unless keep_photos is set.",
        reason="TRAINING_SET_NOT_FOUND",
    )
