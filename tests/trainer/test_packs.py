"""Jobs that wait together are trained together by one worker, and each has a life of its own."""

import hashlib
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

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
SUCCEEDED = trainer_pb2.JOB_STATE_SUCCEEDED


class Queue:
    """A trainer with one worker, which is kept busy while jobs are queued up."""

    def __init__(self, trainer: RunningTrainer, blocking: str = "waits-blocking") -> None:
        self.trainer = trainer
        self.training_set_id = trainer.stub.UploadTrainingSet(three_photos(), timeout=60).training_set.training_set_id
        self._blocking = trainer.submit(self.training_set_id, blocking)
        trainer.worker_pid(blocking)

    def submit(self, name: str, **fields: object) -> trainer_pb2.Job:
        return self.trainer.submit(self.training_set_id, name, **fields)

    def open(self) -> None:
        """Let the worker take what has been queued up."""
        self.trainer.go(self._blocking.concept_name)
        assert self.trainer.ended(self._blocking.job_id).state == SUCCEEDED

    def open_for(self, names: Sequence[str], **fields: object) -> dict[str, trainer_pb2.Job]:
        """Queue jobs up, let the worker take them, wait until they are at work."""
        jobs = {name: self.submit(name, **fields) for name in names}
        self.open()
        for name in names:
            self.trainer.worker_pid(name)
        return jobs


@pytest.fixture(scope="module")
def shared_trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrainer]:
    """For all tests that need no settings of their own."""
    running = RunningTrainer(tmp_path_factory.mktemp("trainer"), max_pack_size=4)
    yield running
    assert running.terminate() == 0


@pytest.fixture
def queue(shared_trainer: RunningTrainer, request: pytest.FixtureRequest) -> Queue:
    eventually(lambda: not still_at_work(shared_trainer), deadline_seconds=120)
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    return Queue(shared_trainer, f"waits-blocking-{digest}")


def still_at_work(trainer: RunningTrainer) -> list[trainer_pb2.Job]:
    """Jobs that a test before has left."""
    states = [trainer_pb2.JOB_STATE_QUEUED, trainer_pb2.JOB_STATE_RUNNING]
    return list(trainer.stub.ListJobs(trainer_pb2.ListJobsRequest(page_size=100, states=states)).jobs)


@pytest.fixture
def start_queue(start_trainer: StartTrainer) -> Callable[..., Queue]:
    return lambda **settings: Queue(start_trainer(**{"max_pack_size": 4, **settings}))


def pids(trainer: RunningTrainer, names: Sequence[str], attempt: int = 1) -> set[int]:
    return {trainer.worker_pid(name, attempt=attempt) for name in names}


def versions(trainer: RunningTrainer, names: Sequence[str]) -> list[str]:
    """Those of the names under which something was published, once for each version."""
    concepts = trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest(page_size=1_000)).concepts
    return sorted(each.reference.name for each in concepts if each.reference.name in names)


def test_what_waits_is_trained_together_as_far_as_it_fits(queue: Queue) -> None:
    trainer, names = queue.trainer, [f"waits-fits-{number}" for number in range(3)]
    other = queue.submit("ok-other-size-fits", hyperparameters=trainer_pb2.Hyperparameters(resolution=64))
    same = {name: queue.submit(name) for name in names}
    queue.open()
    assert trainer.ended(other.job_id).state == SUCCEEDED
    assert len(pids(trainer, names)) == 1
    assert trainer.worker_pid("ok-other-size-fits") not in pids(trainer, names)
    for name in names:
        trainer.go(name)
        ended = trainer.ended(same[name].job_id)
        assert (ended.state, ended.attempts, ended.progress.step) == (SUCCEEDED, 1, 3)
    assert versions(trainer, [*names, "ok-other-size-fits"]) == sorted(["ok-other-size-fits", *names])


