"""Trainers on one PostgreSQL, many small jobs, and somebody who kills whatever runs."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import grpc
from sqlalchemy import create_engine, text

from detex_core.artifact import ConceptArchive
from detex_core.object_store import ObjectStore
from detex_protos.v1 import trainer_pb2
from tests.servers.seaweedfs import SeaweedServer
from tests.trainer.running_trainer import DEADLINE_SECONDS, ENDED, RunningTrainer, eventually, is_running
from tests.trainer.uploads import three_photos

RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
KILLS = ("worker", "worker", "trainer", "database")


class Chaos:
    """Three trainers and their adversary.

    Args:
        folder: Where trainers keep their files.
        database_url: Their database.
        store: Their object store.
        seed: Decides who is killed when.
        frozen_store: Server of the object store, where it is to stand still at times.
        settings: Settings of the trainers beside.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        store: ObjectStore,
        *,
        seed: int,
        frozen_store: SeaweedServer | None = None,
        settings: dict[str, object],
    ) -> None:
        self.folder = folder
        self.store = store
        self.kills: dict[str, int] = {}
        self._random = random.Random(seed)
        self._database_url = database_url
        self._frozen_store = frozen_store
        self._settings = settings
        self._next_number = 0
        self.trainers = [self._start() for _ in range(3)]
        self.training_set_id = self._call(
            lambda trainer: trainer.stub.UploadTrainingSet(three_photos(), timeout=DEADLINE_SECONDS)
        ).training_set.training_set_id
        self.job_ids: dict[str, str] = {}

    def submit(self, concept_name: str) -> None:
        """Submit a job, as often as it takes, under one idempotency key."""
        request = trainer_pb2.SubmitJobRequest(
            training_set_id=self.training_set_id, concept_name=concept_name, idempotency_key=f"key-{concept_name}"
        )
        answer = self._call(lambda trainer: trainer.stub.SubmitJob(request, timeout=5))
        self.job_ids[concept_name] = answer.job.job_id

    def kill(self) -> None:
        """Kill one of the things that run."""
        kinds = (*KILLS, "store") if self._frozen_store is not None else KILLS
        kind = self._random.choice(kinds)
        match kind:
            case "worker":
                running = [pid for pid in self.worker_pids() if is_running(pid)]
                if not running:
                    return
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(running), signal.SIGKILL)
            case "trainer":
                place = self._random.randrange(len(self.trainers))
                self.trainers[place].kill()
                self.trainers[place] = self._start()
            case "database":
                engine = create_engine(self._database_url)
                with engine.begin() as connection:
                    others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {others}"))
                engine.dispose()
            case "store":
                assert self._frozen_store is not None
                with self._frozen_store.frozen():
                    time.sleep(self._random.uniform(0.5, 3))
        self.kills[kind] = self.kills.get(kind, 0) + 1

    def worker_pids(self) -> list[int]:
        """Process ids of all workers that ever began to train."""
        return [
            int(line)
            for path in (self.folder / "meeting").glob("*.started")
            for line in path.read_text().splitlines()
            if line
        ]

    def jobs(self) -> list[trainer_pb2.Job]:
        """All jobs as they stand."""
        request = trainer_pb2.ListJobsRequest(page_size=1_000)
        return list(self._call(lambda trainer: trainer.stub.ListJobs(request, timeout=DEADLINE_SECONDS)).jobs)

    def wait_until_all_have_ended(self, deadline_seconds: float) -> list[trainer_pb2.Job]:
        """The jobs when nothing more will happen to them."""
        eventually(lambda: all(job.state in ENDED for job in self.jobs()), deadline_seconds=deadline_seconds)
        return self.jobs()

    def check(self, jobs: list[trainer_pb2.Job]) -> None:
        """No job lost or done twice, no half artifact visible, no process left, each failure told for people."""
        assert sorted(job.job_id for job in jobs) == sorted(self.job_ids.values())
        archive = ConceptArchive(self.store)
        published = archive.list("default", page_size=1_000).concepts
        for stored in published:
            for name in stored.manifest.files:
                archive.read(stored, name)
        succeeded = {(job.concept.name, job.concept.version) for job in jobs if job.concept.name}
        assert {(each.reference.name, each.reference.version) for each in published} == succeeded
        assert len({name for name, _ in succeeded}) == len(succeeded), "one version each"
        for job in jobs:
            assert (job.state == trainer_pb2.JOB_STATE_SUCCEEDED) == job.HasField("concept")
            if job.state == trainer_pb2.JOB_STATE_FAILED:
                assert job.failure.reason in {"WORKER_DIED", "TRAINER_DIED"}
                assert job.failure.message.startswith("The ")
                assert "submit" in job.failure.message
        eventually(lambda: not [pid for pid in self.worker_pids() if is_running(pid)])

    def stop(self) -> None:
        for trainer in self.trainers:
            if trainer.process.poll() is None:
                trainer.kill()

    def _start(self) -> RunningTrainer:
        self._next_number += 1
        settings = {"work_folder": self.folder / f"work-{self._next_number}", **self._settings}
        return RunningTrainer(self.folder, database_url=self._database_url, **settings)

    def _call(self, call):  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS
        while True:
            try:
                return call(self._random.choice(self.trainers))
            except grpc.RpcError as error:
                if error.code() not in RETRIED or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
