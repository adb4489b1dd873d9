"""Which store a process works with, so that a place where no store is now is never taken for an empty one.

A folder that is not mounted, or a bucket that somebody has recreated, holds no objects: whoever believed that would
report photos as deleted that are still there, give up jobs whose photos will be back, and write into the wrong place.
So a store carries a random identity from its beginning, and no answer that says "there is none" counts before the
identity was found beside it.
"""

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from detex_core.errors import NotFoundError, UnavailableError
from detex_core.object_store.protocol import ListedObject, ObjectInfo, ObjectStore

STORE_ABSENT = "STORE_ABSENT"
OTHER_STORE = "OTHER_STORE"
IDENTITY = re.compile(r"[0-9a-f]{32}")

_RETRY_SECONDS = 5.0

_Answer = TypeVar("_Answer")

_logger = logging.getLogger(__name__)


def new_identity() -> str:
    """A random identity: 32 hex digits."""
    return secrets.token_hex(16)


class IdentifiableStore(ObjectStore, Protocol):
    """An object store that can keep an identity."""

    def read_identity(self) -> str:
        """The identity; empty where there is none, or no store at all."""

    def make_identity(self) -> str:
        """Make the store where it is missing, and give it an identity where it has none; returns the one it has."""

    def holds_objects(self) -> bool:
        """Whether there is any object."""


class IdentifiedStore:
    """An object store of one identity; see ObjectStore for the methods.

    The identity is the one that is expected, or the first that is found. While it is not found, every method raises
    UnavailableError: reason `STORE_ABSENT` where there is no store, `OTHER_STORE` where there is another one.
    """

    def __init__(
        self,
        store: IdentifiableStore,
        place: str,
        *,
        expected: str = "",
        create: bool = False,
        note: Callable[[str], str] | None = None,
        trust_seconds: float = 0.0,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: The store itself.
            place: Where it lies, for messages.
            expected: Its identity; empty for the first that is found.
            create: Whether to make a store where none is; never where an identity is expected.
            note: Given the first identity that is found; returns the one that is to be expected from then on.
            trust_seconds: For so long an identity that was found counts as found, before a write.
        """
        self._store = store
        self._place = place
        self._expected = expected
        self._create = create
        self._note = note
        self._trust_seconds = trust_seconds
        self._lock = threading.Lock()
        self._found_until = 0.0

    def identity(self) -> str:
        """The identity of the store, verified now; empty for a store of an earlier version, which has none yet.

        Raises:
            UnavailableError: It is not there.
        """
        with self._lock:  # of many at the beginning one makes it
            if not self._expected:
                first = self._store.read_identity() or self._begin()
                if not first:
                    return ""
                self._expected = first if self._note is None else self._note(first)
            expected = self._expected
        found = self._store.read_identity()
        if found != expected:
            raise self._absent(found, expected)
        self._found_until = time.monotonic() + self._trust_seconds
        return found

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_sha256: str = "", content_type: str = ""
    ) -> ObjectInfo:
        """See ObjectStore."""
        return self._write(
            lambda: self._store.put(key, data, if_absent=if_absent, if_sha256=if_sha256, content_type=content_type)
        )

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """See ObjectStore."""
        return self._write(lambda: self._store.put_file(key, path, if_absent=if_absent, content_type=content_type))

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        return self._read(lambda: self._store.get(key, expected_sha256=expected_sha256))

    def get_file(self, key: str, path: Path, *, expected_sha256: str | None = None) -> ObjectInfo:
        """See ObjectStore."""
        return self._read(lambda: self._store.get_file(key, path, expected_sha256=expected_sha256))

    def stat(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return self._read(lambda: self._store.stat(key))

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ListedObject]:
        """See ObjectStore; a listing that ends while the store is not there ends in UnavailableError."""
        self.identity()
        yield from self._store.list(prefix, after=after)
        self.identity()

    def delete(self, key: str) -> bool:
        """See ObjectStore."""
        deleted = self._write(lambda: self._store.delete(key))
        if not deleted:
            self.identity()
        return deleted

    def check(self) -> None:
        """See ObjectStore."""
        self.identity()
        self._store.check()

    def _read(self, read: Callable[[], _Answer]) -> _Answer:
        try:
            return read()
        except NotFoundError:
            self.identity()
        return read()  # it may have come back in between: absent is what is absent while the store is there

    def _write(self, write: Callable[[], _Answer]) -> _Answer:
        if time.monotonic() >= self._found_until:
            self.identity()
        try:
            return write()
        except NotFoundError:  # the bucket
            self.identity()
            raise

    def _begin(self) -> str:
        """The identity of a store that had none; empty where one of an earlier version is only read."""
        if self._create:
            identity = self._store.make_identity()
            _logger.info("%s is the object store %s", self._place, identity)
            return identity
        if self._store.holds_objects():
            return ""
        raise self._absent("", "")

    def _absent(self, found: str, expected: str) -> UnavailableError:
        if found:
            return UnavailableError(
                f"{self._place} is another object store ({found}) than the one in use ({expected}). If this is "
                "intended, stop the trainer, run `detex-trainer adopt-store`, and restart all services.",
                reason=OTHER_STORE,
                retry_delay_seconds=_RETRY_SECONDS,
            )
        return UnavailableError(
            f"There is no object store at {self._place}. Is it mounted, and does its bucket exist?",
            reason=STORE_ABSENT,
            retry_delay_seconds=_RETRY_SECONDS,
        )
