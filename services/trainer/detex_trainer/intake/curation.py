"""What callers do with a training set once it is stored: look at it, correct its masks, delete it."""

import hashlib
import io
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, ImageStat

from detex_core.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    invalid_input,
)
from detex_core.images import BYTES_PER_PIXEL, decode_mask
from detex_core.memory_budget import MemoryBudget
from detex_trainer.domain.photo_place import photo_place
from detex_trainer.domain.training_set_record import (
    MaskSource,
    PhotoRecord,
    TrainingSetRecord,
    training_set_digest,
    training_set_not_found,
)
from detex_trainer.intake.archive import TrainingSetArchive, training_set_prefix
from detex_trainer.intake.look import PhotoLook, look_at
from detex_trainer.intake.warnings import training_set_warnings
from detex_trainer.jobs import TrainingSetChanges, TrainingSetKey, TrainingSetLedger

_PREVIEW_SIDE = 512
_DARKENED = 0.25
_ATTEMPTS = 5

_Result = TypeVar("_Result")


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


@dataclass(frozen=True)
class _Replacement:
    """A record with another mask, and that mask's file."""

    before: TrainingSetRecord
    after: TrainingSetRecord
    photo_index: int
    name: str
    mask_png: bytes


class TrainingSetCuration:
    """Looks at training sets and changes them; safe to use from several threads.

    Args:
        archive: Where they are stored.
        ledger: Where they are listed.
        changes: Gives a set to one change at a time.
        max_file_bytes: Size of a mask.
        pictures: Memory for pictures while they are decoded.
    """

    def __init__(
        self,
        archive: TrainingSetArchive,
        ledger: TrainingSetLedger,
        changes: TrainingSetChanges,
        *,
        max_file_bytes: int,
        pictures: MemoryBudget,
    ) -> None:
        self._archive = archive
        self._ledger = ledger
        self._changes = changes
        self._max_file_bytes = max_file_bytes
        self._pictures = pictures

    def record(self, tenant: str, training_set_id: str) -> TrainingSetRecord:
        """The record of a training set; NotFoundError where the tenant has none, or one that is being deleted."""
        record = self._archive.record(tenant, training_set_id)
        if self._changes.is_going(tenant, training_set_id):
            raise training_set_not_found(training_set_id)
        return record

    def mask(self, tenant: str, training_set_id: str, photo_index: int) -> MaskView:
        """The mask of a photo.

        Raises:
            NotFoundError: The tenant has no such training set.
            InvalidInputError: The set has no such photo.
        """
        return self._as_it_stands(tenant, training_set_id, lambda record: self._view(record, photo_index))

    def _view(self, record: TrainingSetRecord, photo_index: int) -> MaskView:
        with self._holding(record):
            photo = self._archive.load_photo(record, photo_index)
            return MaskView(
                photo.record,
                _png(photo.mask) if photo.mask is not None else b"",
                _png(_preview(photo.picture, photo.mask)),
            )

    def _holding(self, record: TrainingSetRecord) -> AbstractContextManager[None]:
        """Memory for one photo of a set at a time."""
        largest = max((photo.width * photo.height for photo in record.photos), default=0)
        return self._pictures.hold(largest * BYTES_PER_PIXEL, record.tenant)

    def replace_mask(
        self, tenant: str, training_set_id: str, photo_index: int, mask: bytes, base_model_side: int | None
    ) -> TrainingSetRecord:
        """Put another mask in the place of one.

        Returns:
            The training set as it is now.

        Raises:
            NotFoundError: The tenant has no such training set.
            InvalidInputError: The set has no such photo, or the mask is too large a file or none of its size.
            FailedPreconditionError: Jobs that have not ended use the set (reason `TRAINING_SET_IN_USE`).
            AbortedError: Another call changes the set at this moment (reason `TRAINING_SET_CHANGING`).
        """
        if len(mask) > self._max_file_bytes:
            raise invalid_input("mask", f"{len(mask):,} bytes", f"at most {self._max_file_bytes:,} bytes")
        for attempt in range(1, _ATTEMPTS + 1):
            replacement = self._as_it_stands(
                tenant, training_set_id, lambda record: self._changed(record, photo_index, mask, base_model_side)
            )
            try:
                self._replace(replacement)
            except AbortedError as error:
                if error.reason != "OBJECT_CHANGED" or attempt == _ATTEMPTS:
                    raise
            else:
                return replacement.after
        raise AssertionError("not reached")

    def _changed(
        self, record: TrainingSetRecord, photo_index: int, mask: bytes, base_model_side: int | None
    ) -> "_Replacement":
        with self._holding(record):
            return self._with_mask(record, photo_index, mask, base_model_side)

    def _with_mask(
        self, record: TrainingSetRecord, photo_index: int, mask: bytes, base_model_side: int | None
    ) -> "_Replacement":
        before = self._archive.load_photo(record, photo_index).record
        try:
            decoded = decode_mask(mask, field="mask", size=(before.width, before.height))
        except InvalidInputError as error:
            raise error.at(photo_place(photo_index, before.file_name)) from error.__cause__
        data = _png(decoded)
        # Under a name of its own: readers find either the old mask or the new one, each with its hash.
        name = f"mask_{photo_index}_{secrets.token_hex(8)}.png"
        photo = before.model_copy(
            update={
                "mask_sha256": hashlib.sha256(data).hexdigest(),
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
        return _Replacement(record, changed, photo_index, name, data)

    def _replace(self, replacement: "_Replacement") -> None:
        """Write the mask and then the record, while no job begins to use the set; all of it or nothing."""
        record, name = replacement.before, replacement.name
        before = record.photos[replacement.photo_index]
        key = f"{training_set_prefix(record.tenant, record.training_set_id)}{name}"
        with self._changes.changing(record.tenant, record.training_set_id) as change:
            try:
                self._archive.put_mask(key, replacement.mask_png)
                change.confirm()
                self._archive.replace_record(record, replacement.after)
            except (AbortedError, NotFoundError, FailedPreconditionError):
                # Anything else leaves open whether the record was written: an unnamed mask goes with the set.
                self._archive.remove_picture(record, name)
                raise
            if before.mask_sha256 is not None:
                self._archive.remove_mask(record, before)

    def delete(self, tenant: str, training_set_id: str) -> tuple[str, ...]:
        """Delete a training set; returns the keys of what is gone.

        Raises:
            NotFoundError: The tenant has no such training set.
            FailedPreconditionError: Jobs that have not ended use it (reason `TRAINING_SET_IN_USE`).
            AbortedError: Another call changes it at this moment (reason `TRAINING_SET_CHANGING`).
        """
        self._archive.record(tenant, training_set_id)
        # One that is noted as deleted and still there goes now: the store may have come back from a backup.
        with suppress(NotFoundError):
            self._ledger.request_deletion(tenant, training_set_id)
        deleted = self._archive.remove(tenant, training_set_id)
        self._ledger.mark_deleted(TrainingSetKey(tenant, training_set_id))
        return deleted

    def _as_it_stands(self, tenant: str, training_set_id: str, read: Callable[[TrainingSetRecord], _Result]) -> _Result:
        """What is read of a set; read again where another call has changed it meanwhile, and its old mask is gone."""
        for attempt in range(1, _ATTEMPTS + 1):
            record = self.record(tenant, training_set_id)
            try:
                return read(record)
            except DataLossError:
                if attempt == _ATTEMPTS or self.record(tenant, training_set_id) == record:
                    raise
        raise AssertionError("not reached")

    def _look(self, record: TrainingSetRecord, index: int, mask: Image.Image | None) -> PhotoLook:
        """One photo at a glance, with another mask where one is given; no two are in memory at a time."""
        photo = self._archive.load_photo(record, index)
        return look_at(photo.picture, mask or photo.mask)


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
