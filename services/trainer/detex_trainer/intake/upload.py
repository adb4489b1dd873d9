"""An upload as it arrives: parts in order, files spooled to disk and checked against what was announced."""

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from detex_core.errors import AbortedError, DetexError, invalid_input
from detex_trainer.domain.training_set_record import MAX_CAPTION_CHARACTERS, MAX_FILE_NAME_CHARACTERS
from detex_trainer.intake.class_word import checked_class_word
from detex_trainer.intake.open_file import OpenFile
from detex_trainer.intake.upload_parts import (
    Chunk,
    FileHeader,
    FileKind,
    ReceivedFile,
    UnknownPart,
    UploadedFile,
    UploadHeader,
    UploadPart,
    naming_file,
)

INCOMPLETE_RETRY_SECONDS = 0.5

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ORDER = "the upload header, then for each file its header and its bytes in chunks"


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may hold.

    Attributes:
        max_photos: Photos, and as many masks.
        max_file_bytes: Size of one file.
        max_total_bytes: Size of all files.
    """

    max_photos: int
    max_file_bytes: int
    max_total_bytes: int


@dataclass(frozen=True)
class Upload:
    """A complete upload: the photo indices run from 0 without gaps, each mask has its photo.

    Attributes:
        class_word: Class word, checked.
        keep_photos: Whether the photos stay when their jobs have ended.
        upload_id: Chosen by the caller; empty for none.
        photos: The photos in the order of their indices.
        masks: The masks by the index of their photo.
    """

    class_word: str
    keep_photos: bool
    upload_id: str
    photos: tuple[UploadedFile, ...]
    masks: dict[int, UploadedFile]

    @property
    def size_bytes(self) -> int:
        """Size of all files as sent."""
        return sum(file.header.size_bytes for file in (*self.photos, *self.masks.values()))


def spooled_name(header: FileHeader) -> str:
    """Name of the file that the bytes of a file are spooled to, by which a later stream finds them."""
    return f"{header.kind}_{header.photo_index}_{header.sha256 or 'unchecked'}"


def received_files(folder: Path) -> tuple[ReceivedFile, ...]:
    """What an upload that broke off has left in its folder; none where there is no folder."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        kind, _, rest = path.name.partition("_")
        index, _, sha256 = rest.partition("_")
        if _SHA256.fullmatch(sha256):
            found.append(ReceivedFile(FileKind(kind), int(index), sha256, path.stat().st_size))
    return tuple(found)


async def receive_upload(
    header: UploadHeader, parts: AsyncIterator[UploadPart], folder: Path, limits: UploadLimits
) -> Upload:
    """Take an upload; holds one chunk in memory at a time.

    Args:
        header: The first part.
        parts: The parts after it as they arrive.
        folder: Where files are spooled, and where those of an earlier stream of the same upload lie.
        limits: What the upload may hold.

    Raises:
        InvalidInputError: A part comes out of its order, or a file is not as announced; the field names it, for
            example `files[2].sha256`.
        AbortedError: The stream ended too early for an upload with an id (reason `UPLOAD_INCOMPLETE`).
        OSError: The folder cannot be written.
    """
    receiver = UploadReceiver(header, folder, limits)
    try:
        async for part in parts:
            if isinstance(part, FileHeader) and part.offset_bytes:
                # What an earlier stream has left of the file is read again, which is not for the event loop.
                await _in_thread(partial(receiver.take, part))
            else:
                receiver.take(part)
        return receiver.finish()
    finally:
        receiver.close()


