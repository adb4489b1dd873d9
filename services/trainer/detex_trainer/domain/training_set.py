"""A training set in memory, as training reads it."""

from dataclasses import dataclass

from PIL import Image

from detex_trainer.domain.training_set_record import PhotoRecord, TrainingSetRecord


@dataclass(frozen=True)
class TrainingPhoto:
    """A photo with its mask.

    Attributes:
        record: What is known of it.
        picture: The photo, mode RGB, `record.width` x `record.height` pixels.
        mask: The subject in white on black, mode L, of the photo's size; None where the segmenter is to find it.
    """

    record: PhotoRecord
    picture: Image.Image
    mask: Image.Image | None


@dataclass(frozen=True)
class TrainingSet:
    """The photos of one subject.

    Attributes:
        record: What is known of the set.
        photos: Its photos in the order of their indices.
    """

    record: TrainingSetRecord
    photos: tuple[TrainingPhoto, ...]
