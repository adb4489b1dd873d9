"""Files on disk: atomic replacement, hashing while copying, and what a disk's errors mean."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from detex_core.errors import PermissionDeniedError, ResourceExhaustedError, UnavailableError

BLOCK_BYTES = 1024**2

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(subject: str) -> Iterator[None]:
    """Turn OSError into errors of the domain; `subject` begins their sentence.

    Raises:
        ResourceExhaustedError: The disk is full or the quota is used up (reason `STORAGE_FULL`).
        PermissionDeniedError: The file system does not allow it.
        UnavailableError: Anything else, for example a network file system that is gone.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhaustedError(f"{subject}: the disk is full.", reason="STORAGE_FULL") from error
        if error.errno in _FORBIDDEN:
            raise PermissionDeniedError(f"{subject}: {error.strerror}.") from error
        raise UnavailableError(f"{subject}: {error.strerror or error}.") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well, and is gone when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.incoming")
    try:
        with new.open("xb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    finally:
        new.unlink(missing_ok=True)


def copy_hashed(blocks: Iterable[bytes], target: BinaryIO) -> tuple[int, str]:
    """Write all blocks; their size in bytes together and their SHA-256 (hex)."""
    digest = hashlib.sha256()
    size_bytes = 0
    for block in blocks:
        digest.update(block)
        write_all(target, block)
        size_bytes += len(block)
    return size_bytes, digest.hexdigest()


def write_all(target: BinaryIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take it piece by piece."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
