"""An object store in a folder, of this machine or mounted by several (POSIX: symbolic links, `flock`).

    objects/<key>                  a symbolic link to the content; opens like the plain file it stands for
    data/<aa>/<sha256>.<unique>    the contents, each under its own hash
    incoming/                      contents being written
    lock                           held while an object is replaced or deleted
    identity                       which store this is, see `identity.py`

Because the link's target carries the hash, content and hash change places in one atomic step, and creating the link is
itself the test for absence. Plain files that someone puts below objects/ are objects too, with no known hash.
"""

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from detex_core.errors import AbortedError, AlreadyExistsError, DataLossError, FailedPreconditionError, NotFoundError
from detex_core.object_store.disk import BLOCK_BYTES, copy_hashed, disk_errors, replacing, sync_folder, write_all
from detex_core.object_store.identity import IDENTITY, new_identity
from detex_core.object_store.key import checked_key, is_key
from detex_core.object_store.protocol import ListedObject, ObjectInfo, changed_meanwhile, verify

_DATA_NAME = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{32}")
_ATTEMPTS = 20
_ABANDONED_SECONDS = 24 * 3600


class FolderStore:
    """Objects in a folder; see ObjectStore for the methods.

    Args:
        folder: Where.
        create: Whether to create the folder where it is missing.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self._folder = folder.absolute()
        self._objects = self._folder / "objects"
        self._data = self._folder / "data"
        self._incoming = self._folder / "incoming"
        if create:
            self.make_identity()
        with suppress(OSError):  # what is left over there is garbage and no reason to fail
            self._sweep_incoming()

    def read_identity(self) -> str:
        """See IdentifiableStore."""
        with disk_errors(f"Folder {self._folder}"):
            try:
                text = (self._folder / "identity").read_text(encoding="ascii", errors="replace").strip()
            except (FileNotFoundError, NotADirectoryError):
                return ""
        return text if IDENTITY.fullmatch(text) else ""

    def make_identity(self) -> str:
        """See IdentifiableStore; makes all folders, the identity last."""
        with disk_errors(f"Folder {self._folder}"):
            for path in (self._objects, self._data, self._incoming):
                path.mkdir(parents=True, exist_ok=True)
            if not (self._folder / "lock").exists():
                (self._folder / "lock").touch()
            found = self.read_identity()
            if found:
                return found
            with self._new_content() as (file, path):
                write_all(file, f"{new_identity()}\n".encode())
                os.fsync(file.fileno())
                with suppress(FileExistsError):  # another process was first
                    os.link(path, self._folder / "identity")
                sync_folder(self._folder)
        return self.read_identity()

    def holds_objects(self) -> bool:
        """See IdentifiableStore."""
        with disk_errors(f"Folder {self._folder}"):
            return next(self._walk(self._objects, "", "", ""), None) is not None

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_sha256: str = "", content_type: str = ""
    ) -> ObjectInfo:
        """See ObjectStore; a folder keeps no media types."""
        self._check_writable(key, if_absent)
        with disk_errors(f"Object {key}"), self._new_content() as (file, path):
            write_all(file, data)
            return self._publish(key, file, path, hashlib.sha256(data).hexdigest(), if_absent, if_sha256)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """See ObjectStore; a folder keeps no media types."""
        self._check_writable(key, if_absent)
        with path.open("rb") as source, disk_errors(f"Object {key}"), self._new_content() as (file, new):
            size_bytes = os.fstat(source.fileno()).st_size
            copied_bytes, sha256 = copy_hashed(iter(lambda: source.read(BLOCK_BYTES), b""), file)
            if copied_bytes != size_bytes:
                raise AbortedError(f"{path} has changed while it was read.")
            return self._publish(key, file, new, sha256, if_absent)

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        with disk_errors(f"Object {key}"), self._opened(key) as (file, info):
            data = file.read()
            verify(info, hashlib.sha256(data).hexdigest(), expected_sha256)
            return data

    def get_file(self, key: str, path: Path, *, expected_sha256: str | None = None) -> ObjectInfo:
        """See ObjectStore."""
        with disk_errors(f"Object {key}"), self._opened(key) as (source, info), replacing(path) as file:
            _, sha256 = copy_hashed(iter(lambda: source.read(BLOCK_BYTES), b""), file)
            verify(info, sha256, expected_sha256)
            return info

    def stat(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        with disk_errors(f"Object {key}"), self._opened(key) as (_, info):
            return info

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ListedObject]:
        """See ObjectStore."""
        with disk_errors(f"Folder {self._folder}"):
            yield from self._walk(self._objects, "", prefix, after)

    def delete(self, key: str) -> bool:
        """See ObjectStore."""
        link = self._objects / checked_key(key)
        with disk_errors(f"Object {key}"), self._locked():
            content = _content_of(link)
            if content is None:
                return False
            link.unlink()
            sync_folder(link.parent)
            self._discard(content)
            self._remove_empty_folders(link.parent)
            return True

    def check(self) -> None:
        """See ObjectStore."""
        with disk_errors(f"Folder {self._folder}"), os.scandir(self._objects):
            pass

    def _check_writable(self, key: str, if_absent: bool) -> None:
        link = self._objects / checked_key(key)
        with disk_errors(f"Object {key}"):
            if if_absent and _content_of(link) is not None:
                raise _exists(key)

    @contextmanager
    def _new_content(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A file below incoming/, gone at the end unless it has been renamed."""
        path = self._incoming / secrets.token_hex(16)
        try:
            with path.open("xb", buffering=0) as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _publish(
        self, key: str, file: BinaryIO, path: Path, sha256: str, if_absent: bool, if_sha256: str = ""
    ) -> ObjectInfo:
        os.fsync(file.fileno())
        content = self._data / sha256[:2] / f"{sha256}.{path.name}"
        content.parent.mkdir(exist_ok=True)
        path.rename(content)
        try:
            sync_folder(content.parent)
            self._link_in_folder(key, content, if_absent, if_sha256)
        except BaseException:
            content.unlink(missing_ok=True)
            raise
        with suppress(FileNotFoundError):  # deleted already, with its folder
            sync_folder((self._objects / key).parent)
        status = os.fstat(file.fileno())
        return ObjectInfo(key, status.st_size, _modified(status), sha256)

    def _link_in_folder(self, key: str, content: Path, if_absent: bool, if_sha256: str) -> None:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # another's delete has just removed the empty folder
                self._link(key, content, if_absent, if_sha256)
                return
        raise AbortedError(f"Object {key} is being written and deleted by many at once.", retry_delay_seconds=1)

    def _link(self, key: str, content: Path, if_absent: bool, if_sha256: str) -> None:
        link = self._objects / key
        target = os.path.relpath(content, link.parent)
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _conflict(key) from None
        if link.is_dir() and not link.is_symlink():
            with suppress(OSError):
                link.rmdir()  # left over and empty
        if if_absent:
            try:
                link.symlink_to(target)
            except FileExistsError:
                raise (_conflict(key) if link.is_dir() else _exists(key)) from None
        else:
            self._replace_link(key, link, target, if_sha256)

    def _replace_link(self, key: str, link: Path, target: str, if_sha256: str) -> None:
        new = self._incoming / secrets.token_hex(16)
        new.symlink_to(target)
        try:
            with self._locked():
                previous = _content_of(link)
                if if_sha256 and (previous is None or _sha256_of(previous) != if_sha256):
                    raise changed_meanwhile(key)
                new.replace(link)
                if previous is not None:
                    self._discard(previous)
        except IsADirectoryError:
            raise _conflict(key) from None
        finally:
            new.unlink(missing_ok=True)

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[BinaryIO, ObjectInfo]]:
        link = self._objects / checked_key(key)
        content: Path | None = None
        for _ in range(_ATTEMPTS):
            before, content = content, _content_of(link)
            if content is None:
                raise NotFoundError(f"There is no object {key}.")
            if content == before:
                raise DataLossError(f"The content of object {key} is missing.")
            try:
                file = content.open("rb")
            except FileNotFoundError:
                continue  # replaced or deleted between the two looks
            with file:
                status = os.fstat(file.fileno())
                match = _DATA_NAME.fullmatch(content.name)
                yield file, ObjectInfo(key, status.st_size, _modified(status), match[1] if match else "")
                return
        raise AbortedError(f"Object {key} is being replaced by many at once.", retry_delay_seconds=1)

    def _walk(self, folder: Path, base: str, prefix: str, after: str) -> Iterator[ListedObject]:
        """Objects below `folder`, whose keys begin with `base`."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    (base + e.name + "/" if e.is_dir(follow_symlinks=False) else base + e.name) for e in entries
                )
        except FileNotFoundError:
            return
        for key in found:
            if key.endswith("/"):
                reachable = key.startswith(prefix) or prefix.startswith(key)
                if reachable and (key > after or after.startswith(key)):
                    yield from self._walk(self._objects / key, key, prefix, after)
            elif key.startswith(prefix) and key > after and is_key(key):
                with suppress(FileNotFoundError):
                    path = self._objects / key
                    if path.is_file():
                        status = path.stat()
                        yield ListedObject(key, status.st_size, _modified(status))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _discard(self, content: Path) -> None:
        if _DATA_NAME.fullmatch(content.name):  # what others linked to is theirs
            with suppress(OSError):  # what cannot be removed now is garbage and no reason to fail
                content.unlink(missing_ok=True)

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._objects:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _sweep_incoming(self) -> None:
        """Remove what writers that died have left."""
        oldest = time.time() - _ABANDONED_SECONDS
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()


def _content_of(link: Path) -> Path | None:
    """The file with the content of an object, or None where there is no object."""
    try:
        return link.parent / link.readlink()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # no link
        return link if link.is_file() else None


def _sha256_of(content: Path) -> str:
    match = _DATA_NAME.fullmatch(content.name)
    if match:
        return match[1]
    with content.open("rb") as file:  # a plain file that someone has put there
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modified(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)


def _exists(key: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"There is an object {key} already.")


def _conflict(key: str) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"Object {key} cannot be written: another key lies above or below it.", reason="KEY_CONFLICT"
    )
