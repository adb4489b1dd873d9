"""What dies, fills up or is told to stop in the midst of jobs."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from tests.servers.seaweedfs import SeaweedServer
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer, eventually, is_running
from tests.trainer.uploads import encoded, file, header, photo, stream, three_photos

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]


def upload(trainer: RunningTrainer) -> str:
    return trainer.stub.UploadTrainingSet(three_photos(), timeout=30).training_set.training_set_id


def test_a_killed_worker_is_started_again(start_trainer: StartTrainer) -> None:
    trainer = start_trainer()
    job = trainer.submit(upload(trainer), "waits-killed")
    os.kill(trainer.worker_pid("waits-killed"), signal.SIGKILL)
    trainer.worker_pid("waits-killed", attempt=2)
    trainer.go("waits-killed")
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    versions = trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest()).concepts
    assert len(versions) == 1


def test_a_worker_told_to_stop_by_a_stranger_is_started_again(start_trainer: StartTrainer) -> None:
    trainer = start_trainer()
    job = trainer.submit(upload(trainer), "waits-stopped")
    os.kill(trainer.worker_pid("waits-stopped"), signal.SIGTERM)
    trainer.worker_pid("waits-stopped", attempt=2)
    trainer.go("waits-stopped")
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_a_worker_that_does_not_stop_is_killed(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(worker_stop_grace_seconds=0.3)
    job = trainer.submit(upload(trainer), "stubborn")
    pid = trainer.worker_pid("stubborn")
    trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id))
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    assert not is_running(pid)


def test_a_killed_trainer_loses_no_job_and_leaves_no_worker(start_trainer: StartTrainer) -> None:
    first = start_trainer()
    training_set_id = upload(first)
    running = first.submit(training_set_id, "waits-running")
    queued = first.submit(training_set_id, "ok-queued")
    pid = first.worker_pid("waits-running")
    first.kill()
    eventually(lambda: not is_running(pid))
    second = start_trainer()
    # Whichever comes first: the queued job's turn, or the end of the lease on the other.
    assert second.job(queued.job_id).state != trainer_pb2.JOB_STATE_FAILED
    second.worker_pid("waits-running", attempt=2)
    second.go("waits-running")
    for job in (running, queued):
        assert second.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_a_job_that_its_trainer_never_survives_fails(start_trainer: StartTrainer) -> None:
    for attempt in (1, 2):
        trainer = start_trainer(max_attempts=2)
        if attempt == 1:
            job = trainer.submit(upload(trainer), "waits-doomed")
        trainer.worker_pid("waits-doomed", attempt=attempt)
        trainer.kill()
    ended = start_trainer(max_attempts=2).ended(job.job_id)
    assert (ended.state, ended.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "TRAINER_DIED")
    assert ended.failure.message == "The trainer stopped 2 times while this job ran; submit it again."


def test_jobs_of_a_base_model_that_is_gone_fail(start_trainer: StartTrainer) -> None:
    first = start_trainer()
    job = first.submit(upload(first), "waits-orphaned")
    first.worker_pid("waits-orphaned")
    first.kill()
    second = start_trainer(base_models='[{"name": "another", "source": "/absent"}]')
    ended = second.ended(job.job_id)
    assert (ended.state, ended.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "INVALID_INPUT")
    assert "base_model: must be one of another" in ended.failure.message


def test_a_trainer_told_to_stop_puts_its_jobs_back(start_trainer: StartTrainer) -> None:
    first = start_trainer(drain_grace_seconds=5, worker_stop_grace_seconds=4.8)
    training_set_id = upload(first)
    running = first.submit(training_set_id, "waits-stopped")
    queued = first.submit(training_set_id, "ok-queued")
    pid = first.worker_pid("waits-stopped")
    watcher = first.watch(running.job_id)
    next(watcher)
    first.process.send_signal(signal.SIGTERM)
    sent_away = refusal(lambda: list(watcher))
    assert sent_away.code is grpc.StatusCode.UNAVAILABLE
    assert sent_away.sentence == "This trainer is shutting down; watch the job again to follow it on another one."
    assert first.wait() == 0
    assert not is_running(pid)
    second = start_trainer()
    second.worker_pid("waits-stopped", attempt=2)
    second.go("waits-stopped")
    for job in (running, queued):
        assert second.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_a_trainer_told_to_stop_lets_a_job_end_that_soon_will(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(drain_grace_seconds=20, worker_stop_grace_seconds=5)
    job = trainer.submit(upload(trainer), "waits-ending")
    eventually(lambda: trainer.job(job.job_id).progress.HasField("time_left"))
    trainer.process.send_signal(signal.SIGTERM)
    eventually(lambda: any("draining" in line for line in trainer.log))
    trainer.go("waits-ending")
    assert trainer.wait() == 0
    assert start_trainer().job(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_two_trainers_share_the_work(start_trainer: StartTrainer) -> None:
    first, second = start_trainer(), start_trainer()
    training_set_id = upload(first)
    jobs = [first.submit(training_set_id, f"waits-shared-{number}") for number in range(2)]
    pids = {first.worker_pid(f"waits-shared-{number}") for number in range(2)}
    assert len(pids) == 2, "each trainer has one worker"
    for number in range(2):
        first.go(f"waits-shared-{number}")
    for job in jobs:
        assert first.ended(job.job_id) == second.ended(job.job_id)
        assert first.job(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    for number in range(2):
        assert len((first.meeting_folder / f"waits-shared-{number}.started").read_text().splitlines()) == 1


def test_cancelling_at_another_trainer(start_trainer: StartTrainer) -> None:
    first = start_trainer()
    job = first.submit(upload(first), "waits-elsewhere")
    first.worker_pid("waits-elsewhere")
    second = start_trainer()
    second.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id))
    assert second.ended(job.job_id).state == trainer_pb2.JOB_STATE_CANCELLED


def limit_file_size(pid: int, size_bytes: int) -> None:
    """From now on, files of a process may not grow beyond a size: writes fail as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def test_an_upload_onto_a_full_disk(start_trainer: StartTrainer) -> None:
    trainer = start_trainer()
    large = encoded(photo(size=(256, 256)).effect_spread(60))
    parts = [header(), *file(large)]
    limit_file_size(trainer.process.pid, len(large) // 2)
    refused = refusal(lambda: trainer.stub.UploadTrainingSet(iter(parts), timeout=30))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    assert refused.sentence == "The folder for uploads: the disk is full."
    # The file fits where it is spooled, and the database has room; what the store would write of it does not fit.
    picture = photo(size=(1024, 1024)).effect_spread(60)
    small = encoded(picture, "JPEG", quality=30)
    limit_bytes = 1_500_000
    assert len(small) < limit_bytes < len(encoded(picture))
    limit_file_size(trainer.process.pid, limit_bytes)
    refused = refusal(lambda: trainer.stub.UploadTrainingSet(stream(header(), file(small)), timeout=30))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    limit_file_size(trainer.process.pid, resource.RLIM_INFINITY)
    assert list(FolderStore(trainer.store_folder).list("training_sets/")) == []
    assert trainer.stub.UploadTrainingSet(iter(parts), timeout=30).training_set.photos


def test_publishing_onto_a_full_disk(start_trainer: StartTrainer) -> None:
    trainer = start_trainer()
    training_set_id = upload(trainer)
    job = trainer.submit(training_set_id, "waits-full")
    limit_file_size(trainer.worker_pid("waits-full"), 1_000)
    trainer.go("waits-full")
    # This worker waits for nothing; its job goes back into the queue, and is published by one that finds room.
    ended = trainer.ended(job.job_id)
    assert ended.state == trainer_pb2.JOB_STATE_SUCCEEDED
    (concept,) = trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest()).concepts
    assert concept.reference.name == "waits-full"
    prefix = f"concepts/default/waits-full/{concept.reference.version}/"
    assert all(info.key.startswith(prefix) for info in FolderStore(trainer.store_folder).list("concepts/default/"))
    assert trainer.ended(trainer.submit(training_set_id, "ok-after").job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("begun", [True, False])
def test_a_trainer_whose_database_is_full_ends_when_it_is_told_to(start_trainer: StartTrainer, begun: bool) -> None:
    trainer = start_trainer(drain_grace_seconds=2, worker_stop_grace_seconds=1, lease_seconds=10)
    training_set_id = upload(trainer)
    job = trainer.submit(training_set_id, "waits-unwritten")
    pid = trainer.worker_pid("waits-unwritten")
    limit_file_size(trainer.process.pid, 0)
    if begun:
        trainer.go("waits-unwritten")  # its end cannot be recorded
        eventually(lambda: any("not yet recorded" in line for line in trainer.log))
    assert trainer.terminate() == 0
    assert not is_running(pid)
    again = start_trainer()
    again.go("waits-unwritten")
    assert again.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_readiness_follows_the_store(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(readiness_interval_seconds=0.1)
    health = health_pb2_grpc.HealthStub(trainer.channel)

    def is_serving() -> bool:
        request = health_pb2.HealthCheckRequest(service="detex.v1.TrainerService")
        return health.Check(request).status == health_pb2.HealthCheckResponse.SERVING

    eventually(is_serving)
    away = trainer.store_folder.with_name("away")
    trainer.store_folder.rename(away)
    trainer.store_folder.write_text("no folder")
    eventually(lambda: not is_serving())
    trainer.store_folder.unlink()
    away.rename(trainer.store_folder)
    eventually(is_serving)


def test_damaged_photos_fail_the_job_with_a_reason(start_trainer: StartTrainer) -> None:
    trainer = start_trainer()
    training_set_id = upload(trainer)
    store = FolderStore(trainer.store_folder)
    key = f"training_sets/default/{training_set_id}/photo_1.png"
    damaged = bytearray(store.get(key))
    damaged[-20] ^= 1
    store.put(key, bytes(damaged))
    ended = trainer.ended(trainer.submit(training_set_id, "ok-damaged").job_id)
    assert (ended.state, ended.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "DATA_LOSS")
    assert key in ended.failure.message


def test_secrets_reach_the_worker_through_its_environment_alone(
    start_trainer: StartTrainer, seaweedfs: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETEX_S3_ACCESS_KEY", seaweedfs.access_key)
    monkeypatch.setenv("DETEX_S3_SECRET_KEY", seaweedfs.secret_key)
    trainer = start_trainer(object_store_url=seaweedfs.url("trainer-secrets"))
    job = trainer.submit(upload(trainer), "waits-s3")
    pid = trainer.worker_pid("waits-s3")
    assert seaweedfs.secret_key not in Path(f"/proc/{pid}/cmdline").read_text()
    trainer.go("waits-s3")
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    assert trainer.terminate() == 0
    state = b"".join(path.read_bytes() for path in (trainer.folder / "work").rglob("*") if path.is_file())
    assert job.job_id.encode() in state
    assert seaweedfs.secret_key.encode() not in state
    assert seaweedfs.secret_key not in "".join(trainer.log)
