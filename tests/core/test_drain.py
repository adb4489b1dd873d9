"""How a server process ends when it is told to."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from detex_protos.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from tests.core.sample_services import GENERATOR

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING
ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    process: subprocess.Popen[str]
    address: str
    generator: Any
    health: Any

    def begin_stream(self) -> Any:
        """A stream that lasts until `release`, with its first message received."""
        stream = self.generator.Generate(generator_pb2.GenerateRequest(prompt="wait", count=1), timeout=30)
        assert next(stream).progress.step == 1
        return stream

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def prefetch(self) -> None:
        request = generator_pb2.PrefetchConceptRequest(reference=common_pb2.ConceptReference(name="plain"))
        with grpc.insecure_channel(self.address) as channel:
            generator_pb2_grpc.GeneratorServiceStub(channel).PrefetchConcept(request, timeout=10)


@contextmanager
def serving(grace_seconds: float) -> Iterator[Running]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DETEX_")},
        "PYTHONPATH": str(ROOT),
        "DETEX_LISTEN_ADDRESS": "127.0.0.1:0",
        "DETEX_METRICS_ADDRESS": "",
        "DETEX_DRAIN_GRACE_SECONDS": str(grace_seconds),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.core.sample_services"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 30)[0]
        address = process.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            yield Running(
                process,
                address,
                generator_pb2_grpc.GeneratorServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
            )
    finally:
        process.kill()
        process.communicate()


def watch_until(watch: Any, wanted: int) -> None:
    for response in watch:
        if response.status == wanted:
            return
    raise AssertionError("the watch ended")


def test_running_calls_finish_and_new_ones_are_refused() -> None:
    with serving(grace_seconds=20) as run:
        watch = run.health.Watch(health_pb2.HealthCheckRequest(service=GENERATOR), timeout=30)
        watch_until(watch, SERVING)
        stream = run.begin_stream()
        run.process.send_signal(signal.SIGTERM)
        watch_until(watch, NOT_SERVING)
        refused = _eventually_refused(run.prefetch)
        # A call that arrives at the very moment when the server closes is cancelled by gRPC itself.
        assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert run.process.poll() is None
        run.release()
        assert next(stream).preview.step == 99
        with pytest.raises(StopIteration):
            next(stream)
        assert stream.code() is grpc.StatusCode.OK
        # The watch of health is still open and does not hold the process for the grace of 20 seconds.
        begin = time.monotonic()
        assert run.process.wait(timeout=15) == 0
        assert time.monotonic() - begin < 10


def test_calls_that_outlast_the_grace_are_ended() -> None:
    with serving(grace_seconds=0.5) as run:
        stream = run.begin_stream()
        begin = time.monotonic()
        run.process.terminate()
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # type: ignore[attr-defined]
        assert run.process.wait(timeout=15) == 0
        assert 0.5 <= time.monotonic() - begin < 10


def test_a_second_signal_ends_the_server_at_once() -> None:
    with serving(grace_seconds=60) as run:
        watch = run.health.Watch(health_pb2.HealthCheckRequest(service=GENERATOR), timeout=30)
        stream = run.begin_stream()
        run.process.terminate()
        watch_until(watch, NOT_SERVING)
        run.process.terminate()
        assert run.process.wait(timeout=15) == 0
        with pytest.raises(grpc.RpcError):
            next(stream)


def test_an_idle_server_ends_at_once_and_logs_json() -> None:
    with serving(grace_seconds=60) as run:
        run.prefetch()
        run.process.send_signal(signal.SIGINT)
        _, logs = run.process.communicate(timeout=15)
        assert run.process.returncode == 0
    lines = [line for line in logs.splitlines() if line]
    assert all(line.startswith("{") and line.endswith("}") for line in lines)
    assert '"message": "draining"' in logs
    assert '"grpc_method": "detex.v1.GeneratorService/PrefetchConcept"' in logs


def _eventually_refused(call: Callable[[], None]) -> Any:
    """The error of the first call that is refused; the server stops taking calls a moment after it reports so."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            call()
        except grpc.RpcError as error:
            return error
    raise AssertionError("calls are still taken")
