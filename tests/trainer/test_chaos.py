"""No job is lost and none is done twice, whoever is killed when."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.soak.kills import measure
from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from tests.servers.postgresql import PostgresServer
from tests.trainer.chaos import Chaos
from tests.trainer.running_trainer import RunningTrainer, eventually, is_running
from tests.trainer.uploads import three_photos

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
PATIENT = {"worker_count": 1, "max_pack_size": 4, "max_attempts": 10, "max_outages": 1_000, "lease_seconds": 2}


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
        assert not any(astuple(chaos.findings(jobs)))
        assert {job.state for job in jobs} == {trainer_pb2.JOB_STATE_SUCCEEDED}
        assert chaos.kills.get("trainer"), chaos.kills
    finally:
        chaos.stop()


@pytest.mark.chaos
@pytest.mark.timeout(3_600)
def test_two_hundred_kills(tmp_path: Path) -> None:
    rows = measure(tmp_path, kills=200, seed=11)
    assert [row.what for row in rows if row.met is False] == []


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
