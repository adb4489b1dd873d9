"""Training sets as the trainer keeps them."""

from dataclasses import dataclass
from typing import Self

from detex_client.wire_enum import MaskSource
from detex_protos.v1 import trainer_pb2


@dataclass(frozen=True)
class StoredPhoto:
    """A photo as the trainer has understood it; fields as `detex.v1.TrainingPhoto` documents them."""

    photo_index: int
    width: int
    height: int
    sha256: str
    mask_source: MaskSource
    mask_share: float
    caption: str
    file_name: str = ""

    @property
    def name(self) -> str:
        """Its index and, where it is known, its file name, human-readable: `2 (cup.jpg)`."""
        if not self.file_name:
            return str(self.photo_index)
        shown = self.file_name if self.file_name.isprintable() else ascii(self.file_name)[1:-1]
        return f"{self.photo_index} ({shown})"

    @classmethod
    def from_wire(cls, photo: trainer_pb2.TrainingPhoto) -> Self:
        """From the message of the contract."""
        return cls(
            photo_index=photo.photo_index,
            width=photo.width,
            height=photo.height,
            sha256=photo.sha256,
            mask_source=MaskSource.from_number(photo.mask_source),
            mask_share=photo.mask_share,
            caption=photo.caption,
            file_name=photo.file_name,
        )


@dataclass(frozen=True)
class MaskView:
    """A mask to look at; fields as `detex.v1.GetMaskResponse` documents them."""

    photo: StoredPhoto
    mask_png: bytes
    preview_png: bytes

    @classmethod
    def from_wire(cls, response: trainer_pb2.GetMaskResponse) -> Self:
        """From the message of the contract."""
        return cls(StoredPhoto.from_wire(response.photo), response.mask_png, response.preview_png)


@dataclass(frozen=True)
class TrainingSet:
    """Photos of one subject, checked and kept; fields as `detex.v1.TrainingSet` documents them."""

    training_set_id: str
    digest: str
    class_word: str
    photos: tuple[StoredPhoto, ...]
    warnings: tuple[str, ...]
    keep_photos: bool = False

    @classmethod
    def from_wire(cls, training_set: trainer_pb2.TrainingSet) -> Self:
        """From the message of the contract."""
        return cls(
            training_set_id=training_set.training_set_id,
            digest=training_set.digest,
            class_word=training_set.class_word,
            photos=tuple(map(StoredPhoto.from_wire, training_set.photos)),
            warnings=tuple(training_set.warnings),
            keep_photos=training_set.keep_photos,
        )
