"""Both services as processes of their own, started as people start them, on a tiny base model of random weights."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from detex_client import GeneratorClient, TrainerClient
from tests.tiny_models import write_tiny_model

START_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 60.0
# A shell that starts the tests in the background has its children ignore SIGINT; the commands heed it all the same, and
# say so themselves: with `preexec_fn` a process forks in full, which threads of gRPC do not bear.
DETEX = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from detex_client.cli import main; main()",
]


@dataclass(frozen=True)
class RunningService:
    """A service that serves.

    Attributes:
        address: Where.
        process: Its process.
        log: Its output.
    """

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path


@dataclass(frozen=True)
class Services:
    """Trainer and generator over one store, with a client each."""

    trainer: TrainerClient
    generator: GeneratorClient
    trainer_service: RunningService
    generator_service: RunningService


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:
        trainer_service = stack.enter_context(served("trainer", folder, tiny_model))
        generator_service = stack.enter_context(served("generator", folder, tiny_model))
        trainer = stack.enter_context(TrainerClient(trainer_service.address, timeout_seconds=60))
        generator = stack.enter_context(GeneratorClient(generator_service.address, timeout_seconds=60))
        trainer.wait_until_serving(START_TIMEOUT_SECONDS)
        generator.wait_until_serving(START_TIMEOUT_SECONDS)
        yield Services(trainer, generator, trainer_service, generator_service)


@contextmanager
def served(name: str, folder: Path, base_model: Path) -> Iterator[RunningService]:
    """`detex serve`; ends it in the end and looks at its exit code."""
    address, log = free_address(), folder / f"{name}.log"
    arguments = ["serve", name, "--listen", address, "--metrics", "", "--data", str(folder / "data")]
    arguments += ["--base-model", f"tiny={base_model}", "--device", "cpu"]
    with log.open("wb") as output:
        process = subprocess.Popen([*DETEX, *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment())
    try:
        yield RunningService(address, process, log)
        process.terminate()
        assert process.wait(STOP_TIMEOUT_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def environment() -> dict[str, str]:
    """The environment of the tests without settings of detex; one thread per process, for tests share the cores."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
    return kept | {"OMP_NUM_THREADS": "1"}


def free_address() -> str:
    """A loopback address that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"
