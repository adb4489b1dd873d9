"""What only an S3 server can do: refuse credentials, vanish, fall silent, lose an answer."""

import hashlib
import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from minio.error import S3Error

from detex_core.errors import AlreadyExistsError, NotFoundError, PermissionDeniedError, UnavailableError
from detex_core.object_store import ObjectStore, open_object_store
from detex_core.object_store.location import S3Location
from detex_core.object_store.minio_client import ConditionalMinio
from detex_core.object_store.minio_store import MinioStore
from detex_core.settings import ObjectStoreSettings
from tests.core.conftest import BUCKET, PART_SIZE_BYTES, minio_store, plain_client
from tests.servers.seaweedfs import SeaweedServer, start_seaweedfs


def every_call(store: ObjectStore, file: Path) -> list[Callable[[], Any]]:
    file.write_bytes(b"data")
    return [
        store.check,
        lambda: store.get("key"),
        lambda: store.get_file("key", file.with_name("target")),
        lambda: store.stat("key"),
        lambda: list(store.list()),
        lambda: store.put("key", b"other"),
        lambda: store.put("key", b"other", if_absent=True),
        lambda: store.put_file("key", file, if_absent=True),
        lambda: store.delete("key"),
    ]


def test_settings_open_the_store(seaweedfs: SeaweedServer, s3_prefix: str) -> None:
    store = open_object_store(
        ObjectStoreSettings(
            url=seaweedfs.url(BUCKET, s3_prefix), access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key
        )
    )
    store.put("key", b"data", content_type="application/json")
    stat = plain_client(seaweedfs).stat_object(BUCKET, f"{s3_prefix}/key")
    assert stat.size == 4
    assert stat.content_type == "application/json"


@pytest.mark.parametrize("wrong", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
def test_wrong_credentials_are_permission_denied(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str, tmp_path: Path, wrong: dict[str, str]
) -> None:
    s3_store.put("key", b"data")
    for call in every_call(minio_store(seaweedfs, s3_prefix, **wrong), tmp_path / "file"):
        with pytest.raises(PermissionDeniedError) as raised:
            call()
        assert seaweedfs.secret_key not in str(raised.value)
    assert s3_store.get("key") == b"data"


def test_a_server_that_is_gone_is_reported_within_seconds_and_comes_back(tmp_path: Path) -> None:
    server = start_seaweedfs(tmp_path / "server")
    try:
        store = minio_store(server, "prefix")
        store.put("key", b"data")
        server.kill()
        for call in every_call(store, tmp_path / "file"):
            begin = time.monotonic()
            with pytest.raises(UnavailableError) as raised:
                call()
            assert time.monotonic() - begin < 5
            assert raised.value.retry_delay_seconds is not None
        assert not (tmp_path / "target").exists()
        server.start()
        assert store.get("key") == b"data"
        store.put("other", b"data")
        assert [each.key for each in store.list()] == ["key", "other"]
    finally:
        server.kill()


def test_a_store_may_be_opened_before_its_server_runs() -> None:
    location = S3Location(BUCKET, "", "127.0.0.1:1", secure=False, region="us-east-1")
    store = MinioStore(location, access_key="user", secret_key="secret")
    with pytest.raises(UnavailableError):
        store.check()


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        location = S3Location(BUCKET, "", f"127.0.0.1:{listener.getsockname()[1]}", secure=False, region="us-east-1")
        store = MinioStore(location, access_key="user", secret_key="secret", read_timeout_seconds=0.2)
        begin = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            store.get("key")
        assert time.monotonic() - begin < 5


def test_what_is_no_s3_server_is_called_so() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>nothing here</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        location = S3Location(BUCKET, "", f"127.0.0.1:{server.server_port}", secure=False, region="us-east-1")
        store = MinioStore(location, access_key="user", secret_key="secret")
        with pytest.raises(UnavailableError, match="is not an S3 server"):
            store.check()
        server.shutdown()


def test_a_missing_bucket_is_empty_until_the_first_write(seaweedfs: SeaweedServer, s3_prefix: str) -> None:
    location = S3Location(f"bucket-{s3_prefix}", "", seaweedfs.endpoint, secure=False, region="us-east-1")
    store = MinioStore(location, access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key)
    assert list(store.list()) == []
    assert store.delete("key") is False
    with pytest.raises(NotFoundError):
        store.get("key")
    store.put("key", b"data", if_absent=True)
    assert store.get("key") == b"data"


def test_large_files_travel_in_parts(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * PART_SIZE_BYTES + 1))
    s3_store.put_file("big", source)
    etag = plain_client(seaweedfs).stat_object(BUCKET, f"{s3_prefix}/big").etag
    assert etag is not None
    assert etag.endswith("-3")


