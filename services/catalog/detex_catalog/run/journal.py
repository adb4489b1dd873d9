"""What a run has done, in a file that is only ever appended to.

Each line is one JSON object and on the disk (fsync) before what follows from it is begun. A line that a kill cut short
is dropped when the journal is opened again: what it told of had not been built upon. Each shard writes a journal of its
own and reads those of all, so that a folder may be shared and the number of shards may change.
"""

import contextlib
import fcntl
import heapq
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from detex_catalog.sharding import Shard

FOLDER = "journal"
_PATTERN = "shard-*-of-*.jsonl"

Event = dict[str, Any]


class FolderUnusableError(Exception):
    """The output folder is in use by another run, cannot be written, or holds a journal that cannot be read."""


class Journal:
    """The journal of one shard; one process at a time may hold it open.

    Args:
        folder: Output folder of the run.
        shard: Whose journal.

    Raises:
        FolderUnusableError: Another process holds it, or it cannot be written.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.path = folder / FOLDER / f"shard-{shard.index}-of-{shard.count}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise FolderUnusableError(f"{self.path} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise FolderUnusableError(f"{folder} is in use by another run of shard {shard}") from None
        self._drop_torn_line()
        os.lseek(self._file, 0, os.SEEK_END)
        sync_folder(self.path.parent)

    def append(self, kind: str, **values: Any) -> Event:
        """Write an event and wait until it is on the disk.

        Raises:
            FolderUnusableError: The disk is full or gone.
        """
        event: Event = {"event": kind, "time": datetime.now(UTC).isoformat(timespec="microseconds"), **values}
        line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # the next line must not continue from half of one
                os.ftruncate(self._file, end)
                os.lseek(self._file, end, os.SEEK_SET)
            raise FolderUnusableError(f"{self.path} cannot be written ({error.strerror})") from None
        return event

    def close(self) -> None:
        """Let other processes have it."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_torn_line(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)


def read_events(folder: Path) -> Iterator[Event]:
    """The events of all journals of an output folder; reads only.

    Each journal keeps its own order, whatever the clocks of the machines that wrote it; the journals go by time.

    Raises:
        FolderUnusableError: A journal holds a line that is none.
    """
    journals = [_timed(_read(path)) for path in sorted((folder / FOLDER).glob(_PATTERN))]
    for _, event in heapq.merge(*journals, key=lambda timed: timed[0]):
        yield event


def _timed(events: Iterable[Event]) -> Iterator[tuple[str, Event]]:
    """Each event with the latest time so far."""
    latest = ""
    for event in events:
        latest = max(latest, event["time"])
        yield latest, event


def _read(path: Path) -> list[Event]:
    events: list[Event] = []
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            event = json.loads(line)
            if not (isinstance(event["event"], str) and isinstance(event["time"], str)):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise FolderUnusableError(f"{path}, line {number}, is no event of a journal") from None
        events.append(event)
    return events


def sync_folder(path: Path) -> None:
    """Put the names of a folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