def test_each_job_of_a_pack_is_published_when_it_is_done(queue: Queue) -> None:
    names = ["ok-quick-each", "waits-slow-each", "diverges-soon-each"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    assert trainer.ended(jobs["ok-quick-each"].job_id).state == SUCCEEDED
    failed = trainer.ended(jobs["diverges-soon-each"].job_id)
    assert (failed.state, failed.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "DIVERGED")
    slow = trainer.job(jobs["waits-slow-each"].job_id)
    assert slow.state == trainer_pb2.JOB_STATE_RUNNING, "it goes on without the others"
    assert is_running(trainer.worker_pid("waits-slow-each"))
    trainer.go("waits-slow-each")
    assert trainer.ended(slow.job_id).state == SUCCEEDED
    assert len(pids(trainer, names)) == 1


def test_cancelling_one_of_a_pack_leaves_the_others(queue: Queue) -> None:
    names = ["waits-one-one-less", "waits-two-one-less"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=jobs["waits-one-one-less"].job_id))
    assert trainer.ended(jobs["waits-one-one-less"].job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    assert is_running(trainer.worker_pid("waits-two-one-less"))
    trainer.go("waits-two-one-less")
    ended = trainer.ended(jobs["waits-two-one-less"].job_id)
    assert (ended.state, ended.attempts) == (SUCCEEDED, 1)
    eventually(lambda: not is_running(trainer.worker_pid("waits-one-one-less")))
    assert versions(trainer, names) == ["waits-two-one-less"]


def test_cancelling_all_of_a_pack_stops_its_worker(queue: Queue) -> None:
    jobs = queue.open_for(["waits-one-none", "waits-two-none"])
    for job in jobs.values():
        queue.trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id))
    for job in jobs.values():
        assert queue.trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    eventually(lambda: not is_running(queue.trainer.worker_pid("waits-one-none")))


def test_a_deadline_ends_one_job_of_a_pack(queue: Queue) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=12)
    late = queue.submit("waits-late-deadline", deadline_time=deadline)
    other = queue.submit("waits-other-deadline")
    queue.open()
    trainer = queue.trainer
    ended = trainer.ended(late.job_id)
    assert (ended.state, ended.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, "DEADLINE_PASSED")
    trainer.go("waits-other-deadline")
    assert trainer.ended(other.job_id).state == SUCCEEDED
    if (trainer.meeting_folder / "waits-late-deadline.started").exists():  # else the deadline has passed in the queue
        assert len(pids(trainer, ["waits-late-deadline", "waits-other-deadline"])) == 1


def test_a_killed_worker_goes_on_with_all_its_jobs(queue: Queue) -> None:
    names = ["waits-one-killed", "waits-two-killed", "waits-three-killed"]
    jobs = queue.open_for(names)
    trainer = queue.trainer
    os.kill(trainer.worker_pid("waits-one-killed"), signal.SIGKILL)
    assert len(pids(trainer, names, attempt=2)) == 1, "together again"
    for name in names:
        trainer.go(name)
        ended = trainer.ended(jobs[name].job_id)
        assert (ended.state, ended.attempts, ended.interruption.reason) == (SUCCEEDED, 2, "WORKER_DIED")
    assert versions(trainer, names) == sorted(names)


def test_no_job_fails_for_what_another_does_to_its_worker(queue: Queue) -> None:
    jobs = {name: queue.submit(name) for name in ("waits-good-innocent", "dies-always-innocent")}
    queue.open()
    trainer = queue.trainer
    trainer.go("waits-good-innocent")
    assert trainer.ended(jobs["waits-good-innocent"].job_id).state == SUCCEEDED
    dead = trainer.ended(jobs["dies-always-innocent"].job_id)
    assert (dead.state, dead.failure.reason, dead.attempts) == (trainer_pb2.JOB_STATE_FAILED, "WORKER_DIED", 3)


@pytest.mark.parametrize("end", ["dies", "exits", "hungry", "defect", "diverges", "misread"])
def test_where_jobs_are_tried_once_no_job_fails_for_another(start_queue: Callable[..., Queue], end: str) -> None:
    queue = start_queue(max_attempts=1)
    jobs = {name: queue.submit(name) for name in ("ok-before", f"{end}-beside", "waits-after")}
    queue.trainer.go("waits-after")
    queue.open()
    ended = {name: queue.trainer.ended(job.job_id) for name, job in jobs.items()}
    assert ended.pop(f"{end}-beside").state == trainer_pb2.JOB_STATE_FAILED
    assert {job.state for job in ended.values()} == {SUCCEEDED}


def test_a_failure_of_the_whole_pack_is_tried_again_at_last_alone(queue: Queue) -> None:
    jobs = [queue.submit(name) for name in ("spoils-all-spoiled", "ok-beside-spoiled")]
    queue.open()
    for job in jobs:
        ended = queue.trainer.ended(job.job_id)
        assert (ended.state, ended.attempts, ended.interruption.reason) == (SUCCEEDED, 3, "INTERNAL")
        assert "must not see" not in ended.interruption.message


def test_a_job_without_room_waits_for_the_next_worker(queue: Queue) -> None:
    first, large = queue.submit("ok-first-room"), queue.submit("large-one-room")
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
        assert versions(second, names) == sorted(names)
    finally:
        for name in environment:
            del os.environ[name]
