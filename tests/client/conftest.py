"""Scripted services that run, photos on disk, and the command line in this process."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from detex_client import GeneratorClient, TrainerClient
from detex_client.cli.application import application
from tests.client.scripted_services import ScriptedGenerator, ScriptedTrainer, serve_generator, serve_trainer


@dataclass
class Scripted:
    """Scripted services and where they serve."""

    trainer: ScriptedTrainer
    generator: ScriptedGenerator
    trainer_address: str
    generator_address: str


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    exit_code: int
    stdout: str
    stderr: str

    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.stdout)

    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    trainer, generator = ScriptedTrainer(), ScriptedGenerator()
    with serve_trainer(trainer) as trainer_server, serve_generator(generator) as generator_server:
        yield Scripted(trainer, generator, trainer_server.address, generator_server.address)


@pytest.fixture
def trainer_client(scripted: Scripted) -> Iterator[TrainerClient]:
    with TrainerClient(scripted.trainer_address, "acme", timeout_seconds=10) as client:
        yield client


@pytest.fixture
def generator_client(scripted: Scripted) -> Iterator[GeneratorClient]:
    with GeneratorClient(scripted.generator_address, "acme", timeout_seconds=10) as client:
        yield client


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos and masks of the first two."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        (folder / f"photo_{index}.png").write_bytes(noise_png(index))
    for index in range(2):
        (folder / f"mask_{index}.png").write_bytes(noise_png(10 + index))
    return folder


@pytest.fixture
def detex(scripted: Scripted) -> Callable[..., Outcome]:
    """Runs a command line in this process against the scripted services."""
    runner = CliRunner()
    environment = {
        "DETEX_TRAINER_ADDRESS": scripted.trainer_address,
        "DETEX_GENERATOR_ADDRESS": scripted.generator_address,
    }

    def run(*arguments: str) -> Outcome:
        result = runner.invoke(application, arguments, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


def noise_png(seed: int, side: int = 16) -> bytes:
    """A picture that no other seed has."""
    image = Image.effect_noise((side, side), 50 + seed)
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    return file.getvalue()
