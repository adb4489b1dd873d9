"""What an object store can do. `FolderStore` and `MinioStore` both pass tests/core/test_object_store.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """An object without its bytes.

    Attributes:
        key: Key, segments of `A-Z a-z 0-9 . _ -` joined by `/`; no empty, `.` or `..` segment; at most 512 characters.
        size_bytes: Size.
        sha256: SHA-256 (hex) of the content, computed when it was written.
        modified: When it was written, in UTC.
    """

    key: str
    size_bytes: int
    sha256: str
    modified: datetime


class ObjectStore(Protocol):
    """Immutable-minded storage of bytes by key; safe to use from several threads.

    Every method raises InvalidInputError (field `key`) for a malformed key, UnavailableError when the store does not
    answer, PermissionDeniedError when it refuses the credentials, ResourceExhaustedError (reason `STORAGE_FULL`) when
    it is full. A write is all or nothing: readers never see part of an object.
    """

    def put(self, key: str, data: bytes, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """Write an object.

        Args:
            key: Where.
            data: All bytes.
            if_absent: Write only if there is no object of that key; of several racing writers one wins.
            content_type: Media type, where the store keeps one.

        Raises:
            AlreadyExistsError: `if_absent` is set and there is one.
        """

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """Write an object from a file of any size, in parts where the store wants parts; raises as `put`."""

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        """Read an object.

        Raises:
            NotFoundError: There is none.
            DataLossError: Its content has not the hash it was written with, or not `expected_sha256`.
        """

    def get_file(self, key: str, path: Path, *, expected_sha256: str | None = None) -> ObjectInfo:
        """Read an object into a file, which appears only when complete and verified; raises as `get`."""

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object; raises NotFoundError where there is none."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix` (any string), in the order of their keys."""

    def delete(self, key: str) -> bool:
        """Delete an object; False where there was none."""

    def check(self) -> None:
        """Raise what a read would raise now; for readiness probes."""
