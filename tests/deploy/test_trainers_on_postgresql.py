"""Several trainers on one real PostgreSQL, with the password in PGPASSWORD rather than the URL, as the chart has it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from PIL import Image, ImageDraw

from detex_client.trainer_client import TrainerClient
from detex_client.training_photo import find_training_photos
from detex_trainer.jobs import Database
from tests.deploy.running_service import RunningService, environment, poll, start_service
from tests.servers.postgresql import PostgresServer
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def variables(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("trainers")
    base_models = json.dumps([{"name": "tiny", "source": str(write_tiny_model(folder / "tiny"))}])
    return environment(
        folder,
        DETEX_BASE_MODELS=base_models,
        DETEX_DATABASE_URL=postgres_server.url(),
        DETEX_WORKER_NICENESS="0",
        PGPASSWORD=postgres_server.password,
    )


@pytest.fixture(scope="module")
def trainers(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningService]]:
    """Two trainers that start at the same time on a database without tables."""
    folder = tmp_path_factory.mktemp("logs")
    both = [
        start_service("trainer", folder / f"{number}.log", variables | {"DETEX_WORK_FOLDER": str(folder / str(number))})
        for number in range(2)
    ]
    try:
        for trainer in both:
            trainer.wait_until_listening()
            poll(lambda trainer=trainer: trainer.health() == "SERVING")
        yield both
    finally:
        for trainer in both:
            trainer.process.kill()
            trainer.process.wait()


def test_a_job_is_seen_by_both_and_done_once(trainers: list[RunningService], tmp_path: Path) -> None:
    for number in range(2):
        photo = Image.new("RGBA", (64, 64), (90 * number, 120, 40, 0))
        ImageDraw.Draw(photo).ellipse((12, 12, 52, 52), (200, 90 * number, 10, 255))
        photo.save(tmp_path / f"{number}.png")
    with TrainerClient(trainers[0].address) as first, TrainerClient(trainers[1].address) as second:
        training_set = first.upload(find_training_photos([tmp_path]), class_word="mug")
        job, same = (
            client.submit(training_set.training_set_id, name="shared", idempotency_key="once", steps=2, resolution=64)
            for client in (first, second)
        )
        assert same.job_id == job.job_id
        ended = second.wait(job.job_id)
        assert ended.failure is None, ended
        assert first.job(job.job_id) == ended
        assert [each.job_id for each in first.jobs()] == [job.job_id]
        assert ended.published() == second.concept("shared").reference


def test_tables_are_made_once_by_many(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres_server.create_database("crowded")
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    together = Barrier(4)

    def open_database(_: int) -> Database:
        together.wait()
        return Database(postgres_server.url("crowded"))

    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(open_database, range(4)))
    for database in databases:
        database.check()
        database.close()


def test_a_wrong_password_is_told_in_a_sentence(variables: dict[str, str], tmp_path: Path) -> None:
    refused = start_service("trainer", tmp_path / "log", variables | {"PGPASSWORD": "wrong"})
    assert refused.process.wait(60) > 0
    text = refused.log.read_text()
    assert "job database does not answer" in text
    assert "Traceback" not in text
    assert variables["PGPASSWORD"] not in text
