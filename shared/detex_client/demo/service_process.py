"""A service as a process of its own on this machine, for as long as a demonstration runs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from detex_client.errors import DetexClientError

START_TIMEOUT_SECONDS = 300.0
STOP_TIMEOUT_SECONDS = 20.0
LOG_TAIL_LINES = 20


class ServiceProcess:
    """Starts a service on a free loopback port when entered, and ends it and all it started when left.

    Args:
        name: `trainer` or `generator`.
        environment: Settings beyond those of this process.
        log: File for its output; overwritten.

    Attributes:
        name: As given.
        address: Where it serves gRPC.
        log: As given.
    """

    def __init__(self, name: str, *, environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.address = f"127.0.0.1:{_free_port()}"
        self.log = log
        # Settings of the services around this process, a listening address for example, are not meant for these.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
        self._environment = inherited | {
            "DETEX_LISTEN_ADDRESS": self.address,
            "DETEX_METRICS_ADDRESS": "",
            "DETEX_LOG_FORMAT": "text",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "detex_client.demo.child", f"detex_{self.name}", str(os.getpid())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches this process alone, which then ends the service
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.terminate()
            process.wait(STOP_TIMEOUT_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            # What is left of its process group: the service itself where it did not end, and its workers.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def wait_until_serving(self, serving: Callable[[], bool]) -> None:
        """Wait until `serving` says yes.

        Raises:
            DetexClientError: UNAVAILABLE when the process ends before, or is not ready in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not serving():
            if self.exit_code is not None:
                raise _not_started(f"The {self.name} exited with code {self.exit_code} during startup.")
            if time.monotonic() > deadline:
                raise _not_started(f"The {self.name} was not ready within {START_TIMEOUT_SECONDS:.0f} seconds.")
            time.sleep(0.1)

    def log_tail(self) -> str:
        """The last lines of its log; empty where there are none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _not_started(message: str) -> DetexClientError:
    return DetexClientError(message, code=grpc.StatusCode.UNAVAILABLE, reason="SERVICE_NOT_STARTED")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
