"""The photos of the sample subjects that come with detex, as files and as training sets."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from detex_showroom.assets import SampleSubject
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord, TrainingSetRecord


def training_set_of(subject: SampleSubject) -> TrainingSet:
    """A sample subject as the trainer sees it once it is uploaded."""
    photos = []
    for index, sample in enumerate(subject.photos):
        picture, mask = Image.open(sample.image_path).convert("RGB"), Image.open(sample.mask_path).convert("L")
        record = PhotoRecord(
            photo_index=index,
            width=picture.width,
            height=picture.height,
            sha256=_digest(sample.image_path),
            picture_sha256=_digest(sample.image_path),
            mask_sha256=_digest(sample.mask_path),
            mask_source=MaskSource.UPLOADED,
            mask_share=0.0,
            caption="",
        )
        photos.append(TrainingPhoto(record, picture, mask))
    digest = hashlib.sha256(subject.name.encode()).hexdigest()
    record_of_set = TrainingSetRecord(
        training_set_id=f"ts-{digest[:16]}",
        tenant="default",
        digest=digest,
        class_word=subject.class_word,
        photos=tuple(photo.record for photo in photos),
        warnings=(),
        create_time=datetime.now(UTC),
    )
    return TrainingSet(record_of_set, tuple(photos))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
