"""An upload as it arrives: parts in order, files spooled to disk and checked against what was announced."""

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from detex_core.errors import DetexError, InvalidInputError, invalid_input
from detex_trainer.training_set.class_word import checked_class_word
from detex_trainer.training_set.record import MAX_CAPTION_CHARACTERS

MAX_CHUNK_BYTES = 1024**2
MAX_FILE_NAME_CHARACTERS = 255

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ORDER = "the header first, then for each file its header and its bytes in chunks"


class FileKind(StrEnum):
    """What an uploaded file is."""

    PHOTO = "photo"
    MASK = "mask"


@dataclass(frozen=True)
class UploadHeader:
    """The first part of an upload."""

    class_word: str


@dataclass(frozen=True)
class FileHeader:
    """The part that begins a file; `kind` is None where the caller named no kind that there is."""

    kind: FileKind | None
    photo_index: int
    file_name: str
    size_bytes: int
    sha256: str
    caption: str


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the file begun last."""

    data: bytes


@dataclass(frozen=True)
class UnknownPart:
    """A part that is none of the above."""


UploadPart = UploadHeader | FileHeader | Chunk | UnknownPart


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
class UploadedFile:
    """A complete file of an upload.

    Attributes:
        field: Path of its header in the upload, `files[<position>]`.
        header: Its header.
        sha256: SHA-256 (hex) of its bytes.
        path: Where its bytes are spooled.
    """

    field: str
    header: FileHeader
    sha256: str
    path: Path


@dataclass(frozen=True)
class Upload:
    """A complete upload: the photo indices run from 0 without gaps, each mask has its photo.

    Attributes:
        class_word: Class word, checked.
        photos: The photos in the order of their indices.
        masks: The masks by the index of their photo.
    """

    class_word: str
    photos: tuple[UploadedFile, ...]
    masks: dict[int, UploadedFile]


async def receive_upload(parts: AsyncIterator[UploadPart], folder: Path, limits: UploadLimits) -> Upload:
    """Take an upload; holds one chunk in memory at a time.

    Args:
        parts: The parts as they arrive.
        folder: Where files are spooled; the caller deletes it.
        limits: What the upload may hold.

    Raises:
        InvalidInputError: A part comes out of its order, or a file is not as announced; the field names it, for
            example `files[2].sha256`.
        OSError: The folder cannot be written.
    """
    receiver = UploadReceiver(folder, limits)
    try:
        async for part in parts:
            receiver.take(part)
        return receiver.finish()
    finally:
        receiver.close()


class UploadReceiver:
    """The state of an upload between its parts."""

    def __init__(self, folder: Path, limits: UploadLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._class_word: str | None = None
        self._files: list[UploadedFile] = []
        self._open_file: _OpenFile | None = None
        self._announced_bytes = 0

    def take(self, part: UploadPart) -> None:
        """Take the next part; raises as `receive_upload`."""
        match part:
            case UploadHeader():
                if self._class_word is not None:
                    raise _out_of_order("a second header")
                self._class_word = checked_class_word(part.class_word)
            case FileHeader():
                if self._class_word is None:
                    raise _out_of_order("a file before the header")
                self._finish_file()
                self._begin_file(part)
            case Chunk():
                if self._open_file is None:
                    raise _out_of_order("a chunk before any file")
                self._open_file.write(part.data)
            case UnknownPart():
                raise _out_of_order("a part without content")

    def finish(self) -> Upload:
        """The complete upload; raises as `receive_upload`."""
        if self._class_word is None:
            raise _out_of_order("a stream without header")
        self._finish_file()
        photos = {file.header.photo_index: file for file in self._files if file.header.kind is FileKind.PHOTO}
        masks = {file.header.photo_index: file for file in self._files if file.header.kind is FileKind.MASK}
        if not photos:
            raise invalid_input("files", "no photo", f"1 to {self._limits.max_photos} photos")
        self._check_indices(photos)
        for index, mask in masks.items():
            if index not in photos:
                raise invalid_input(
                    f"{mask.field}.photo_index", f"a mask for {index}", "the index of an uploaded photo"
                )
        return Upload(self._class_word, tuple(photos[index] for index in sorted(photos)), masks)

    def close(self) -> None:
        """Close the file that is being received, if any."""
        if self._open_file is not None:
            self._open_file.close()

    def _begin_file(self, header: FileHeader) -> None:
        field = f"files[{len(self._files)}]"
        self._check_header(header, field)
        self._announced_bytes += header.size_bytes
        if self._announced_bytes > self._limits.max_total_bytes:
            raise invalid_input(
                f"{field}.size_bytes",
                f"{header.size_bytes:,}, with the files before it {self._announced_bytes:,}",
                f"at most {self._limits.max_total_bytes:,} bytes for all files",
            )
        self._open_file = _OpenFile(field, header, self._folder / f"file_{len(self._files)}")

    def _check_header(self, header: FileHeader, field: str) -> None:
        limits = self._limits
        if header.kind is None:
            raise invalid_input(f"{field}.kind", "no known kind", "FILE_KIND_PHOTO or FILE_KIND_MASK")
        if header.photo_index >= limits.max_photos:
            raise invalid_input(f"{field}.photo_index", header.photo_index, f"0 to {limits.max_photos - 1}")
        for file in self._files:
            if (file.header.kind, file.header.photo_index) == (header.kind, header.photo_index):
                raise invalid_input(
                    f"{field}.photo_index",
                    f"{header.photo_index}, as {file.field} has",
                    f"one {header.kind} per photo index",
                )
        if len(header.file_name) > MAX_FILE_NAME_CHARACTERS:
            raise invalid_input(
                f"{field}.file_name",
                f"{len(header.file_name):,} characters",
                f"at most {MAX_FILE_NAME_CHARACTERS} characters",
            )
        if not 1 <= header.size_bytes <= limits.max_file_bytes:
            raise invalid_input(f"{field}.size_bytes", f"{header.size_bytes:,}", f"1 to {limits.max_file_bytes:,}")
        if header.sha256 and not _SHA256.fullmatch(header.sha256):
            raise invalid_input(
                f"{field}.sha256", repr(header.sha256), "64 hexadecimal digits in lower case, or nothing"
            )
        if header.caption and header.kind is FileKind.MASK:
            raise invalid_input(f"{field}.caption", repr(header.caption), "captions of photos only")
        if len(header.caption) > MAX_CAPTION_CHARACTERS:
            raise invalid_input(
                f"{field}.caption",
                f"{len(header.caption):,} characters",
                f"at most {MAX_CAPTION_CHARACTERS:,} characters",
            )

    def _finish_file(self) -> None:
        if self._open_file is not None:
            self._files.append(self._open_file.finish())
            self._open_file = None

    def _check_indices(self, photos: dict[int, UploadedFile]) -> None:
        missing = next((index for index in range(len(photos)) if index not in photos), None)
        if missing is not None:
            last = photos[max(photos)]
            raise invalid_input(
                f"{last.field}.photo_index",
                f"{last.header.photo_index} without a photo {missing}",
                "indices from 0 without gaps",
            )


class _OpenFile:
    """A file that is being received."""

    def __init__(self, field: str, header: FileHeader, path: Path) -> None:
        self._field = field
        self._header = header
        self._path = path
        self._file: BinaryIO = path.open("xb")
        self._hash = hashlib.sha256()
        self._received_bytes = 0

    def write(self, data: bytes) -> None:
        if not 1 <= len(data) <= MAX_CHUNK_BYTES:
            raise invalid_input("chunk", f"{len(data):,} bytes of {self._field}", f"1 to {MAX_CHUNK_BYTES:,} bytes")
        self._received_bytes += len(data)
        if self._received_bytes > self._header.size_bytes:
            raise self._size_error(f"{self._received_bytes:,} or more")
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> UploadedFile:
        self.close()
        if self._received_bytes < self._header.size_bytes:
            raise self._size_error(f"{self._received_bytes:,}")
        sha256 = self._hash.hexdigest()
        if self._header.sha256 not in ("", sha256):
            raise invalid_input(f"{self._field}.sha256", self._header.sha256, f"the hash of the bytes sent, {sha256}")
        return UploadedFile(self._field, self._header, sha256, self._path)

    def close(self) -> None:
        self._file.close()

    def _size_error(self, received: str) -> InvalidInputError:
        return invalid_input(
            f"{self._field}.size_bytes",
            f"{self._header.size_bytes:,} bytes announced, {received} sent",
            "the size of the file as sent",
        )


def _out_of_order(given: str) -> DetexError:
    return invalid_input("part", given, _ORDER)
