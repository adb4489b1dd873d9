"""A service of detex in a process of its own, as a container starts it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 240.0


@dataclass
class RunningService:
    """A service in a process of its own.

    Attributes:
        name: `trainer` or `generator`.
        process: The process.
        log: Where its output goes.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    address: str = ""
    metrics_address: str = ""

    def records(self) -> list[dict[str, Any]]:
        """The lines of its log; each must be JSON, as the chart asks for."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_until_listening(self) -> None:
        """Learn the addresses from the log."""

        def listening() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            complete = self.log.read_text().rpartition("\n")[0].splitlines()
            for record in map(json.loads, complete):
                if record["message"] == "listening":
                    self.address, self.metrics_address = record["address"], record["metrics_address"]
            return bool(self.address)

        poll(listening)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP request to the metrics port."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self) -> str:
        """What the probes of the chart hear."""
        request = health_pb2.HealthCheckRequest(service=f"detex.v1.{self.name.title()}Service")
        with grpc.insecure_channel(self.address) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def poll(done: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Wait until `done`; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.05)


def start_service(name: str, log: Path, variables: dict[str, str]) -> RunningService:
    """Start `python -m detex_<name>` with these variables and no other settings; returns at once."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"detex_{name}"], env=variables, stdout=output, stderr=subprocess.STDOUT
        )
    return RunningService(name, process, log)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Variables of a service on free loopback ports with all its data in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DETEX_")}
    return kept | {
        "DETEX_WORK_FOLDER": str(folder / "work"),
        "DETEX_OBJECT_STORE_URL": f"folder://{folder / 'store'}",
        "DETEX_LISTEN_ADDRESS": "127.0.0.1:0",
        "DETEX_METRICS_ADDRESS": "127.0.0.1:0",
        "DETEX_LOG_FORMAT": "json",
        "DETEX_READINESS_INTERVAL_SECONDS": "0.1",
        **settings,
    }
