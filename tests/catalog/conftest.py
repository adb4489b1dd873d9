"""Catalog runs against the real services, on a tiny base model of random weights, with which training takes seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from detex_catalog.cli import catalog
from detex_client import GeneratorClient, TrainerClient
from detex_showroom import sample_subjects
from tests.e2e.conftest import START_TIMEOUT_SECONDS, served
from tests.tiny_models import write_tiny_model

SAMPLES = {subject.name: subject for subject in sample_subjects()}
NOTHING_LISTENS = "127.0.0.1:9"


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    exit_code: int
    stdout: str
    stderr: str

    def events(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass(frozen=True)
class Services:
    """Both services with a client each."""

    trainer: TrainerClient
    generator: GeneratorClient
    environment: dict[str, str]


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("catalog_services")
    with ExitStack() as stack:
        base_model = write_tiny_model(folder / "tiny")
        trainer_service = stack.enter_context(served("trainer", folder, base_model))
        generator_service = stack.enter_context(served("generator", folder, base_model))
        trainer = stack.enter_context(TrainerClient(trainer_service.address))
        generator = stack.enter_context(GeneratorClient(generator_service.address))
        trainer.wait_until_serving(START_TIMEOUT_SECONDS)
        generator.wait_until_serving(START_TIMEOUT_SECONDS)
        addresses = {
            "DETEX_TRAINER_ADDRESS": trainer_service.address,
            "DETEX_GENERATOR_ADDRESS": generator_service.address,
        }
        yield Services(trainer, generator, addresses)


@pytest.fixture
def command() -> Callable[..., Outcome]:
    """Runs `detex catalog` in this process; without services unless their addresses are given as `env`."""
    nowhere = {"DETEX_TRAINER_ADDRESS": NOTHING_LISTENS, "DETEX_GENERATOR_ADDRESS": NOTHING_LISTENS}

    def run(*arguments: str | Path, env: dict[str, str] = nowhere) -> Outcome:
        result = CliRunner().invoke(catalog, [str(argument) for argument in arguments], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


def start(*arguments: str | Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """`detex catalog` as a process of its own, to be killed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
    words = [sys.executable, "-m", "detex_catalog", *map(str, arguments)]
    return subprocess.Popen(words, env=kept | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def write_catalog(path: Path, rows: list[dict[str, object]]) -> Path:
    """A catalog as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def events_of(out: Path) -> list[dict[str, Any]]:
    """What the journals of an output folder hold."""
    paths = sorted((out / "journal").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().rpartition("\n")[0].splitlines()]


def product(name: str, concept: str, **values: object) -> dict[str, object]:
    """A row that trains a sample subject for two steps and draws it in two."""
    subject = SAMPLES[name]
    folder = str(subject.photos[0].image_path.parent)
    row: dict[str, object] = {"sku": concept.upper(), "concept": concept, "photos": [folder]}
    return row | {"class_word": subject.class_word, "training_steps": 2, "steps": 2, "seed": 5} | values
