"""Jobs that wait together are trained together by one worker, and each has a life of its own."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from detex_protos.v1 import trainer_pb2
from tests.servers.kubernetes_api import KubernetesServer
from tests.trainer.running_trainer import RunningTrainer, eventually, is_running
from tests.trainer.uploads import three_photos

StartTrainer = Callable[..., RunningTrainer]
SUCCEEDED = trainer_pb2.JOB_STATE_SUCCEEDED


class Queue:
    """A trainer with one worker, which is kept busy while jobs are queued up."""

    def __init__(self, trainer: RunningTrainer) -> None:
        self.trainer = trainer
        self.training_set_id = trainer.stub.UploadTrainingSet(three_photos(), timeout=60).training_set.training_set_id
        self._blocking = trainer.submit(self.training_set_id, "waits-blocking")
        trainer.worker_pid("waits-blocking")

    def submit(self, name: str, **fields: object) -> trainer_pb2.Job:
        return self.trainer.submit(self.training_set_id, name, **fields)

    def open(self) -> None:
        """Let the worker take what has been queued up."""
        self.trainer.go("waits-blocking")
        assert self.trainer.ended(self._blocking.job_id).state == SUCCEEDED

    def open_for(self, names: Sequence[str], **fields: object) -> dict[str, trainer_pb2.Job]:
        """Queue jobs up, let the worker take them, wait until they are at work."""
        jobs = {name: self.submit(name, **fields) for name in names}
        self.open()
        for name in names:
            self.trainer.worker_pid(name)
        return jobs


@pytest.fixture
def start_queue(start_trainer: StartTrainer) -> Callable[..., Queue]:
    return lambda **settings: Queue(start_trainer(**{"max_pack_size": 4, **settings}))


def pids(trainer: RunningTrainer, names: Sequence[str], attempt: int = 1) -> set[int]:
    return {trainer.worker_pid(name, attempt=attempt) for name in names}


def versions(trainer: RunningTrainer) -> list[str]:
    concepts = trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest(page_size=100)).concepts
    return sorted(each.reference.name for each in concepts if each.reference.name != "waits-blocking")


def test_what_waits_is_trained_together_as_far_as_it_fits(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    trainer, names = queue.trainer, [f"waits-{number}" for number in range(3)]
    other = queue.submit("ok-other-size", hyperparameters=trainer_pb2.Hyperparameters(resolution=64))
    same = {name: queue.submit(name) for name in names}
    queue.open()
    assert trainer.ended(other.job_id).state == SUCCEEDED
    assert len(pids(trainer, names)) == 1
    assert trainer.worker_pid("ok-other-size") not in pids(trainer, names)
    for name in names:
        trainer.go(name)
        ended = trainer.ended(same[name].job_id)
        assert (ended.state, ended.attempts, ended.progress.step) == (SUCCEEDED, 1, 3)
    assert versions(trainer) == ["ok-other-size", *names]


def test_each_job_of_a_pack_is_published_when_it_is_done(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    names = ["ok-quick", "waits-slow", "diverges-soon"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    assert trainer.ended(jobs["ok-quick"].job_id).state == SUCCEEDED
    failed = trainer.ended(jobs["diverges-soon"].job_id)
    assert (failed.state, failed.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "DIVERGED")
    slow = trainer.job(jobs["waits-slow"].job_id)
    assert slow.state == trainer_pb2.JOB_STATE_RUNNING, "it goes on without the others"
    assert is_running(trainer.worker_pid("waits-slow"))
    trainer.go("waits-slow")
    assert trainer.ended(slow.job_id).state == SUCCEEDED
    assert len(pids(trainer, names)) == 1


def test_cancelling_one_of_a_pack_leaves_the_others(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    names = ["waits-one", "waits-two"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=jobs["waits-one"].job_id))
    assert trainer.ended(jobs["waits-one"].job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    assert is_running(trainer.worker_pid("waits-two"))
    trainer.go("waits-two")
    ended = trainer.ended(jobs["waits-two"].job_id)
    assert (ended.state, ended.attempts) == (SUCCEEDED, 1)
    eventually(lambda: not is_running(trainer.worker_pid("waits-one")))
    assert versions(trainer) == ["waits-two"]


def test_cancelling_all_of_a_pack_stops_its_worker(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    jobs = queue.open_for(["waits-one", "waits-two"])
    for job in jobs.values():
        queue.trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id))
    for job in jobs.values():
        assert queue.trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    eventually(lambda: not is_running(queue.trainer.worker_pid("waits-one")))


def test_a_deadline_ends_one_job_of_a_pack(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    deadline = datetime.now(UTC) + timedelta(seconds=12)
    late = queue.submit("waits-late", deadline_time=deadline)
    other = queue.submit("waits-other")
    queue.open()
    trainer = queue.trainer
    ended = trainer.ended(late.job_id)
    assert (ended.state, ended.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "DEADLINE_PASSED")
    trainer.go("waits-other")
    assert trainer.ended(other.job_id).state == SUCCEEDED
    if (trainer.meeting_folder / "waits-late.started").exists():  # else the deadline has passed in the queue
        assert len(pids(trainer, ["waits-late", "waits-other"])) == 1


def test_a_killed_worker_goes_on_with_all_its_jobs(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    names = ["waits-one", "waits-two", "waits-three"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    os.kill(trainer.worker_pid("waits-one"), signal.SIGKILL)
    assert len(pids(trainer, names, attempt=2)) == 1, "together again"
    for name in names:
        trainer.go(name)
        ended = trainer.ended(jobs[name].job_id)
        assert (ended.state, ended.attempts, ended.interruption.reason) == (SUCCEEDED, 2, "WORKER_DIED")
    assert versions(trainer) == sorted(names)


def test_no_job_fails_for_what_another_does_to_its_worker(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    jobs = {name: queue.submit(name) for name in ("waits-good", "dies-always")}
    queue.open()
    trainer = queue.trainer
    trainer.go("waits-good")
    assert trainer.ended(jobs["waits-good"].job_id).state == SUCCEEDED
    dead = trainer.ended(jobs["dies-always"].job_id)
    assert (dead.state, dead.failure.reason, dead.attempts) == (trainer_pb2.JOB_STATE_FAILED, "WORKER_DIED", 3)


def test_a_failure_of_the_whole_pack_is_tried_again_at_last_alone(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    jobs = [queue.submit(name) for name in ("spoils-all", "ok-beside")]
    queue.open()
    for job in jobs:
        ended = queue.trainer.ended(job.job_id)
        assert (ended.state, ended.attempts, ended.interruption.reason) == (SUCCEEDED, 3, "INTERNAL")
        assert "must not see" not in ended.interruption.message


def test_a_job_without_room_waits_for_the_next_worker(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue()
    first, large = queue.submit("ok-first"), queue.submit("large-one")
    queue.open()
    assert queue.trainer.ended(first.job_id).state == SUCCEEDED
    ended = queue.trainer.ended(large.job_id)
    assert (ended.state, ended.attempts) == (SUCCEEDED, 1), "giving it back costs no attempt"
    assert not ended.HasField("interruption")


def test_a_trainer_told_to_stop_puts_back_all_jobs_of_a_pack(
    start_queue: Callable[..., Queue], start_trainer: StartTrainer
) -> None:
    queue = start_queue(drain_grace_seconds=3, worker_stop_grace_seconds=2)
    names = ["waits-one", "waits-two"]
    jobs = queue.open_for(names)
    assert queue.trainer.terminate() == 0
    second = start_trainer(max_pack_size=4)
    assert len(pids(second, names, attempt=2)) == 1
    for name in names:
        second.go(name)
        ended = second.ended(jobs[name].job_id)
        assert (ended.state, ended.attempts) == (SUCCEEDED, 1), "what was stopped on purpose costs no attempt"


def test_packing_can_be_switched_off(start_queue: Callable[..., Queue]) -> None:
    queue = start_queue(max_pack_size=1)
    names = ["ok-one", "ok-two"]
    jobs = {name: queue.submit(name) for name in names}
    queue.open()
    for job in jobs.values():
        assert queue.trainer.ended(job.job_id).state == SUCCEEDED
    assert len(pids(queue.trainer, names)) == 2


@pytest.fixture
def cluster() -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    yield server
    server.close()


def test_a_cluster_has_one_job_for_each_pack_and_it_outlives_the_trainer(
    start_trainer: StartTrainer, cluster: KubernetesServer, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig)
    kubernetes = f'{{"image": "test", "namespace": "training", "kubeconfig": "{kubeconfig}"}}'
    settings = {"executor": "kubernetes", "kubernetes": kubernetes, "max_pack_size": 4}
    environment = {"DETEX_TEST_FOLDER": str(tmp_path / "meeting")}
    os.environ.update(environment)  # pods are children of this process
    try:
        queue = Queue(start_trainer(**settings))
        names = ["waits-one", "waits-two"]
        jobs = queue.open_for(names)
        assert len(cluster.manifests) == 2, "the blocking one, and one for both"
        queue.trainer.kill()
        second = start_trainer(**settings)
        for name in names:
            second.go(name)
        for job in jobs.values():
            assert second.ended(job.job_id).state == SUCCEEDED
        assert len(cluster.manifests) == 2, "the next trainer has followed it"
        annotations = cluster.manifests[-1]["metadata"]["annotations"]
        assert annotations["detex.dev/jobs"].split(",") == [job.job_id for job in jobs.values()]
        assert versions(second) == sorted(names)
    finally:
        for name in environment:
            del os.environ[name]
