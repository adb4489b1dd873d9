"""Trainers on one PostgreSQL, many small jobs, and somebody who kills whatever runs."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
from sqlalchemy import create_engine, text

from detex_core.artifact import ConceptArchive, StoredManifest
from detex_core.errors import DetexError
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
                running = self.running_workers()
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

    def findings(self, jobs: list[trainer_pb2.Job]) -> "Findings":
        """What went wrong with jobs of which all have ended; waits a while for processes to end."""
        archive = ConceptArchive(self.store)
        published = archive.list("default", page_size=1_000).concepts
        succeeded = {(job.concept.name, job.concept.version) for job in jobs if job.HasField("concept")}
        names = [each.reference.name for each in published]
        visible = {(each.reference.name, each.reference.version) for each in published}
        with suppress(AssertionError):
            eventually(lambda: not self.running_workers())
        ended_with_concept = [job for job in jobs if job.state == trainer_pb2.JOB_STATE_SUCCEEDED]
        return Findings(
            lost=len(set(self.job_ids.values()) - {job.job_id for job in jobs})
            + sum(not job.HasField("concept") for job in ended_with_concept)
            + len(succeeded - visible),
            published_twice=len(names) - len(set(names)) + len(visible - succeeded),
            half_artifacts=sum(not _is_whole(archive, stored) for stored in published),
            orphans=len(self.running_workers()),
            failures_without_cause=sum(
                not _is_told(job.failure) for job in jobs if job.state == trainer_pb2.JOB_STATE_FAILED
            ),
        )

    def running_workers(self) -> list[int]:
        """Process ids of workers that run."""
        return [pid for pid in set(self.worker_pids()) if is_running(pid)]

    def packed_jobs(self) -> int:
        """Jobs that have shared a worker with another in some attempt."""
        by_worker: dict[str, set[str]] = {}
        for path in (self.folder / "meeting").glob("*.started"):
            for line in path.read_text().splitlines():
                by_worker.setdefault(line, set()).add(path.stem)
        return len({name for names in by_worker.values() if len(names) > 1 for name in names})

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


@dataclass(frozen=True)
class Findings:
    """What went wrong; nothing of it may.

    Attributes:
        lost: Jobs that nobody knows any more, or that have succeeded without a concept that readers see.
        published_twice: Concepts beside the one of their job.
        half_artifacts: Concepts that readers see and cannot read in full.
        orphans: Workers that still run when all jobs have ended.
        failures_without_cause: Jobs that failed without a sentence that says why and what to do.
    """

    lost: int
    published_twice: int
    half_artifacts: int
    orphans: int
    failures_without_cause: int


def _is_whole(archive: ConceptArchive, stored: StoredManifest) -> bool:
    try:
        for name in stored.manifest.files:
            archive.read(stored, name)
    except DetexError:
        return False
    return True


def _is_told(failure: trainer_pb2.JobFailure) -> bool:
    is_known = failure.reason in {"WORKER_DIED", "TRAINER_DIED", "UNAVAILABLE"}
    return is_known and failure.message.startswith("The ") and ("submit" in failure.message or "try" in failure.message)