def test_large_files_that_must_not_replace_others_travel_in_one_request(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * PART_SIZE_BYTES + 1))
    s3_store.put_file("big", source, if_absent=True)
    etag = plain_client(seaweedfs).stat_object(BUCKET, f"{s3_prefix}/big").etag
    assert etag == hashlib.md5(source.read_bytes()).hexdigest()
    assert s3_store.get("big") == source.read_bytes()


def test_files_beyond_one_request_are_tested_for_absence_when_their_upload_is_completed(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(PART_SIZE_BYTES + 1))
    in_parts = minio_store(seaweedfs, s3_prefix, max_single_put_bytes=0)
    in_parts.put_file("first", source, if_absent=True)
    assert s3_store.get("first") == source.read_bytes()
    with pytest.raises(AlreadyExistsError):
        in_parts.put_file("first", source, if_absent=True)


def test_an_upload_that_meets_an_object_throws_its_parts_away(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str
) -> None:
    client = ConditionalMinio(
        seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=seaweedfs.secret_key,
        secure=False,
        region="us-east-1",
    )

    def parts() -> Iterator[bytes]:
        yield bytes(PART_SIZE_BYTES)
        s3_store.put("big", b"another was faster")
        yield b"end"

    with pytest.raises(S3Error) as raised:
        client.create_in_parts(BUCKET, f"{s3_prefix}/big", parts(), {}, if_absent=True)
    assert raised.value.code == "PreconditionFailed"
    assert s3_store.get("big") == b"another was faster"
    unfinished = plain_client(seaweedfs)._list_multipart_uploads(BUCKET, prefix=s3_prefix)
    assert [upload.object_name for upload in unfinished.uploads] == []


@contextmanager
def proxy(endpoint: str, swallow: Callable[[bytes], bool]) -> Iterator[str]:
    """Forwards HTTP requests; the first whose head `swallow` accepts gets done, but its answer never arrives."""
    host, port = endpoint.split(":")
    swallowed = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as upstream:
            head = b""
            while True:
                data = client.recv(65_536)
                if not data:
                    return
                head += data
                upstream.sendall(data)
                end = head.find(b"\r\n\r\n")
                length = next(
                    (
                        int(line[15:])
                        for line in head[:end].lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                if end < 0 or len(head) < end + 4 + length:
                    continue
                answer = upstream.recv(65_536)
                if swallow(head) and not swallowed.is_set():
                    swallowed.set()
                    return
                client.sendall(answer)
                head = b""

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    assert swallowed.is_set()


def test_a_conditional_write_whose_answer_got_lost_is_no_conflict(
    seaweedfs: SeaweedServer, s3_store: MinioStore, s3_prefix: str
) -> None:
    s3_store.check()
    with proxy(seaweedfs.endpoint, lambda head: head.startswith(b"PUT ")) as endpoint:
        location = S3Location(BUCKET, s3_prefix, endpoint, secure=False, region="us-east-1")
        through = MinioStore(location, access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key)
        assert through.put("key", b"data", if_absent=True).size_bytes == 4
        with pytest.raises(AlreadyExistsError):
            through.put("key", b"data", if_absent=True)
    assert s3_store.get("key") == b"data"
