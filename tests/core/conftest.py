"""Object stores of both kinds, empty and of one's own per test."""

import io
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from detex_core.object_store import FolderStore, ObjectStore
from detex_core.object_store.location import S3Location
from detex_core.object_store.minio_store import MinioStore
from tests.servers.seaweedfs import SeaweedServer

BUCKET = "detex-tests"
PART_SIZE_BYTES = 5 * 1024**2

PutFromOutside = Callable[..., None]
Tamper = Callable[[str, bytes], None]


def minio_store(server: SeaweedServer, prefix: str, **options: object) -> MinioStore:
    """A store in the test bucket of a server."""
    location = S3Location(BUCKET, prefix, server.endpoint, secure=False, region="us-east-1")
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    return MinioStore(location, **{"part_size_bytes": PART_SIZE_BYTES, **keys, **options})  # type: ignore[arg-type]


def plain_client(server: SeaweedServer) -> Minio:
    """The library's own client of the same server, to look and to meddle from outside."""
    return Minio(
        server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=False,
        region="us-east-1",
    )


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def s3_prefix() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def s3_store(seaweedfs: SeaweedServer, s3_prefix: str) -> MinioStore:
    return minio_store(seaweedfs, s3_prefix)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store; every test that takes it runs over both kinds."""
    opened: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return opened


@pytest.fixture
def put_from_outside(store: ObjectStore, request: pytest.FixtureRequest) -> PutFromOutside:
    """Writes an object without the store, with a recorded hash where one is given."""

    def in_folder(key: str, data: bytes, recorded_sha256: str = "") -> None:
        path = request.getfixturevalue("tmp_path") / "store" / "objects" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)  # goes through the link where there is one, whose target names the hash

    def in_bucket(key: str, data: bytes, recorded_sha256: str = "") -> None:
        client = plain_client(request.getfixturevalue("seaweedfs"))
        name = f"{request.getfixturevalue('s3_prefix')}/{key}"
        metadata = {"detex-sha256": recorded_sha256} if recorded_sha256 else {}
        client.put_object(BUCKET, name, io.BytesIO(data), len(data), metadata=metadata)  # type: ignore[arg-type]

    store.check()  # creates the bucket
    return in_folder if isinstance(store, FolderStore) else in_bucket


@pytest.fixture
def tamper(store: ObjectStore, put_from_outside: PutFromOutside) -> Tamper:
    """Puts other bytes where an object lies, under the hash of the bytes that it was written with."""

    def change(key: str, data: bytes) -> None:
        put_from_outside(key, data, store.stat(key).sha256)

    return change
