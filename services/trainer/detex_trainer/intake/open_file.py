"""A file that is being received, from its begin or from where an earlier stream broke off."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from detex_core.errors import InvalidInputError, invalid_input
from detex_trainer.intake.upload_parts import MAX_CHUNK_BYTES, FileHeader, UploadedFile


class OpenFile:
    """Writes the bytes of a file to disk and checks them against what was announced.

    Attributes:
        header: What was announced.
    """

    def __init__(self, field: str, header: FileHeader, path: Path) -> None:
        self._field = field
        self.header = header
        self._path = path
        self._hash = hashlib.sha256()
        self._received_bytes = header.offset_bytes
        if header.offset_bytes:
            self._take_up(path)
        self._file: BinaryIO = path.open("r+b" if header.offset_bytes else "wb")
        self._file.truncate(header.offset_bytes)
        self._file.seek(header.offset_bytes)

    def _take_up(self, path: Path) -> None:
        there = path.stat().st_size if path.exists() else 0
        if self.header.offset_bytes > min(there, self.header.size_bytes):
            raise invalid_input(
                f"{self._field}.offset_bytes",
                f"{self.header.offset_bytes:,}",
                f"0 to {min(there, self.header.size_bytes):,}, the bytes received so far (see GetUpload)",
            )
        with path.open("rb") as file:
            left = self.header.offset_bytes
            while left and (data := file.read(min(left, MAX_CHUNK_BYTES))):
                self._hash.update(data)
                left -= len(data)

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises InvalidInputError where they are too many."""
        if not 1 <= len(data) <= MAX_CHUNK_BYTES:
            raise invalid_input("chunk", f"{len(data):,} bytes of {self._field}", f"1 to {MAX_CHUNK_BYTES:,} bytes")
        self._received_bytes += len(data)
        if self._received_bytes > self.header.size_bytes:
            raise self._size_error(f"{self._received_bytes:,} or more")
        self._hash.update(data)
        self._file.write(data)

    @property
    def is_complete(self) -> bool:
        """Whether all announced bytes are there."""
        return self._received_bytes == self.header.size_bytes

    def finish(self) -> UploadedFile:
        """The complete file; raises InvalidInputError where it is not as announced."""
        self.close()
        if self._received_bytes < self.header.size_bytes:
            raise self._size_error(f"{self._received_bytes:,}")
        sha256 = self._hash.hexdigest()
        if self.header.sha256 not in ("", sha256):
            raise invalid_input(f"{self._field}.sha256", self.header.sha256, f"the hash of the bytes sent, {sha256}")
        return UploadedFile(self._field, self.header, sha256, self._path)

    def close(self) -> None:
        """Close the file on disk."""
        self._file.close()

    def _size_error(self, received: str) -> InvalidInputError:
        return invalid_input(
            f"{self._field}.size_bytes",
            f"{self.header.size_bytes:,} for {received} bytes sent",
            "the size of the file as sent",
        )
