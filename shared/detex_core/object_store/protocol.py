"""What an object store can do. `FolderStore` and `MinioStore` both pass tests/core/test_object_store.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from detex_core.errors import AbortedError, DataLossError


@dataclass(frozen=True)
class ListedObject:
    """An object as listings show it.

    Attributes:
        key: Segments of 1 to 200 of `A-Z a-z 0-9 . _ -` joined by `/`; no `.` or `..` segment; at most 512 characters.
        size_bytes: Size.
        modified: When it was written, in UTC.
    """

    key: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True)
class ObjectInfo(ListedObject):
    """An object without its bytes.

    Attributes:
        sha256: SHA-256 (hex) of the content, computed when it was written; empty for an object that something else than
            an ObjectStore has put there, for example `mc cp` or a copy into the folder.
    """

    sha256: str


def verify(info: ObjectInfo, sha256: str, expected_sha256: str | None) -> None:
    """Compare the hash of what was read with the hash it was written with and the hash that the reader expects.

    Raises:
        DataLossError: One of them differs.
    """
    for wanted in (info.sha256, expected_sha256):
        if wanted and wanted != sha256:
            raise DataLossError(f"Object {info.key} is damaged: its SHA-256 is {sha256}, expected is {wanted}.")


def changed_meanwhile(key: str) -> AbortedError:
    """The error of a write in the place of content that is no longer there."""
    return AbortedError(
        f"Object {key} has been changed or deleted by another writer.", reason="OBJECT_CHANGED", retry_delay_seconds=0.1
    )


class ObjectStore(Protocol):
    """Immutable-minded storage of bytes by key; safe to use from several threads and processes.

    Every method raises InvalidInputError (field `key`) for a malformed key, UnavailableError when the store does not
    answer, PermissionDeniedError when it refuses the credentials, ResourceExhaustedError (reason `STORAGE_FULL`) when
    it is full. A write is all or nothing: readers never see part of an object. As on many S3 servers, a key must not
    lie below another (`a/b` beside `a`): a write that would do so raises FailedPreconditionError (reason
    `KEY_CONFLICT`), or succeeds where the store can keep both.
    """

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_sha256: str = "", content_type: str = ""
    ) -> ObjectInfo:
        """Write an object.

        Args:
            key: Where.
            data: All bytes.
            if_absent: Write only if there is no object of that key; of several racing writers one wins.
            if_sha256: Write only in the place of the content with this SHA-256 (hex), which the caller has read before;
                of several racing writers one wins.
            content_type: Media type, where the store keeps one.

        Raises:
            AlreadyExistsError: `if_absent` is set and there is one.
            AbortedError: `if_sha256` is set, and there is other content by now, or none (reason `OBJECT_CHANGED`).
        """

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """Write an object from a file of any size, in parts where the store wants parts; raises as `put`.

        Raises:
            AbortedError: The file has changed while it was read; nothing is written.
        """

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        """Read an object.

        Raises:
            NotFoundError: There is none.
            DataLossError: Its content has not the hash it was written with, or not `expected_sha256`.
        """

    def get_file(self, key: str, path: Path, *, expected_sha256: str | None = None) -> ObjectInfo:
        """Read an object into a file, which appears only when complete and verified; raises as `get`.

        Raises:
            ResourceExhaustedError: The disk of the file is full (reason `STORAGE_FULL`).
        """

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object; raises NotFoundError where there is none."""

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ListedObject]:
        """Objects whose key begins with `prefix` (any string) and comes after `after`, in the order of their keys.

        Objects written or deleted meanwhile may or may not be among them.
        """

    def delete(self, key: str) -> bool:
        """Delete an object; False where there was none."""

    def check(self) -> None:
        """Raise what a read would raise now; for readiness probes."""
