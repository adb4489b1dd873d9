"""The generator as a process of its own: start, end under load, wrong settings, and what Prometheus reads."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from detex_generator.generator import SERVICE_NAME, Generator
from detex_protos.v1.generator_pb2 import GenerateRequest
from detex_protos.v1.generator_pb2_grpc import GeneratorServiceStub
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    generator_settings,
    images_of,
    refusal_of,
    running,
    wait_until,
)

pytestmark = pytest.mark.slow

PROMTOOL = Path(__file__).parents[2] / ".tools" / "bin" / "promtool"


class GeneratorProcess:
    """`python -m detex_generator` with settings from the environment."""

    def __init__(self, **settings: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
        environment |= {f"DETEX_{name.upper()}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "detex_generator"],
            env=environment | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []

    def listening(self) -> dict[str, Any]:
        """The log's record of where it listens."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["message"] == "listening":
                return self.log[-1]
        raise AssertionError(f"it ended: {self.log}")

    def end(self) -> tuple[int, str]:
        """Exit status and the rest of what it wrote."""
        _, rest = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, rest

    def __enter__(self) -> "GeneratorProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def settings(model_folders: dict[str, Path], store_folder: Path) -> dict[str, str]:
    return {
        "listen_address": "127.0.0.1:0",
        "metrics_address": "127.0.0.1:0",
        "object_store_url": f"folder://{store_folder}",
        "base_models": json.dumps([{"name": "tiny", "source": str(model_folders["tiny"])}]),
        "readiness_interval_seconds": "0.02",
        "log_format": "json",
    }


def test_the_end_under_load_loses_nothing(settings: dict[str, str], concepts: object) -> None:
    with GeneratorProcess(**settings) as process, grpc.insecure_channel(process.listening()["address"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        wait_until(lambda: health.Check(ask).status == health_pb2.HealthCheckResponse.SERVING)
        stub = GeneratorServiceStub(channel)
        requests = [GenerateRequest(prompt="[my-mug] on a beach", steps=40, count=4, seed=seed) for seed in range(4)]
        calls = [stub.Generate(request, timeout=TIMEOUT_SECONDS) for request in requests]
        for call in calls:
            assert next(call).HasField("queued")
        process.process.send_signal(signal.SIGTERM)
        assert [len(images_of(call)) for call in calls] == [4, 4, 4, 4]
        status, log = process.end()
        assert status == 0, log
        assert refusal_of(stub.Generate(requests[0])).code == grpc.StatusCode.UNAVAILABLE


def test_wrong_settings_end_it_with_a_sentence(settings: dict[str, str]) -> None:
    with GeneratorProcess(**settings | {"max_waiting_images": "3"}) as process:
        status, log = process.end()
    assert status == 1
    assert log.startswith("The settings of the generator are wrong:")
    assert "max_images_per_request: must be at most max_waiting_images (3), got 64" in log
    assert "Traceback" not in log


def test_a_base_model_that_does_not_load_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        return await Generator(generator_settings({"gone": tmp_path / "gone"}, tmp_path / "store")).run()

    assert asyncio.run(run()) == 1
    assert "Base model gone does not load" in caplog.text


def test_a_base_model_of_another_kind_ends_it_with_a_sentence(
    model_folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(next(iter(model_folders.values())), tmp_path / "edm"))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_beta_sigmas": True}))

    async def run() -> int:
        return await Generator(generator_settings({"edm": folder}, tmp_path / "store")).run()

    assert asyncio.run(run()) == 1
    assert "scheduler/scheduler_config.json: use_beta_sigmas True is not supported" in caplog.text
    assert "Traceback" not in caplog.text


def test_prometheus_reads_its_metrics(model_folders: dict[str, Path], store_folder: Path, concepts: object) -> None:
    settings = generator_settings(model_folders, store_folder, metrics_address="127.0.0.1:0")
    with running(settings) as generator:
        generator.draw(prompt="[my-mug]", steps=2)
        assert refusal_of(generator.start()).code == grpc.StatusCode.INVALID_ARGUMENT
        with urlopen(f"http://{generator.generator.server.metrics_address}/metrics") as response:
            text = response.read()
    assert b'detex_generator_requests_total{outcome="OK"} 1.0' in text
    assert b'detex_generator_requests_total{outcome="INVALID_ARGUMENT"} 1.0' in text
    assert b"my-mug" not in text
    if not PROMTOOL.exists():
        pytest.skip("promtool is not installed: make tools")
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
