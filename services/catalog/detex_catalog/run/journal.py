"""What a run has done, in a file that is only ever appended to.

Each line is one JSON object and on the disk (fsync) before what follows from it is begun. A line that a kill cut short
is dropped when the journal is opened again: what it told of had not been built upon. Each shard writes a journal of its
own and reads those of all, so that a folder may be shared and the number of shards may change.
"""

import fcntl
import json
import os
from collections.abc import Iterator
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
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
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
    """The events of all journals of an output folder in the order of their times; reads only.

    Raises:
        FolderUnusableError: A journal holds a line that is none.
    """
    events: list[Event] = []
    for path in sorted((folder / FOLDER).glob(_PATTERN)):
        data = path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                event = json.loads(line)
                if not (isinstance(event["event"], str) and isinstance(event["time"], str)):
                    raise TypeError
            except (ValueError, TypeError, KeyError):
                raise FolderUnusableError(f"{path}, line {number}, is no event of a journal") from None
            events.append(event)
    yield from sorted(events, key=lambda event: event["time"])


def sync_folder(path: Path) -> None:
    """Put the names of a folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
