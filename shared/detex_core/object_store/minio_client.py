"""The `minio` client with conditional creation, which its public methods do not offer (as of 7.2).

They have no way to send `If-None-Match`. The methods here build the same requests from the client's own building blocks
(`_execute` signs and sends any S3 request), so that credentials, signatures, redirects and errors stay the library's.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree

import certifi
import urllib3
from minio import Minio
from minio.error import S3Error

_IF_ABSENT = {"If-None-Match": "*"}


def http_client(connect_timeout_seconds: float, read_timeout_seconds: float) -> urllib3.PoolManager:
    """Connections that report a server that is gone within seconds: three tries in quick succession."""
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=connect_timeout_seconds, read=read_timeout_seconds),
        maxsize=16,
        cert_reqs="CERT_REQUIRED",
        ca_certs=certifi.where(),
        retries=urllib3.Retry(
            total=2, backoff_factor=0.1, status_forcelist=[502, 503, 504], raise_on_status=False, redirect=0
        ),
    )


class ConditionalMinio(Minio):
    """Minio with writes that happen only if the object is absent."""

    def create(self, bucket: str, name: str, data: bytes, headers: dict[str, str], *, if_absent: bool) -> datetime:
        """PutObject; the server's time of the write.

        Raises:
            S3Error: As the server says; `PreconditionFailed` where `if_absent` is set and the object exists.
        """
        condition = _IF_ABSENT if if_absent else {}
        response = self._execute("PUT", bucket, name, body=data, headers={**headers, **condition}, no_body_trace=True)
        return _server_time(response)

    def create_in_parts(
        self, bucket: str, name: str, parts: Iterator[bytes], headers: dict[str, str], *, if_absent: bool
    ) -> datetime:
        """CreateMultipartUpload, UploadPart for each part, CompleteMultipartUpload; the server's time of the write.

        The condition goes with CompleteMultipartUpload, the only one of the three where S3 knows it. When anything
        fails, the parts are thrown away.

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
