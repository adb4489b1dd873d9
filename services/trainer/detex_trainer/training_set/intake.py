"""Takes uploads in: spooled to disk, checked, normalised, and kept in the object store as a whole or not at all."""

import asyncio
import hashlib
import json
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from detex_core.errors import AbortedError, ResourceExhaustedError
from detex_core.object_store.disk import disk_errors
from detex_trainer.training_set.archive import TrainingSetArchive, mask_key, photo_key
from detex_trainer.training_set.pictures import decode_pictures
from detex_trainer.training_set.record import PhotoRecord, TrainingSetRecord
from detex_trainer.training_set.upload import Upload, UploadedFile, UploadLimits, UploadPart, receive_upload
from detex_trainer.training_set.warnings import training_set_warnings

_ABANDONED_SECONDS = 24 * 3_600
_BUSY_RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


class TrainingSetIntake:
    """Takes uploads; for use within one event loop.

    Args:
        archive: Where training sets are kept.
        spool_folder: Where files lie while they are received; created where it is missing.
        limits: What an upload may hold.
        max_uploads: Uploads at a time.
        idle_seconds: Longest silence within an upload.
    """

    def __init__(
        self,
        archive: TrainingSetArchive,
        spool_folder: Path,
        limits: UploadLimits,
        *,
        max_uploads: int,
        idle_seconds: float,
    ) -> None:
        self._archive = archive
        self._spool_folder = spool_folder
        self._limits = limits
        self._free = max_uploads
        self._idle_seconds = idle_seconds
        # A decoded photo can take hundreds of megabytes, so they are decoded one after another.
        self._decoding = asyncio.Semaphore(1)
        with disk_errors("The folder for uploads"):
            spool_folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(spool_folder)

    async def take(
        self, tenant: str, parts: AsyncIterator[UploadPart], base_model_side: int | None
    ) -> TrainingSetRecord:
        """Take an upload.

        Args:
            tenant: Owner.
            parts: The parts as they arrive.
            base_model_side: Pixels of the shorter side of the base model's pictures, for warnings; None if not known.

        Raises:
            InvalidInputError: Something in the upload is wrong; the field names it.
            AbortedError: No part came for too long (reason `UPLOAD_IDLE`).
            ResourceExhaustedError: Too many uploads run (reason `TOO_MANY_UPLOADS`), or a disk is full.
            UnavailableError: The object store does not answer.
        """
        if self._free == 0:
            raise ResourceExhaustedError(
                "Too many uploads run at a time; try again in a moment.",
                reason="TOO_MANY_UPLOADS",
                retry_delay_seconds=_BUSY_RETRY_SECONDS,
            )
        self._free -= 1
        try:
            with disk_errors("The folder for uploads"), tempfile.TemporaryDirectory(dir=self._spool_folder) as folder:
                upload = await receive_upload(self._unless_idle(parts), Path(folder), self._limits)
                async with self._decoding:
                    return await self._keep(tenant, upload, base_model_side)
        finally:
            self._free += 1

    async def _unless_idle(self, parts: AsyncIterator[UploadPart]) -> AsyncIterator[UploadPart]:
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise AbortedError(
                    f"Nothing came for {self._idle_seconds:g} seconds; send the upload again.", reason="UPLOAD_IDLE"
                ) from None
            yield part

    async def _keep(self, tenant: str, upload: Upload, base_model_side: int | None) -> TrainingSetRecord:
        caller_is_gone = threading.Event()
        keeping = asyncio.create_task(
            asyncio.to_thread(self._keep_pictures, tenant, upload, base_model_side, caller_is_gone)
        )
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The thread reads spooled files and must have ended before they go.
            caller_is_gone.set()
            await asyncio.wait((keeping,))
            raise

    def _keep_pictures(
        self, tenant: str, upload: Upload, base_model_side: int | None, caller_is_gone: threading.Event
    ) -> TrainingSetRecord:
        training_set_id = f"ts-{secrets.token_hex(8)}"
        kept = False
        try:
            photos = []
            for photo in upload.photos:
                if caller_is_gone.is_set():
                    raise AbortedError("The caller is gone.")
                photos.append(self._keep_photo(tenant, training_set_id, photo, upload.masks))
            record = TrainingSetRecord(
                training_set_id=training_set_id,
                tenant=tenant,
                digest=_digest(upload),
                class_word=upload.class_word,
                photos=tuple(photos),
                warnings=training_set_warnings(photos, base_model_side),
                create_time=datetime.now(UTC),
            )
            self._archive.put_record(record)
            kept = not caller_is_gone.is_set()
            return record
        finally:
            if not kept:
                self._archive.discard(tenant, training_set_id)

    def _keep_photo(
        self, tenant: str, training_set_id: str, file: UploadedFile, masks: dict[int, UploadedFile]
    ) -> PhotoRecord:
        index = file.header.photo_index
        decoded = decode_pictures(file, masks.get(index))
        mask_sha256 = None
        if decoded.mask is not None:
            mask_sha256 = self._archive.put_picture(mask_key(tenant, training_set_id, index), decoded.mask)
        return PhotoRecord(
            photo_index=index,
            width=decoded.picture.width,
            height=decoded.picture.height,
            sha256=file.sha256,
            picture_sha256=self._archive.put_picture(photo_key(tenant, training_set_id, index), decoded.picture),
            mask_sha256=mask_sha256,
            mask_source=decoded.mask_source,
            mask_share=decoded.mask_share,
            caption=file.header.caption,
        )


def _digest(upload: Upload) -> str:
    masks = {index: mask.sha256 for index, mask in upload.masks.items()}
    photos: Sequence[tuple[str, str, str]] = [
        (photo.sha256, masks.get(photo.header.photo_index, ""), photo.header.caption) for photo in upload.photos
    ]
    return hashlib.sha256(json.dumps([upload.class_word, photos]).encode()).hexdigest()


def _remove_abandoned(spool_folder: Path) -> None:
    """Remove what uploads of a trainer that was killed have left."""
    for folder in spool_folder.iterdir():
        if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            _log.info("removing %s, left by an upload of a trainer that was killed", folder)
            shutil.rmtree(folder, ignore_errors=True)
