"""A real S3 server for the measurement of cold concepts."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from detex_core.settings import ObjectStoreSettings


@contextmanager
def s3_store(folder: Path) -> Iterator[ObjectStoreSettings | None]:
    """Settings of an empty bucket of a SeaweedFS of its own; None where `weed` is not installed."""
    if not (Path(sys.executable).with_name("weed").exists() or shutil.which("weed")):
        yield None
        return
    # The tests' server: imported only here, for it needs pytest and urllib3 of the dev extra, as `weed` does.
    from tests.servers.seaweedfs import start_seaweedfs

    server = start_seaweedfs(folder)
    try:
        yield ObjectStoreSettings(
            url=server.url("serving"),
            access_key=SecretStr(server.access_key),
            secret_key=SecretStr(server.secret_key),
        )
    finally:
        server.kill()
