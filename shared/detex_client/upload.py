"""The stream of an upload: header, then each file with its hash and its bytes in chunks."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detex_client.errors import refused
from detex_client.photo_file import SentFile, sent_mask, sent_photo
from detex_client.training_photo import TrainingPhoto
from detex_client.wire_message import wire_message
from detex_protos.v1 import trainer_pb2

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class UploadProgress:
    """How much of an upload has been handed to the network.

    Attributes:
        sent_bytes: Bytes of files so far.
        total_bytes: Bytes of all files.
    """

    sent_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class UploadHeader:
    """What is said of all photos; fields as `detex.v1.TrainingSetHeader` documents them."""

    class_word: str
    keep_photos: bool
    upload_id: str
    file_count: int

    def to_wire(self) -> trainer_pb2.TrainingSetHeader:
        """The message of the contract."""
        return wire_message(
            trainer_pb2.TrainingSetHeader,
            class_word=self.class_word,
            keep_photos=self.keep_photos,
            upload_id=self.upload_id,
            file_count=self.file_count,
        )


class ReceivedBytes:
    """What the trainer has of an upload that broke off."""

    def __init__(self, files: Iterable[trainer_pb2.ReceivedFile] = ()) -> None:
        self._received: Mapping[tuple[int, int, str], int] = {
            (file.kind, file.photo_index, file.sha256): file.received_bytes for file in files
        }

    def of(self, header: trainer_pb2.FileHeader) -> int:
        """Bytes of a file that need not be sent again."""
        received = self._received.get((header.kind, header.photo_index, header.sha256), 0)
        return min(received, header.size_bytes)


class UploadRequests:
    """The requests of one upload; iterate over them once.

    Args:
        header: What is said of all photos.
        photos: Photos in order.
        on_progress: Called after each chunk.
        received: What an earlier stream of this upload has sent.
        on_note: Told of each file that is not sent as it is, in a sentence that begins with its name.

    Raises:
        DetexClientError: INVALID_ARGUMENT for a file that is missing; while iterating, for one that cannot be read.
    """

    def __init__(
        self,
        header: UploadHeader,
        photos: Sequence[TrainingPhoto],
        on_progress: Callable[[UploadProgress], None],
        received: ReceivedBytes,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._header = header
        self._received = received
        self._photos = photos
        self._on_progress = on_progress
        self._on_note = on_note
        self._sent_bytes = 0
        self._total_bytes = sum(
            _size(f"{field}[{index}]", path)
            for index, photo in enumerate(photos)
            for field, path in (("photos", photo.photo), ("masks", photo.mask))
            if path is not None
        )

    def __iter__(self) -> Iterator[trainer_pb2.UploadTrainingSetRequest]:
        yield trainer_pb2.UploadTrainingSetRequest(header=self._header.to_wire())
        for index, photo in enumerate(self._photos):
            sent = self._counted(photo.photo, sent_photo(photo.photo, f"photos[{index}]"))
            yield from self._file(trainer_pb2.FILE_KIND_PHOTO, index, photo.photo, sent.data, photo.caption)
            if photo.mask is not None:
                mask = self._counted(photo.mask, sent_mask(photo.mask, f"masks[{index}]", sent))
                yield from self._file(trainer_pb2.FILE_KIND_MASK, index, photo.mask, mask.data, "")

    def _counted(self, path: Path, sent: SentFile) -> SentFile:
        """Have the progress count the bytes that are sent rather than those of the file, and say what was done."""
        self._total_bytes += len(sent.data) - sent.file_bytes
        if sent.note:
            self._on_note(f"{_shown(path.name)}: {sent.note}")
        return sent

    def _file(
        self, kind: trainer_pb2.FileKind.ValueType, photo_index: int, path: Path, data: bytes, caption: str
    ) -> Iterator[trainer_pb2.UploadTrainingSetRequest]:
        header = wire_message(
            trainer_pb2.FileHeader,
            kind=kind,
            photo_index=photo_index,
            file_name=_shown(path.name),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            caption=caption,
        )
        header.offset_bytes = self._received.of(header)
        yield trainer_pb2.UploadTrainingSetRequest(file=header)
        self._sent_bytes += header.offset_bytes
        for start in range(header.offset_bytes, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            yield trainer_pb2.UploadTrainingSetRequest(chunk=chunk)
            self._sent_bytes += len(chunk)
            self._on_progress(UploadProgress(self._sent_bytes, self._total_bytes))


def _size(field: str, path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise refused(field, f"{path} ({error.strerror})", "a readable file") from None


def _shown(file_name: str) -> str:
    """The name of a file as a text, also where it is in another encoding than UTF-8."""
    return file_name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
