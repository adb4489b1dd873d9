"""What callers do with a training set once it is stored: look at it, correct its masks, delete it."""

import hashlib
import io
from dataclasses import dataclass

from PIL import Image, ImageStat

from detex_core.errors import FailedPreconditionError, ResourceExhaustedError
from detex_core.images import decode_mask
from detex_trainer.jobs import TrainingSetKey, TrainingSetLedger
from detex_trainer.training_set.archive import TrainingSetArchive, training_set_prefix
from detex_trainer.training_set.look import PhotoLook, look_at
from detex_trainer.training_set.record import MaskSource, PhotoRecord, TrainingSetRecord, training_set_digest
from detex_trainer.training_set.warnings import training_set_warnings

_PREVIEW_SIDE = 512
_DARKENED = 0.25


@dataclass(frozen=True)
class MaskView:
    """A mask to look at.

    Attributes:
        photo: What is known of its photo.
        mask_png: The mask; empty where no subject was found.
        preview_png: The photo, reduced, darkened around the subject.
    """

    photo: PhotoRecord
    mask_png: bytes
    preview_png: bytes


class TrainingSetCuration:
    """Looks at training sets and changes them; safe to use from several threads.

    Args:
        archive: Where they are stored.
        ledger: Where they are listed.
        max_file_bytes: Size of a mask.
    """

    def __init__(self, archive: TrainingSetArchive, ledger: TrainingSetLedger, *, max_file_bytes: int) -> None:
        self._archive = archive
        self._ledger = ledger
        self._max_file_bytes = max_file_bytes

    def mask(self, tenant: str, training_set_id: str, photo_index: int) -> MaskView:
        """The mask of a photo.

        Raises:
            NotFoundError: The tenant has no such training set.
            InvalidInputError: The set has no such photo.
        """
        record = self._archive.record(tenant, training_set_id)
        photo = self._archive.load_photo(record, photo_index)
        return MaskView(
            photo.record,
            _png(photo.mask) if photo.mask is not None else b"",
            _png(_preview(photo.picture, photo.mask)),
        )

    def replace_mask(
        self, tenant: str, training_set_id: str, photo_index: int, mask: bytes, base_model_side: int | None
    ) -> TrainingSetRecord:
        """Put another mask in the place of one.

        Returns:
            The training set as it is now.

        Raises:
            NotFoundError: The tenant has no such training set.
            InvalidInputError: The set has no such photo, or the mask is none of its size.
            FailedPreconditionError: Jobs that have not ended use the set (reason `TRAINING_SET_IN_USE`).
            ResourceExhaustedError: The mask is too large.
        """
        if len(mask) > self._max_file_bytes:
            raise ResourceExhaustedError(
                f"mask: given {len(mask):,} bytes; accepted is at most {self._max_file_bytes:,}."
            )
        record = self._archive.record(tenant, training_set_id)
        before = self._archive.load_photo(record, photo_index).record
        decoded = decode_mask(mask, field="mask", size=(before.width, before.height))
        self._check_unused(tenant, training_set_id)
        # Under a name of its own: readers find either the old mask or the new one, each with its hash.
        name = f"mask_{photo_index}_{hashlib.sha256(decoded.tobytes()).hexdigest()[:16]}.png"
        sha256 = self._archive.put_mask(f"{training_set_prefix(tenant, training_set_id)}{name}", decoded)
        photo = before.model_copy(
            update={
                "mask_sha256": sha256,
                "mask_file": name,
                "mask_source": MaskSource.UPLOADED,
                "mask_share": float(ImageStat.Stat(decoded).mean[0] / 255),
            }
        )
        photos = (*record.photos[:photo_index], photo, *record.photos[photo_index + 1 :])
        looks = [self._look(record, index, decoded if index == photo_index else None) for index in range(len(photos))]
        changed = record.model_copy(
            update={
                "photos": photos,
                "digest": training_set_digest(record.class_word, photos),
                "warnings": training_set_warnings(photos, base_model_side, looks),
            }
        )
        self._archive.replace_record(changed)
        if before.mask_sha256 is not None and before.mask_file != name:
            self._archive.remove_mask(record, before)
        return changed

    def delete(self, tenant: str, training_set_id: str) -> tuple[str, ...]:
        """Delete a training set; returns the keys of what is gone.

        Raises:
            NotFoundError: The tenant has no such training set.
            FailedPreconditionError: Jobs that have not ended use it (reason `TRAINING_SET_IN_USE`).
        """
        self._archive.record(tenant, training_set_id)
        self._ledger.request_deletion(tenant, training_set_id)
        deleted = self._archive.remove(tenant, training_set_id)
        self._ledger.mark_deleted(TrainingSetKey(tenant, training_set_id))
        return deleted

    def _look(self, record: TrainingSetRecord, index: int, mask: Image.Image | None) -> PhotoLook:
        """One photo at a glance, with another mask where one is given; no two are in memory at a time."""
        photo = self._archive.load_photo(record, index)
        return look_at(photo.picture, mask or photo.mask)

    def _check_unused(self, tenant: str, training_set_id: str) -> None:
        if self._ledger.is_used(tenant, training_set_id):
            raise FailedPreconditionError(
                f"Jobs that have not ended use the training set {training_set_id}; change it before or after them.",
                reason="TRAINING_SET_IN_USE",
            )


def _preview(picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    shown = picture.copy()
    shown.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    if mask is None:
        return shown
    dark = shown.point([round(value * _DARKENED) for value in range(256)] * 3)
    return Image.composite(shown, dark, mask.resize(shown.size, Image.Resampling.BOX))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
