"""Takes uploads in: spooled to disk, checked, normalised, and kept in the object store as a whole or not at all."""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from PIL import Image, ImageStat
from sqlalchemy.exc import IntegrityError

from detex_core.errors import AbortedError, DetexError, NotFoundError, invalid_input
from detex_core.memory_budget import MemoryBudget
from detex_core.object_store.disk import disk_errors
from detex_core.tenant_threads import TenantThreads
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord, TrainingSetRecord, training_set_digest
from detex_trainer.intake.archive import TrainingSetArchive, mask_key, photo_key
from detex_trainer.intake.look import PhotoLook, look_at
from detex_trainer.intake.pictures import decode_pictures, decoding_bytes_of
from detex_trainer.intake.segmenters.segmentation import SegmentationRequest, SegmentationTask, segment_apart
from detex_trainer.intake.spool import UploadSpool, check_upload_id
from detex_trainer.intake.text_limits import TextReader, check_upload_texts
from detex_trainer.intake.upload import Upload, UploadLimits, out_of_order, receive_upload
from detex_trainer.intake.upload_parts import (
    Chunk,
    FileHeader,
    ReceivedFile,
    UnknownPart,
    UploadedFile,
    UploadHeader,
    UploadPart,
)
from detex_trainer.intake.upload_places import UploadPlace, UploadPlaces
from detex_trainer.intake.warnings import training_set_warnings
from detex_trainer.jobs import NewTrainingSet, TrainingSetLedger

