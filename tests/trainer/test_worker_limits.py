"""What a worker may take at most of memory and time, and whose failure it is when it takes more."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_protos.v1 import trainer_pb2
from detex_trainer.domain.failures import is_out_of_memory
from detex_trainer.executors.worker_memory import UNLIMITED, WorkerMemory
from tests.trainer.running_trainer import RunningTrainer, is_running
from tests.trainer.uploads import three_photos

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
SUCCEEDED, FAILED = trainer_pb2.JOB_STATE_SUCCEEDED, trainer_pb2.JOB_STATE_FAILED
MIB = 1024**2


def upload(trainer: RunningTrainer) -> str:
    return trainer.stub.UploadTrainingSet(three_photos(), timeout=30).training_set.training_set_id


def worker_starts(trainer: RunningTrainer, concept_name: str) -> int:
    return len((trainer.meeting_folder / f"{concept_name}.started").read_text().splitlines())


@pytest.mark.parametrize("way", ["balloons", "swells"])
def test_a_job_that_takes_too_much_memory_fails_at_once_and_alone(start_trainer: StartTrainer, way: str) -> None:
    trainer = start_trainer(worker_memory_bytes=512 * MIB, worker_count=2)
    training_set_id = upload(trainer)
    beside = trainer.submit(training_set_id, "waits-beside")
    trainer.worker_pid("waits-beside")
    ended = trainer.ended(trainer.submit(training_set_id, f"{way}-greedy").job_id)
    assert (ended.state, ended.failure.reason, ended.attempts) == (FAILED, "OUT_OF_MEMORY", 1)
    assert "smaller batch_size or resolution" in ended.failure.message
    trainer.go("waits-beside")
    assert trainer.ended(beside.job_id).state == SUCCEEDED


@pytest.mark.parametrize("way", ["balloons", "swells"])
def test_who_was_trained_together_with_it_is_tried_again(start_trainer: StartTrainer, way: str) -> None:
    trainer = start_trainer(worker_memory_bytes=512 * MIB, worker_count=1, max_pack_size=4)
    training_set_id = upload(trainer)
    # They wait while another trains, and then make a pack.
    first = trainer.submit(training_set_id, "waits-first")
    trainer.worker_pid("waits-first")
    jobs = {name: trainer.submit(training_set_id, name).job_id for name in ("ok-one", f"{way}-greedy", "ok-two")}
    trainer.go("waits-first")
    ended = {name: trainer.ended(job_id) for name, job_id in jobs.items()}
    assert trainer.ended(first.job_id).state == SUCCEEDED
    assert [ended[name].state for name in ("ok-one", "ok-two")] == [SUCCEEDED, SUCCEEDED]
    greedy = ended[f"{way}-greedy"]
    assert (greedy.state, greedy.failure.reason) == (FAILED, "OUT_OF_MEMORY")


def test_a_worker_of_which_nothing_is_heard_is_ended_and_its_job_tried_again(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(worker_silence_seconds=5, max_attempts=2)
    job = trainer.submit(upload(trainer), "silent-once")
    hung = trainer.worker_pid("silent-once")
    trainer.worker_pid("silent-once", attempt=2)
    assert not is_running(hung)
    trainer.go("silent-once")
    assert trainer.ended(job.job_id).state == SUCCEEDED


def test_a_worker_that_is_silent_each_time_fails_its_job(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(worker_silence_seconds=5, max_attempts=2)
    ended = trainer.ended(trainer.submit(upload(trainer), "silent-always").job_id)
    assert (ended.state, ended.failure.reason, ended.attempts) == (FAILED, "WORKER_SILENT", 2)
    assert "no sign of life for 5 seconds" in ended.failure.message


def test_a_job_may_not_run_for_longer_than_is_allowed_also_in_several_attempts(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(max_job_seconds=4, worker_turn_seconds=1, worker_count=1)
    job = trainer.submit(upload(trainer), "waits-long")
    trainer.worker_pid("waits-long")
    # Another tenant has it make room; the time that it has had counts on.
    as_other = {"metadata": (("detex-tenant", "other"),), "timeout": 30}
    theirs = trainer.stub.UploadTrainingSet(three_photos(), **as_other).training_set.training_set_id
    request = trainer_pb2.SubmitJobRequest(training_set_id=theirs, concept_name="ok-theirs")
    trainer.stub.SubmitJob(request, **as_other)
    trainer.worker_pid("ok-theirs")
    ended = trainer.ended(job.job_id)
    assert (ended.state, ended.failure.reason) == (FAILED, "TIME_LIMIT")
    assert worker_starts(trainer, "waits-long") >= 2
    assert trainer.ended(trainer.submit(upload(trainer), "ok-after").job_id).state == SUCCEEDED


@given(most=st.integers(1, 2**50), used=st.integers(0, 2**40))
def test_nothing_is_exceeded_without_a_limit(most: int, used: int) -> None:
    pid = int(Path("/proc/self").readlink().name)
    assert not UNLIMITED.is_exceeded_by(pid)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    if most > 2 * resident + 2**30:
        assert not WorkerMemory(most).is_exceeded_by(pid)
    if most < 2**20:
        assert WorkerMemory(most).is_exceeded_by(pid)
    assert not WorkerMemory(1).is_exceeded_by(2**22 + used % 1000)  # nobody has that id


@pytest.mark.parametrize(
    "text", ["std::bad_alloc", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"]
)
def test_memory_that_is_refused_is_told_from_other_errors(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("the loss is no number"))
    assert is_out_of_memory(MemoryError())
