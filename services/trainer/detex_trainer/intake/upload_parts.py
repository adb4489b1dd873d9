"""The parts of an upload as they arrive, and the files that come of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detex_core.errors import InvalidInputError
from detex_trainer.domain.photo_place import photo_place

MAX_CHUNK_BYTES = 1024**2


class FileKind(StrEnum):
    """What an uploaded file is."""

    PHOTO = "photo"
    MASK = "mask"


@dataclass(frozen=True)
class UploadHeader:
    """The first part of an upload."""

    class_word: str
    keep_photos: bool = False
    upload_id: str = ""
    file_count: int = 0


@dataclass(frozen=True)
class FileHeader:
    """The part that begins a file; `kind` is None where the caller named no kind that there is."""

    kind: FileKind | None
    photo_index: int
    file_name: str
    size_bytes: int
    sha256: str
    caption: str
    offset_bytes: int = 0


@dataclass(frozen=True)
class Chunk:
    """The next bytes of the file begun last."""

    data: bytes


@dataclass(frozen=True)
class ReceivedFile:
    """A file of an upload that broke off, as far as it came."""

    kind: FileKind
    photo_index: int
    sha256: str
    received_bytes: int


@dataclass(frozen=True)
class UnknownPart:
    """A part that is none of the above."""


UploadPart = UploadHeader | FileHeader | Chunk | UnknownPart


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


@contextmanager
def naming_file(header: FileHeader) -> Iterator[None]:
    """Errors of a file say which one it is, by the name that its caller gave it."""
    try:
        yield
    except InvalidInputError as error:
        place = photo_place(header.photo_index, header.file_name, is_mask=header.kind is FileKind.MASK)
        raise error.at(place) from error.__cause__