_SEGMENTATION_SECONDS_PER_PHOTO = 20.0
_SEGMENTER_WAIT_SECONDS = 600.0
_UPLOAD_ID = "header.upload_id"
_IDLE_RETRY_SECONDS = 1.0
NO_SEGMENTER = "none"
_FIRST_PARTS = {
    FileHeader: "a file before the header",
    Chunk: "a chunk before any file",
    UnknownPart: "a part without content",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IntakePolicy:
    """What is taken.

    Attributes:
        limits: What an upload may hold.
        max_uploads: Uploads at a time.
        max_tenant_uploads: Of one tenant.
        slow_bytes_per_second: An upload that is slower makes room for others.
        idle_seconds: Longest silence within an upload.
        max_tenant_bytes: Bytes of all sets of a tenant; 0 sets no limit.
        segmenter: Who finds the subject in photos without a mask.
    """

    limits: UploadLimits
    max_uploads: int
    max_tenant_uploads: int
    slow_bytes_per_second: float
    idle_seconds: float
    max_tenant_bytes: int
    segmenter: str


class TrainingSetIntake:
    """Takes uploads; for use within one event loop.

    Args:
        archive: Where training sets are kept.
        ledger: Where they are listed.
        spool: Where files lie while they are received.
        policy: What is taken.
        pictures: Memory for pictures while they are decoded.
    """

    def __init__(
        self,
        archive: TrainingSetArchive,
        ledger: TrainingSetLedger,
        spool: UploadSpool,
        policy: IntakePolicy,
        pictures: MemoryBudget,
        threads: TenantThreads,
    ) -> None:
        self._threads = threads
        self._archive = archive
        self._ledger = ledger
        self._spool = spool
        self._policy = policy
        self._places = UploadPlaces(
            policy.max_uploads,
            of_tenant=policy.max_tenant_uploads,
            slow_bytes_per_second=policy.slow_bytes_per_second,
        )
        self._pictures = pictures
        # Threads of its own: who waits for memory must not keep others from theirs.
        self._keeping = ThreadPoolExecutor(policy.max_uploads, "keeping")
        self._segmenting = MemoryBudget(
            1, what="finding subjects", reason="SEGMENTER_BUSY", longest_wait_seconds=_SEGMENTER_WAIT_SECONDS
        )

    async def take(
        self, tenant: str, parts: AsyncIterator[UploadPart], base_model_side: int | None, text_reader: TextReader | None
    ) -> TrainingSetRecord:
        """Take an upload.

        Args:
            tenant: Owner.
            parts: The parts as they arrive.
            base_model_side: Pixels of the shorter side of the base model's pictures; None if not known.
            text_reader: Reads text as the base model does; None if not known.

        Returns:
            What was kept; for an upload id that is known what it has become.

        Raises:
            InvalidInputError: Something in the upload is wrong; the field names it.
            AbortedError: No part came for too long (reason `UPLOAD_IDLE`), or another stream of the same upload is
                being received (reason `UPLOAD_RUNNING`), or it is slow and others wait (reason `UPLOAD_SLOW`).
            ResourceExhaustedError: Too many uploads run (reason `TOO_MANY_UPLOADS`, or `TOO_MANY_UPLOADS_OF_TENANT`),
                the tenant keeps too much (reason `STORAGE_QUOTA`), or a disk is full.
            UnavailableError: The object store does not answer.
        """
        async with self._places.place(tenant) as place:
            timely = self._unless_idle(parts, place)
            header = await anext(timely, None)
            if not isinstance(header, UploadHeader):
                raise out_of_order(_FIRST_PARTS.get(type(header), "a stream without header"))
            known = await self.find(tenant, header.upload_id, field=_UPLOAD_ID) if header.upload_id else None
            if known is not None:
                return known
            with disk_errors("The folder for uploads"), self._spool.folder(tenant, header.upload_id) as folder:
                upload = await receive_upload(header, timely, folder, self._policy.limits)
                place.is_receiving = False
                if text_reader is not None:
                    await self._threads.run(check_upload_texts, text_reader, upload)
                return await self._keep(tenant, upload, folder, base_model_side)

    async def find(self, tenant: str, upload_id: str, *, field: str = "upload_id") -> TrainingSetRecord | None:
        """What an upload has become; None where it has not ended. Raises as `check_upload_id`."""
        check_upload_id(upload_id, field=field)
        training_set_id = await self._threads.run(self._ledger.find_upload, tenant, upload_id)
        if training_set_id is None:
            return None
        try:
            record = await self._threads.run(self._archive.record, tenant, training_set_id)
        except NotFoundError:
            return None  # listed, and not yet stored
        # Its trainer may have died before it could say so.
        await self._threads.run(self._ledger.mark_stored, tenant, training_set_id)
        return record

    def received(self, tenant: str, upload_id: str) -> tuple[ReceivedFile, ...]:
        """What came of an upload that broke off; raises InvalidInputError for a malformed id."""
        return self._spool.received(tenant, upload_id)

    async def _unless_idle(self, parts: AsyncIterator[UploadPart], place: UploadPlace) -> AsyncIterator[UploadPart]:
        while True:
            try:
                async with asyncio.timeout(self._policy.idle_seconds):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise AbortedError(
                    f"Nothing was received for {self._policy.idle_seconds:g} seconds; send the upload again.",
                    reason="UPLOAD_IDLE",
                    retry_delay_seconds=_IDLE_RETRY_SECONDS,
                ) from None
            place.received_bytes += len(part.data) if isinstance(part, Chunk) else 0
            yield part

    async def _keep(self, tenant: str, upload: Upload, folder: Path, base_model_side: int | None) -> TrainingSetRecord:
        caller_is_gone = threading.Event()
        work = partial(self._keep_pictures, tenant, upload, folder, base_model_side, caller_is_gone)
        context = copy_context()
        keeping = asyncio.get_running_loop().run_in_executor(self._keeping, lambda: context.run(work))
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The thread reads spooled files and must have ended before they go.
            caller_is_gone.set()
            await asyncio.wait((keeping,))
            keeping.exception()  # nobody is left to hear of it
            raise

    def _keep_pictures(
        self,
        tenant: str,
        upload: Upload,
        folder: Path,
        base_model_side: int | None,
        caller_is_gone: threading.Event,
    ) -> TrainingSetRecord:
        training_set_id = f"ts-{secrets.token_hex(8)}"
        self._list(tenant, training_set_id, upload)
        kept = False
        try:
            photos, looks = [], []
            for photo in upload.photos:
                if caller_is_gone.is_set():
                    raise AbortedError("The caller disconnected.")
                record, look = self._keep_photo(tenant, training_set_id, photo, upload.masks, folder)
                photos.append(record)
                looks.append(look)
            photos = self._segmented(tenant, training_set_id, photos, folder)
            stored = TrainingSetRecord(
                training_set_id=training_set_id,
                tenant=tenant,
                digest=training_set_digest(upload.class_word, photos),
                class_word=upload.class_word,
                photos=tuple(photos),
                warnings=training_set_warnings(photos, base_model_side, looks),
                keep_photos=upload.keep_photos,
                create_time=datetime.now(UTC),
            )
            self._archive.put_record(stored)
            self._ledger.mark_stored(tenant, training_set_id)
            # Under an id of its own, an upload whose caller is gone is there to be found when it asks again.
            kept = bool(upload.upload_id) or not caller_is_gone.is_set()
            return stored
        finally:
            if not kept:
                self._drop(tenant, training_set_id)

    def _list(self, tenant: str, training_set_id: str, upload: Upload) -> None:
        stale = self._ledger.find_upload(tenant, upload.upload_id) if upload.upload_id else None
        if stale is not None:  # its trainer died while it stored the pictures
            self._drop(tenant, stale)
        new = NewTrainingSet(
            tenant, training_set_id, upload.upload_id, upload.size_bytes, upload.keep_photos, is_stored=False
        )
        try:
            self._ledger.add(new, max_tenant_bytes=self._policy.max_tenant_bytes)
        except IntegrityError:
            raise invalid_input(_UPLOAD_ID, upload.upload_id, "the id of an upload whose photos still exist") from None

    def _drop(self, tenant: str, training_set_id: str) -> None:
        """Delete what an upload that failed has written; what cannot be deleted now stays listed as to be deleted."""
        try:
            try:
                self._archive.remove(tenant, training_set_id)
            except DetexError as error:
                _log.warning("the upload %s is deleted later: %s", training_set_id, error.message)
                self._ledger.give_up(tenant, training_set_id)
            else:
                self._ledger.remove(tenant, training_set_id)
        except DetexError as error:
            _log.warning("training set %s stays listed until it expires: %s", training_set_id, error.message)

    def _keep_photo(
        self, tenant: str, training_set_id: str, file: UploadedFile, masks: dict[int, UploadedFile], folder: Path
    ) -> tuple[PhotoRecord, PhotoLook]:
        index = file.header.photo_index
        mask = masks.get(index)
        with self._pictures.hold(decoding_bytes_of(file, mask), tenant):
            return self._keep_decoded(tenant, training_set_id, file, mask, folder)

    def _keep_decoded(
        self, tenant: str, training_set_id: str, file: UploadedFile, mask: UploadedFile | None, folder: Path
    ) -> tuple[PhotoRecord, PhotoLook]:
        index = file.header.photo_index
        decoded = decode_pictures(file, mask)
        mask_sha256 = None
        if decoded.mask is not None:
            mask_sha256 = self._archive.put_picture(mask_key(tenant, training_set_id, index), decoded.mask)
        elif self._policy.segmenter != NO_SEGMENTER:
            decoded.picture.save(_photo_to_segment(folder, index), format="PNG", compress_level=1)
        record = PhotoRecord(
            photo_index=index,
            width=decoded.picture.width,
            height=decoded.picture.height,
            sha256=file.sha256,
            picture_sha256=self._archive.put_picture(photo_key(tenant, training_set_id, index), decoded.picture),
            mask_sha256=mask_sha256,
            mask_source=decoded.mask_source,
            mask_share=decoded.mask_share,
            caption=file.header.caption,
            file_name=file.header.file_name,
        )
        return record, look_at(decoded.picture, decoded.mask)

    def _segmented(
        self, tenant: str, training_set_id: str, photos: list[PhotoRecord], folder: Path
    ) -> list[PhotoRecord]:
        """The photos with masks found for those that came without."""
        unmasked = [photo.photo_index for photo in photos if photo.mask_sha256 is None]
        if not unmasked or self._policy.segmenter == NO_SEGMENTER:
            return photos
        tasks = tuple(
            SegmentationTask(
                photo=_photo_to_segment(folder, index).absolute(), mask=_found_mask(folder, index).absolute()
            )
            for index in unmasked
        )
        request = SegmentationRequest(segmenter=self._policy.segmenter, tasks=tasks)
        with self._segmenting.hold(1, tenant):
            answer = segment_apart(request, timeout_seconds=_SEGMENTATION_SECONDS_PER_PHOTO * len(tasks) + 30)
        found = dict(zip(unmasked, answer.found, strict=True))
        return [
            self._with_found_mask(tenant, training_set_id, photo, folder) if found.get(photo.photo_index) else photo
            for photo in photos
        ]

    def _with_found_mask(self, tenant: str, training_set_id: str, photo: PhotoRecord, folder: Path) -> PhotoRecord:
        with Image.open(_found_mask(folder, photo.photo_index), formats=["PNG"]) as opened:
            mask = opened.convert("L")
        if mask.size != (photo.width, photo.height):
            _log.error("the segmenter made a mask of another size than the photo; it is not used")
            return photo
        sha256 = self._archive.put_picture(mask_key(tenant, training_set_id, photo.photo_index), mask)
        share = float(ImageStat.Stat(mask).mean[0] / 255)
        return photo.model_copy(
            update={"mask_sha256": sha256, "mask_source": MaskSource.SEGMENTER, "mask_share": share}
        )


def _photo_to_segment(folder: Path, index: int) -> Path:
    return folder / f"picture_{index}.png"


def _found_mask(folder: Path, index: int) -> Path:
    return folder / f"subject_{index}.png"