async def _in_thread(work: Callable[[], None]) -> None:
    """Do something apart from the event loop; whoever is cancelled meanwhile continues when it is done."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        if not running.cancelled():
            running.exception()  # nobody is left to hear of it
        raise


class UploadReceiver:
    """The state of an upload between its parts."""

    def __init__(self, header: UploadHeader, folder: Path, limits: UploadLimits) -> None:
        if header.upload_id and not 1 <= header.file_count <= 2 * limits.max_photos:
            accepted = f"1 to {2 * limits.max_photos} with upload_id"
            raise invalid_input("header.file_count", header.file_count, accepted)
        self._header = header
        self._class_word = checked_class_word(header.class_word)
        self._folder = folder
        self._limits = limits
        self._files: list[UploadedFile] = []
        self._open_file: OpenFile | None = None
        self._announced_bytes = 0

    def take(self, part: UploadPart) -> None:
        """Take the next part; raises as `receive_upload`."""
        match part:
            case UploadHeader():
                raise out_of_order("a second header")
            case FileHeader():
                self._finish_file()
                with naming_file(part):
                    self._begin_file(part)
            case Chunk():
                if self._open_file is None:
                    raise out_of_order("a chunk before any file")
                with naming_file(self._open_file.header):
                    self._open_file.write(part.data)
            case UnknownPart():
                raise out_of_order("a part without content")

    def finish(self) -> Upload:
        """The complete upload; raises as `receive_upload`."""
        if self._header.upload_id:
            self._check_complete()
        self._finish_file()
        photos = {file.header.photo_index: file for file in self._files if file.header.kind is FileKind.PHOTO}
        masks = {file.header.photo_index: file for file in self._files if file.header.kind is FileKind.MASK}
        if not photos:
            raise invalid_input("files", "none", f"1 to {self._limits.max_photos} photos")
        self._check_indices(photos)
        for index, mask in masks.items():
            if index not in photos:
                with naming_file(mask.header):
                    raise invalid_input(f"{mask.field}.photo_index", f"{index}", "the index of an uploaded photo")
        return Upload(
            class_word=self._class_word,
            keep_photos=self._header.keep_photos,
            upload_id=self._header.upload_id,
            photos=tuple(photos[index] for index in sorted(photos)),
            masks=masks,
        )

    def close(self) -> None:
        """Close the file that is being received, if any."""
        if self._open_file is not None:
            self._open_file.close()

    def _check_complete(self) -> None:
        begun = len(self._files) + (self._open_file is not None)
        if begun < self._header.file_count or (self._open_file is not None and not self._open_file.is_complete):
            raise AbortedError(
                "The stream ended before the upload was complete; send the rest (GetUpload lists what has arrived).",
                reason="UPLOAD_INCOMPLETE",
                retry_delay_seconds=INCOMPLETE_RETRY_SECONDS,
            )

    def _begin_file(self, header: FileHeader) -> None:
        field = f"files[{len(self._files)}]"
        if self._header.upload_id and len(self._files) >= self._header.file_count:
            raise invalid_input("header.file_count", self._header.file_count, "the number of all photos and masks")
        self._check_header(header, field)
        # As tokenizers read it, which may take more characters than were sent.
        header = replace(header, caption=unicodedata.normalize("NFC", header.caption))
        self._check_header(header, field)
        self._announced_bytes += header.size_bytes
        if self._announced_bytes > self._limits.max_total_bytes:
            raise invalid_input(
                f"{field}.size_bytes",
                f"{header.size_bytes:,}, in total {self._announced_bytes:,}",
                f"at most {self._limits.max_total_bytes:,} bytes for all files together",
            )
        self._open_file = OpenFile(field, header, self._folder / spooled_name(header))

    def _check_header(self, header: FileHeader, field: str) -> None:
        limits = self._limits
        if header.kind is None:
            raise invalid_input(f"{field}.kind", "another value", "FILE_KIND_PHOTO or FILE_KIND_MASK")
        if header.photo_index >= limits.max_photos:
            raise invalid_input(f"{field}.photo_index", header.photo_index, f"0 to {limits.max_photos - 1}")
        for file in self._files:
            if (file.header.kind, file.header.photo_index) == (header.kind, header.photo_index):
                raise invalid_input(
                    f"{field}.photo_index",
                    f"{header.photo_index}, which {file.field} has",
                    f"unique among the {header.kind}s",
                )
        if len(header.file_name) > MAX_FILE_NAME_CHARACTERS:
            raise invalid_input(
                f"{field}.file_name",
                f"{len(header.file_name):,}",
                f"at most {MAX_FILE_NAME_CHARACTERS} characters",
            )
        if not 1 <= header.size_bytes <= limits.max_file_bytes:
            raise invalid_input(
                f"{field}.size_bytes", f"{header.size_bytes:,}", f"1 to {limits.max_file_bytes:,} bytes"
            )
        if header.sha256 and not _SHA256.fullmatch(header.sha256):
            raise invalid_input(f"{field}.sha256", repr(header.sha256), "64 lower-case hexadecimal digits, or empty")
        if header.offset_bytes and not (self._header.upload_id and header.sha256):
            raise invalid_input(f"{field}.offset_bytes", header.offset_bytes, "0 without upload_id and sha256")
        if header.caption and header.kind is FileKind.MASK:
            raise invalid_input(f"{field}.caption", repr(header.caption), "empty for a mask")
        if len(header.caption) > MAX_CAPTION_CHARACTERS:
            raise invalid_input(
                f"{field}.caption",
                f"{len(header.caption):,}",
                f"at most {MAX_CAPTION_CHARACTERS:,} characters",
            )

    def _finish_file(self) -> None:
        if self._open_file is not None:
            with naming_file(self._open_file.header):
                self._files.append(self._open_file.finish())
            self._open_file = None

    def _check_indices(self, photos: dict[int, UploadedFile]) -> None:
        missing = next((index for index in range(len(photos)) if index not in photos), None)
        if missing is not None:
            last = photos[max(photos)]
            with naming_file(last.header):
                raise invalid_input(
                    f"{last.field}.photo_index",
                    f"{last.header.photo_index} without a photo {missing}",
                    "one of indices from 0 without gaps",
                )


def out_of_order(given: str) -> DetexError:
    """The error for a part that comes where another is due."""
    return invalid_input("part", given, _ORDER)
