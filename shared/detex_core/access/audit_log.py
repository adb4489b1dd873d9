"""The audit log: who did what, with what outcome; each line is chained to the one before by its hash.

A line is JSON with the SHA-256 of the line before it (`previous`) and of itself (`hash`, over all else with sorted
keys). Lines that were changed, taken out or put in later break the chain, which `verify` finds; that lines were cut off
at the end is shown by a hash that was noted elsewhere.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detex_core.errors import DataLossError, FailedPreconditionError

FIRST = "0" * 64
"""What the first line names as the hash before it."""

_LAST_LINE_BYTES = 65_536


@dataclass(frozen=True)
class Verified:
    """What a chain that holds says.

    Attributes:
        lines: How many there are.
        last_hash: Of the last; noted elsewhere, it shows later whether lines were cut off.
    """

    lines: int
    last_hash: str


class AuditLog:
    """Appends to a file; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            FailedPreconditionError: It cannot be written to.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise FailedPreconditionError(
                f"audit_log_file: {path} cannot be written: {error.strerror}.", reason="AUDIT_LOG_UNUSABLE"
            ) from None

    def write(self, entry: Mapping[str, str]) -> None:
        """Append an entry; it is with the system when this returns.

        Raises:
            OSError: It cannot be written.
        """
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                content = {"time": datetime.now(UTC).isoformat(), **entry, "previous": self._last_hash()}
                line = json.dumps(content | {"hash": _hash(content)}, sort_keys=True, ensure_ascii=True)
                os.write(self._file, line.encode() + b"\n")
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Write nothing further."""
        os.close(self._file)

    def _last_hash(self) -> str:
        size = os.fstat(self._file).st_size
        if not size:
            return FIRST
        start = max(0, size - _LAST_LINE_BYTES)
        lines = os.pread(self._file, size - start, start).splitlines()
        try:
            return str(json.loads(lines[-1])["hash"])
        except (ValueError, KeyError, TypeError):
            # A line that a crash cut off: the chain continues from it, and `verify` says where.
            return hashlib.sha256(lines[-1]).hexdigest()


def verify(path: Path, noted_hash: str = "") -> Verified:
    """Check the chain of a log.

    Args:
        path: The log.
        noted_hash: Of an entry that was the last when it was noted; empty where none was.

    Raises:
        DataLossError: It is broken, which names the line, or lacks the entry whose hash was noted.
        FailedPreconditionError: The file cannot be read.
    """
    previous, count, is_noted = FIRST, 0, not noted_hash
    for number, line in enumerate(_lines(path), start=1):
        try:
            content: dict[str, Any] = json.loads(line)
            claimed = content.pop("hash")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _broken(path, number, "is no entry") from None
        if claimed != _hash(content):
            raise _broken(path, number, "was changed after it was written")
        if content.get("previous") != previous:
            raise _broken(path, number, "does not follow the line before it: lines were taken out, put in or moved")
        previous, count = str(claimed), number
        is_noted = is_noted or previous == noted_hash
    if not is_noted:
        raise DataLossError(
            f"{path}: no entry has the hash {noted_hash[:64]}: entries were cut off, or this is another log.",
            reason="AUDIT_LOG_BROKEN",
        )
    return Verified(count, previous)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be read: {error.strerror}.") from None


def _hash(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _broken(path: Path, number: int, why: str) -> DataLossError:
    return DataLossError(f"{path}: line {number} {why}.", reason="AUDIT_LOG_BROKEN")
