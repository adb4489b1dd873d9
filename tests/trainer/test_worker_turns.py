"""Whose job lasts does not keep tenants without a worker waiting for its end."""

from collections.abc import Callable

import pytest

from detex_protos.v1 import trainer_pb2
from tests.trainer.running_trainer import DEADLINE_SECONDS, START_SECONDS, RunningTrainer
from tests.trainer.uploads import three_photos

pytestmark = pytest.mark.slow

OTHER = [("detex-tenant", "other")]

StartTrainer = Callable[..., RunningTrainer]


def test_a_long_job_makes_room_and_goes_on_afterwards(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(worker_turn_seconds=0.2)
    own = trainer.stub.UploadTrainingSet(three_photos(), timeout=DEADLINE_SECONDS).training_set
    long = trainer.submit(own.training_set_id, "waits-long")
    first_pid = trainer.worker_pid("waits-long")
    trainer.submit(own.training_set_id, "waits-of-the-same-tenant")

    photos = trainer.stub.UploadTrainingSet(three_photos(), timeout=DEADLINE_SECONDS, metadata=OTHER).training_set
    request = trainer_pb2.SubmitJobRequest(training_set_id=photos.training_set_id, concept_name="ok-short")
    short = trainer.stub.SubmitJob(request, timeout=DEADLINE_SECONDS, metadata=OTHER).job
    watch = trainer_pb2.WatchJobRequest(job_id=short.job_id)
    *_, last = trainer.stub.WatchJob(watch, timeout=START_SECONDS, metadata=OTHER)
    assert last.job.state == trainer_pb2.JOB_STATE_SUCCEEDED

    assert trainer.worker_pid("waits-long", attempt=2) != first_pid
    trainer.go("waits-long")
    ended = trainer.ended(long.job_id)
    assert ended.state == trainer_pb2.JOB_STATE_SUCCEEDED
    assert ended.attempts == 1, "making room is no attempt"
    assert not ended.HasField("interruption")
