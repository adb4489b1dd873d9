"""Training sets in the object store: pictures first, set.json last, so that a set is there as a whole or not at all."""

import hashlib
import io
import logging
import re

from PIL import Image
from pydantic import ValidationError

from detex_core.errors import AbortedError, DataLossError, DetexError, NotFoundError, invalid_input
from detex_core.object_store import ObjectStore
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.domain.training_set_record import PhotoRecord, TrainingSetRecord, training_set_not_found

_ID = re.compile(r"ts-[0-9a-f]{16}")

_log = logging.getLogger(__name__)


def training_set_prefix(tenant: str, training_set_id: str) -> str:
    """What the keys of a training set begin with."""
    return f"training_sets/{tenant}/{training_set_id}/"


def record_key(tenant: str, training_set_id: str) -> str:
    """Key of set.json."""
    return f"{training_set_prefix(tenant, training_set_id)}set.json"


def photo_key(tenant: str, training_set_id: str, photo_index: int) -> str:
    """Key of a photo."""
    return f"{training_set_prefix(tenant, training_set_id)}photo_{photo_index}.png"


def mask_key(tenant: str, training_set_id: str, photo_index: int) -> str:
    """Key of a mask."""
    return f"{training_set_prefix(tenant, training_set_id)}mask_{photo_index}.png"


def _stored_mask_key(record: TrainingSetRecord, photo: PhotoRecord) -> str:
    if photo.mask_file:
        return f"{training_set_prefix(record.tenant, record.training_set_id)}{photo.mask_file}"
    return mask_key(record.tenant, record.training_set_id, photo.photo_index)


class TrainingSetArchive:
    """The training sets of an object store; safe to use from several threads.

    Every method raises what the store raises where it does not answer.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def record(self, tenant: str, training_set_id: str) -> TrainingSetRecord:
        """The record of a training set.

        Raises:
            NotFoundError: The tenant has no such training set.
            DataLossError: The record is damaged.
        """
        absent = training_set_not_found(training_set_id)
        if not _ID.fullmatch(training_set_id):
            raise absent
        try:
            data = self._store.get(record_key(tenant, training_set_id))
        except NotFoundError:
            raise absent from None
        try:
            return TrainingSetRecord.model_validate_json(data)
        except ValidationError as error:
            raise DataLossError(f"The record of the training set {training_set_id} is damaged.") from error

    def load(self, tenant: str, training_set_id: str) -> TrainingSet:
        """A training set with its pictures.

        Raises:
            NotFoundError: The tenant has no such training set.
            DataLossError: The record or a picture is missing or not what it was when it was stored.
        """
        record = self.record(tenant, training_set_id)
        return TrainingSet(record, tuple(self._load_photo(record, photo) for photo in record.photos))

    def load_photo(self, record: TrainingSetRecord, photo_index: int) -> TrainingPhoto:
        """One photo with its mask.

        Raises:
            InvalidInputError: The set has no such photo; field `photo_index`.
            DataLossError: A picture is missing or not what it was when it was stored.
        """
        if photo_index >= len(record.photos):
            raise invalid_input("photo_index", photo_index, f"0 to {len(record.photos) - 1}")
        return self._load_photo(record, record.photos[photo_index])

    def put_picture(self, key: str, picture: Image.Image) -> str:
        """Write a photo or mask as PNG; returns the SHA-256 of what was written."""
        buffer = io.BytesIO()
        # Photos hardly compress further: the lowest level takes a tenth of the time for a few per cent of size.
        picture.save(buffer, format="PNG", compress_level=1)
        return self._store.put(key, buffer.getvalue(), if_absent=True, content_type="image/png").sha256

    def put_mask(self, key: str, mask_png: bytes) -> None:
        """Write a mask that is to replace another, as PNG."""
        self._store.put(key, mask_png, content_type="image/png")

    def put_record(self, record: TrainingSetRecord) -> None:
        """Write set.json, after which the set is there."""
        self._store.put(
            record_key(record.tenant, record.training_set_id),
            record.model_dump_json(indent=2).encode(),
            if_absent=True,
            content_type="application/json",
        )

    def replace_record(self, before: TrainingSetRecord, after: TrainingSetRecord) -> None:
        """Write set.json anew, after which the set is as `after` says.

        Raises:
            AbortedError: The set is no longer as `before` says (reason `OBJECT_CHANGED`).
        """
        key = record_key(after.tenant, after.training_set_id)
        try:
            stored = self._store.get(key)
        except NotFoundError:
            raise training_set_not_found(after.training_set_id) from None
        if TrainingSetRecord.model_validate_json(stored) != before:
            raise AbortedError(
                "The training set was changed by another call.", reason="OBJECT_CHANGED", retry_delay_seconds=0.5
            )
        self._store.put(
            key,
            after.model_dump_json(indent=2).encode(),
            if_sha256=hashlib.sha256(stored).hexdigest(),
            content_type="application/json",
        )

    def remove_picture(self, record: TrainingSetRecord, name: str) -> None:
        """Delete a mask that the record does not name; what cannot be deleted now goes with the set."""
        key = f"{training_set_prefix(record.tenant, record.training_set_id)}{name}"
        try:
            self._store.delete(key)
        except DetexError as error:
            _log.warning("%s not deleted: %s", key, error.message)

    def remove_mask(self, record: TrainingSetRecord, photo: PhotoRecord) -> None:
        """Delete a mask that the record names no more; what cannot be deleted now goes with the set."""
        self.remove_picture(record, _stored_mask_key(record, photo).rpartition("/")[2])

    def remove(self, tenant: str, training_set_id: str) -> tuple[str, ...]:
        """Delete all of a training set, its record first; returns the keys of what was deleted."""
        prefix = training_set_prefix(tenant, training_set_id)
        record = record_key(tenant, training_set_id)
        keys = sorted((info.key for info in self._store.list(prefix)), key=lambda key: (key != record, key))
        return tuple(key for key in keys if self._store.delete(key))

    def _load_photo(self, record: TrainingSetRecord, photo: PhotoRecord) -> TrainingPhoto:
        keys = (record.tenant, record.training_set_id, photo.photo_index)
        mask = None
        if photo.mask_sha256 is not None:
            mask = self._load_picture(_stored_mask_key(record, photo), photo.mask_sha256, "L")
        return TrainingPhoto(photo, self._load_picture(photo_key(*keys), photo.picture_sha256, "RGB"), mask)

    def _load_picture(self, key: str, sha256: str, mode: str) -> Image.Image:
        try:
            data = self._store.get(key, expected_sha256=sha256)
        except NotFoundError as error:
            raise DataLossError(f"{key} of the training set is missing.") from error
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        picture.load()
        return picture if picture.mode == mode else picture.convert(mode)
