"""The `minio` client with conditional creation, which its public methods do not offer (as of 7.2).

They have no way to send `If-None-Match`. The methods here build the same requests from the client's own building blocks
(`_execute` signs and sends any S3 request), so that credentials, signatures, redirects and errors stay the library's.
"""

import hashlib
import io
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import BinaryIO, cast
from xml.etree import ElementTree

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.error import S3Error

from detex_core.errors import AbortedError

_IF_ABSENT = {"If-None-Match": "*"}
_SEND_BLOCK_BYTES = 256 * 1024


class FileBody:
    """A file as the body of one request: read while it is sent, so that it takes no memory.

    Its last block is held back where the file is not what it was, so that the server never has all of it.

    Args:
        file: Open for reading, at its beginning.
        size_bytes: Its size.
        sha256: Its SHA-256 (hex).
    """

    def __init__(self, file: BinaryIO, size_bytes: int, sha256: str) -> None:
        self.sha256 = sha256
        self._file = file
        self._size_bytes = size_bytes
        self._position = 0
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, max_bytes: int = -1) -> bytes:
        """The next bytes; none at the end.

        Raises:
            AbortedError: The file has changed.
        """
        left = self._size_bytes - self._position
        block = self._file.read(left if max_bytes < 0 else min(max_bytes, left))
        self._digest.update(block)
        self._position += len(block)
        is_last = self._position == self._size_bytes
        if (left and not block) or (is_last and self._digest.hexdigest() != self.sha256):
            raise AbortedError(f"{self._file.name} has changed while it was read.")
        return block

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, position: int) -> None:
        """Begin again, for a request that is repeated."""
        if position:
            raise io.UnsupportedOperation(f"seek to {position}")
        self._file.seek(0)
        self._position = 0
        self._digest = hashlib.sha256()


def http_client(connect_timeout_seconds: float, read_timeout_seconds: float) -> urllib3.PoolManager:
    """Connections that report a server that is gone within seconds: two tries to connect, three in all."""
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=connect_timeout_seconds, read=read_timeout_seconds),
        maxsize=16,
        blocksize=_SEND_BLOCK_BYTES,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
        retries=urllib3.Retry(
            total=2, connect=1, backoff_factor=0.1, status_forcelist=[502, 503, 504], raise_on_status=False, redirect=0
        ),
    )


class ConditionalMinio(Minio):
    """Minio with writes that happen only if the object is absent."""

    def create(
        self,
        bucket: str,
        name: str,
        data: bytes | FileBody,
        headers: dict[str, str],
        *,
        if_absent: bool,
        if_etag: str = "",
    ) -> datetime:
        """PutObject; the server's time of the write.

        Raises:
            S3Error: As the server says; `PreconditionFailed` where `if_absent` is set and the object exists, or
                `if_etag` and its ETag is another.
        """
        condition = _IF_ABSENT if if_absent else {"If-Match": if_etag} if if_etag else {}
        response = self._execute(
            "PUT", bucket, name, body=cast("bytes", data), headers={**headers, **condition}, no_body_trace=True
        )
        return _server_time(response)

    def create_in_parts(
        self, bucket: str, name: str, parts: Iterator[bytes], headers: dict[str, str], *, if_absent: bool
    ) -> datetime:
        """CreateMultipartUpload, UploadPart for each part, CompleteMultipartUpload; the server's time of the write.

        The condition goes with CompleteMultipartUpload, the only one of the three where S3 knows it. Not every server
        holds it against racing writers: SeaweedFS 4.48 looks first and writes later. When anything fails, the parts are
        thrown away.

        Raises:
            S3Error: As the server says; `PreconditionFailed` where `if_absent` is set and the object exists by then.
        """
        upload_id = self._create_multipart_upload(bucket, name, dict(headers))
        try:
            etags = [
                self._upload_part(bucket, name, part, None, upload_id, number) for number, part in enumerate(parts, 1)
            ]
            body = _completion(etags)
            condition = _IF_ABSENT if if_absent else {}
            response = self._execute(
                "POST",
                bucket,
                name,
                body=body,
                headers={"Content-Type": "application/xml", "Content-MD5": _md5(body), **condition},
                query_params={"uploadId": upload_id},
            )
            # The server answers 200 before it has put the parts together; an error may follow in the body.
            if ElementTree.fromstring(response.data).tag.endswith("Error"):  # noqa: S314 (our own server's answer)
                raise S3Error.fromxml(response)
            return _server_time(response)
        except BaseException:
            self._throw_parts_away(bucket, name, upload_id)
            raise

    def head(self, bucket: str, name: str) -> urllib3.BaseHTTPResponse:
        """HeadObject: the response with all its headers."""
        response: urllib3.BaseHTTPResponse = self._execute("HEAD", bucket, name)
        return response

    def probe(self, bucket: str, prefix: str) -> None:
        """List at most one object, the cheapest request that fails as reads would fail."""
        self._execute("GET", bucket, query_params={"list-type": "2", "max-keys": "1", "prefix": prefix})

    def _build_headers(
        self,
        host: str,
        headers: dict[str, str | list[str] | tuple[str]] | None = None,
        body: bytes | FileBody | None = None,
        creds: Credentials | None = None,
    ) -> tuple[dict[str, str | list[str] | tuple[str]], datetime]:
        """Headers of a request; for a file, its hash is known and the library need not read it."""
        if not isinstance(body, FileBody):
            return super()._build_headers(host, headers, body, creds)
        built, date = super()._build_headers(host, headers, None, creds)
        built.update({"Content-Length": str(len(body)), "x-amz-content-sha256": body.sha256})
        return built, date

    def _throw_parts_away(self, bucket: str, name: str, upload_id: str) -> None:
        try:
            self._abort_multipart_upload(bucket, name, upload_id)
        except (S3Error, urllib3.exceptions.HTTPError):
            return  # the failure that led here says more; servers expire parts by themselves


def _completion(etags: list[str]) -> bytes:
    root = ElementTree.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number, etag in enumerate(etags, 1):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = f'"{etag}"'
    return ElementTree.tostring(root)


def _md5(body: bytes) -> str:
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _server_time(response: urllib3.BaseHTTPResponse) -> datetime:
    written = response.headers.get("date")
    return parsedate_to_datetime(written) if written else datetime.now(UTC)
