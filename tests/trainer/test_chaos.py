"""No job is lost and none is done twice, whoever is killed when."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detex_core.object_store import FolderStore, open_object_store
from detex_core.settings import ObjectStoreSettings
from detex_protos.v1 import trainer_pb2
from tests.servers.postgresql import PostgresServer
from tests.servers.seaweedfs import SeaweedServer, start_seaweedfs
from tests.trainer.chaos import Chaos
from tests.trainer.running_trainer import RunningTrainer, eventually, is_running
from tests.trainer.uploads import three_photos

StartTrainer = Callable[..., RunningTrainer]
PATIENT = {"worker_count": 2, "max_attempts": 10, "max_outages": 1_000, "lease_seconds": 2}


@pytest.fixture
def database_url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    name = f"chaos_{abs(hash(tmp_path)):x}"
    postgres_server.create_database(name)
    return postgres_server.url(name)


def test_jobs_survive_kills_of_three_trainers_on_one_database(tmp_path: Path, database_url: str) -> None:
    chaos = Chaos(tmp_path, database_url, FolderStore(tmp_path / "objects"), seed=5, settings=PATIENT)
    try:
        for number in range(10):
            chaos.submit(f"lingers-{number}")
            if number % 2:
                chaos.kill()
        jobs = chaos.wait_until_all_have_ended(180)
        chaos.check(jobs)
        assert {job.state for job in jobs} == {trainer_pb2.JOB_STATE_SUCCEEDED}
        assert chaos.kills.get("trainer"), chaos.kills
    finally:
        chaos.stop()


@pytest.fixture
def own_seaweedfs(tmp_path: Path) -> Iterator[SeaweedServer]:
    server = start_seaweedfs(tmp_path / "seaweedfs")
    yield server
    server.kill()


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
def test_two_hundred_kills(
    tmp_path: Path, database_url: str, own_seaweedfs: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETEX_S3_ACCESS_KEY", own_seaweedfs.access_key)
    monkeypatch.setenv("DETEX_S3_SECRET_KEY", own_seaweedfs.secret_key)
    url = own_seaweedfs.url("chaos")
    store = open_object_store(ObjectStoreSettings(url=url))
    chaos = Chaos(
        tmp_path,
        database_url,
        store,
        seed=11,
        frozen_store=own_seaweedfs,
        settings=PATIENT | {"object_store_url": url},
    )
    try:
        number = 0
        while sum(chaos.kills.values()) < 200:
            chaos.submit(f"lingers-{number}")
            chaos.kill()
            number += 1
        chaos.check(chaos.wait_until_all_have_ended(1_200))
        assert set(chaos.kills) == {"worker", "trainer", "database", "store"}
    finally:
        chaos.stop()


def test_a_trainer_killed_between_publishing_and_recording_publishes_once(start_trainer: StartTrainer) -> None:
    first = start_trainer()
    training_set_id = first.stub.UploadTrainingSet(three_photos(), timeout=60).training_set.training_set_id
    job = first.submit(training_set_id, "published-late")
    published = first.meeting_folder / "published-late.published"
    eventually(published.exists)
    pid = first.worker_pid("published-late")
    first.kill()
    eventually(lambda: not is_running(pid))
    second = start_trainer()
    ended = second.ended(job.job_id)
    assert ended.state == trainer_pb2.JOB_STATE_SUCCEEDED
    assert ended.concept.version == published.read_text()
    assert len(second.stub.ListConcepts(trainer_pb2.ListConceptsRequest()).concepts) == 1
    started = (second.meeting_folder / "published-late.started").read_text()
    assert len(started.splitlines()) == 1, "it is not trained again"


def test_a_job_that_has_published_cannot_fail_any_more(start_trainer: StartTrainer) -> None:
    first = start_trainer(max_attempts=1)
    training_set_id = first.stub.UploadTrainingSet(three_photos(), timeout=60).training_set.training_set_id
    job = first.submit(training_set_id, "published-last")
    eventually((first.meeting_folder / "published-last.published").exists)
    first.kill()
    ended = start_trainer(max_attempts=1).ended(job.job_id)
    assert ended.state == trainer_pb2.JOB_STATE_SUCCEEDED, "its only attempt was taken for lost"
