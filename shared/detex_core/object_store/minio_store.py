"""An object store in a bucket of an S3 server, through the `minio` client.

The SHA-256 of an object is metadata of its own and is verified on every read. Conditional creation is S3's
`If-None-Match: *`, which servers hold against racing writers of one request each. So a file that must not replace
another goes in one request, streamed, up to the 5 GiB that S3 allows. Only beyond does it go in parts, with the
condition on the completion of the upload, which not every server holds against races.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

from minio.error import S3Error
from urllib3 import BaseHTTPResponse

from detex_core.errors import AlreadyExistsError, NotFoundError
from detex_core.object_store.disk import BLOCK_BYTES, copy_hashed, disk_errors, replacing
from detex_core.object_store.identity import IDENTITY, new_identity
from detex_core.object_store.key import checked_key, is_key
from detex_core.object_store.location import S3Location
from detex_core.object_store.minio_client import ConditionalMinio, FileBody, http_client
from detex_core.object_store.minio_errors import BUCKET_MISSING, is_precondition, s3_errors
from detex_core.object_store.protocol import ListedObject, ObjectInfo, changed_meanwhile, verify

MAX_SINGLE_PUT_BYTES = 5 * 1024**3

_IDENTITY_KEY = "identity"
_SHA256 = "x-amz-meta-detex-sha256"
_WRITE_ID = "x-amz-meta-detex-write-id"

_Result = TypeVar("_Result")


class MinioStore:
    """Objects in a bucket; see ObjectStore for the methods.

    Args:
        location: Server, bucket and prefix.
        access_key: User.
        secret_key: Secret of the user.
        connect_timeout_seconds: Longest wait for a connection, of which there are up to three.
        read_timeout_seconds: Longest silence within a request.
        part_size_bytes: Files above this size are sent in parts of it, at least 5 MiB.
        max_single_put_bytes: Files up to this size are sent in one request where they must not replace another.
        create: Whether a missing bucket is created by the first write or check.
    """

    def __init__(
        self,
        location: S3Location,
        *,
        access_key: str,
        secret_key: str,
        connect_timeout_seconds: float = 2.0,
        read_timeout_seconds: float = 10.0,
        part_size_bytes: int = 16 * 1024**2,
        max_single_put_bytes: int = MAX_SINGLE_PUT_BYTES,
        create: bool = True,
    ) -> None:
        self._create = create
        self._bucket = location.bucket
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._region = location.region
        self._part_size_bytes = part_size_bytes
        self._max_single_put_bytes = max_single_put_bytes
        self._client = ConditionalMinio(
            location.endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=location.secure,
            region=location.region,
            http_client=http_client(connect_timeout_seconds, read_timeout_seconds),
        )

    def read_identity(self) -> str:
        """See IdentifiableStore."""
        try:
            text = self.get(_IDENTITY_KEY).decode("ascii", errors="replace").strip()
        except NotFoundError:
            return ""
        return text if IDENTITY.fullmatch(text) else ""

    def make_identity(self) -> str:
        """See IdentifiableStore; creates the bucket where it is missing."""
        found = self.read_identity()
        if found:
            return found
        with s3_errors(f"Bucket {self._bucket}"):
            self._make_bucket()
        with suppress(AlreadyExistsError):  # another process was first
            self.put(_IDENTITY_KEY, f"{new_identity()}\n".encode(), if_absent=True, content_type="text/plain")
        return self.read_identity()

    def holds_objects(self) -> bool:
        """See IdentifiableStore."""
        with s3_errors(f"Bucket {self._bucket}"):
            try:
                return next(iter(self._client.list_objects(self._bucket, self._prefix)), None) is not None
            except S3Error as error:
                if error.code != "NoSuchBucket":
                    raise
                return False

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_sha256: str = "", content_type: str = ""
    ) -> ObjectInfo:
        """See ObjectStore."""
        name = self._prefix + checked_key(key)
        sha256 = hashlib.sha256(data).hexdigest()
        headers = _headers(sha256, content_type)
        etag = self._etag(key, if_sha256) if if_sha256 else ""
        try:
            modified = self._write(
                key,
                headers,
                lambda: self._client.create(self._bucket, name, data, headers, if_absent=if_absent, if_etag=etag),
            )
        except (AlreadyExistsError, NotFoundError):
            if if_sha256:
                raise changed_meanwhile(key) from None
            raise
        return ObjectInfo(key, len(data), modified, sha256)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        """See ObjectStore."""
        name = self._prefix + checked_key(key)
        size_bytes, sha256 = _size_and_sha256(path)
        if if_absent:
            self._raise_if_present(key)  # before the bytes travel
        headers = _headers(sha256, content_type)

        in_parts = size_bytes > (self._max_single_put_bytes if if_absent else self._part_size_bytes)

        def upload() -> datetime:
            with path.open("rb") as file:
                body = FileBody(file, size_bytes, sha256)
                if not in_parts:
                    return self._client.create(self._bucket, name, body, headers, if_absent=if_absent)
                parts = iter(lambda: body.read(self._part_size_bytes), b"")
                return self._client.create_in_parts(self._bucket, name, parts, headers, if_absent=if_absent)

        return ObjectInfo(key, size_bytes, self._write(key, headers, upload), sha256)

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        with self._opened(key) as (response, info):
            data = response.read()
        verify(info, hashlib.sha256(data).hexdigest(), expected_sha256)
        return data

    def get_file(self, key: str, path: Path, *, expected_sha256: str | None = None) -> ObjectInfo:
        """See ObjectStore."""
        with disk_errors(f"File {path}"), self._opened(key) as (response, info), replacing(path) as file:
            _, sha256 = copy_hashed(response.stream(BLOCK_BYTES), file)
            verify(info, sha256, expected_sha256)
            return info

    def stat(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        name = self._prefix + checked_key(key)
        with s3_errors(f"Object {key}"):
            return _info(key, self._client.head(self._bucket, name))

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ListedObject]:
        """See ObjectStore; takes a request per 1,000 objects.

        All objects of the prefix are fetched and sorted here: not every S3 server lists in the order of keys (SeaweedFS
        goes by folders), and what `start-after` means depends on that order.
        """
        found: list[ListedObject] = []
        try:
            with s3_errors(f"Bucket {self._bucket}"):
                for each in self._client.list_objects(self._bucket, prefix=self._prefix + prefix, recursive=True):
                    key = (each.object_name or "").removeprefix(self._prefix)
                    if key > after and is_key(key) and key != _IDENTITY_KEY and each.last_modified is not None:
                        found.append(ListedObject(key, each.size or 0, each.last_modified))
        except NotFoundError as error:
            if error.reason != BUCKET_MISSING:
                raise
        yield from sorted(found, key=lambda each: each.key)

    def delete(self, key: str) -> bool:
        """See ObjectStore."""
        try:
            self.stat(key)
        except NotFoundError:
            return False
        with s3_errors(f"Object {key}"):
            self._client.remove_object(self._bucket, self._prefix + key)
        return True

    def check(self) -> None:
        """See ObjectStore; creates the bucket where it is missing and may be created."""
        with s3_errors(f"Bucket {self._bucket}"):
            self._with_bucket(lambda: self._client.probe(self._bucket, self._prefix))

    def _write(self, key: str, headers: dict[str, str], write: Callable[[], datetime]) -> datetime:
        with s3_errors(f"Object {key}"):
            try:
                return self._with_bucket(write)
            except S3Error as error:
                if not is_precondition(error):
                    raise
            present = self._client.head(self._bucket, self._prefix + key).headers
            if present.get(_WRITE_ID) != headers[_WRITE_ID]:
                raise AlreadyExistsError(f"There is an object {key} already.")
            # Our own: the client repeated the write because the answer to the first try got lost.
            return parsedate_to_datetime(present["last-modified"])

    def _with_bucket(self, action: Callable[[], _Result]) -> _Result:
        try:
            return action()
        except S3Error as error:
            if error.code != "NoSuchBucket" or not self._create:
                raise
        self._make_bucket()
        return action()

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket, self._region)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _etag(self, key: str, sha256: str) -> str:
        """The ETag of an object; raises AbortedError where its content is not the one with this SHA-256."""
        try:
            with self._opened(key) as (response, info):
                found = info.sha256 or hashlib.sha256(response.read()).hexdigest()
                etag = response.headers.get("etag", "")
        except NotFoundError:
            raise changed_meanwhile(key) from None
        if found != sha256:
            raise changed_meanwhile(key)
        return etag

    def _raise_if_present(self, key: str) -> None:
        try:
            self.stat(key)
        except NotFoundError:
            return
        raise AlreadyExistsError(f"There is an object {key} already.")

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[BaseHTTPResponse, ObjectInfo]]:
        name = self._prefix + checked_key(key)
        with s3_errors(f"Object {key}"):
            response = self._client.get_object(self._bucket, name)
            try:
                yield response, _info(key, response)
            finally:
                response.close()
                response.release_conn()


def _headers(sha256: str, content_type: str) -> dict[str, str]:
    return {
        "Content-Type": content_type or "application/octet-stream",
        _SHA256: sha256,
        _WRITE_ID: secrets.token_hex(16),
    }


def _info(key: str, response: BaseHTTPResponse) -> ObjectInfo:
    headers = response.headers
    return ObjectInfo(
        key,
        int(headers["content-length"]),
        parsedate_to_datetime(headers["last-modified"]),
        headers.get(_SHA256, ""),
    )


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256
