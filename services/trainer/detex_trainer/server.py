"""The trainer as a process: `detex-trainer`, or `python -m detex_trainer`."""

import argparse
import asyncio
import functools
import logging
import os
import secrets
import socket
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from detex_core.artifact import ConceptArchive
from detex_core.bounded_end import LAST_WORDS_SECONDS, end_within
from detex_core.errors import DetexError, FailedPreconditionError
from detex_core.grpc_server import Server, Service
from detex_core.logging import configure_logging
from detex_core.memory_budget import MemoryBudget, picture_budget
from detex_core.metrics import new_registry
from detex_core.object_store import IdentifiedStore, open_object_store
from detex_core.tenant_threads import TenantThreads
from detex_protos.v1 import trainer_pb2, trainer_pb2_grpc
from detex_trainer.api.job_watch import JobWatch
from detex_trainer.api.servicer import TrainerParts, TrainerServicer
from detex_trainer.api.submission import JobSubmission, job_spec
from detex_trainer.base_models import BaseModelCatalogue
from detex_trainer.dependencies import Dependencies
from detex_trainer.executors import Executor, ProcessExecutor
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.intake.curation import TrainingSetCuration
from detex_trainer.intake.intake import IntakePolicy, TrainingSetIntake
from detex_trainer.intake.spool import UploadSpool
from detex_trainer.intake.upload import UploadLimits
from detex_trainer.jobs import (
    Database,
    DeletionLedger,
    JobClaims,
    JobRepository,
    JobRetention,
    RetentionPolicy,
    StoreNote,
    TrainingSetChanges,
    TrainingSetLedger,
)
from detex_trainer.metrics import JobsCollector, JobTable, TrainerMetrics
from detex_trainer.retention.cleanup import Cleanup, CleanupStores
from detex_trainer.retention.concept_deletion import ConceptDeletion
from detex_trainer.settings import TrainerSettings
from detex_trainer.supervision import JobFeed, Supervisor, SupervisorPolicy

_ACTIONS = (
    "serve (the default), or adopt-store: from now on the jobs belong to the object store that the settings name, "
    "which is made where there is none; for a store that was moved or lost"
)
WORKER_COMMAND = (sys.executable, "-m", "detex_trainer.worker")
_LAST_LOOK_SECONDS = 5.0
_CALL_THREADS = 16
"""They wait for database and store most of the time."""
_SERVICE_NAME = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name

_log = logging.getLogger(__name__)


class Trainer:
    """The trainer's parts, wired; must be constructed and used within one event loop.

    Args:
        settings: Its settings.
        worker_command: Program and arguments of a worker.

    Attributes:
        server: Its gRPC server.

    Raises:
        DetexError: The object store or the database cannot be opened.
    """

    def __init__(self, settings: TrainerSettings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
        self._settings = settings
        self._database = Database(settings.jobs_url())
        self._store = _open_store(settings, StoreNote(self._database))
        self._stopping = asyncio.Event()
        self._base_models = BaseModelCatalogue(settings)
        registry = new_registry("trainer")
        metrics = TrainerMetrics(registry)
        feed = JobFeed()
        jobs = JobRepository(self._database)
        retention = JobRetention(
            self._database, RetentionPolicy(settings.ended_job_seconds, settings.max_ended_jobs_per_tenant)
        )
        registry.register(JobsCollector(lambda: JobTable(jobs.counts(), jobs.oldest_seconds())))
        checks = {"database": self._database.check, "object_store": self._store.check}
        self._dependencies = Dependencies(checks, registry)
        training_sets = TrainingSetArchive(self._store)
        ledger = TrainingSetLedger(self._database)
        deletions = DeletionLedger(self._database)
        concepts = ConceptArchive(self._store)
        spool = UploadSpool(settings.work_folder / "uploads")
        self._cleanup = Cleanup(
            CleanupStores(jobs, retention, ledger, training_sets, self._store, deletions),
            metrics,
            unused_seconds=settings.unused_training_set_seconds,
            remove_abandoned_uploads=spool.remove_abandoned,
        )
        self._supervisor = Supervisor(
            f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}",
            JobClaims(
                self._database,
                lease_seconds=settings.lease_seconds,
                max_running_per_tenant=settings.max_running_jobs_per_tenant,
            ),
            _executor(settings, worker_command),
            self._store,
            functools.partial(job_spec, settings=settings, store_identity=self._store.identity),
            feed,
            metrics,
            SupervisorPolicy(
                worker_count=settings.worker_count,
                max_pack_size=settings.jobs_per_worker(),
                max_attempts=settings.max_attempts,
                max_outages=settings.max_outages,
                lease_seconds=settings.lease_seconds,
                reconcile_interval_seconds=settings.reconcile_interval_seconds,
                stop_grace_seconds=settings.worker_stop_grace_seconds,
                turn_seconds=settings.worker_turn_seconds,
                silence_seconds=settings.worker_silence_seconds,
                job_seconds=settings.max_job_seconds,
            ),
            self._cleanup.wake,
        )
        pictures = picture_budget(settings)
        threads = TenantThreads(_CALL_THREADS, "calls")
        parts = TrainerParts(
            settings=settings,
            intake=_intake(settings, training_sets, ledger, spool, pictures, threads),
            curation=TrainingSetCuration(
                training_sets,
                ledger,
                TrainingSetChanges(self._database),
                max_file_bytes=settings.max_file_bytes,
                pictures=pictures,
            ),
            training_sets=training_sets,
            submission=JobSubmission(settings, training_sets, jobs),
            jobs=jobs,
            watch=JobWatch(
                jobs,
                self._store,
                feed,
                threads,
                interval_seconds=settings.watch_interval_seconds,
                stopping=self._stopping,
            ),
            supervisor=self._supervisor,
            concepts=concepts,
            concept_deletion=ConceptDeletion(concepts, jobs, self._store, deletions),
            base_models=self._base_models,
            metrics=metrics,
            threads=threads,
        )
        register = functools.partial(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, TrainerServicer(parts))
        self.server = Server(settings, [Service(_SERVICE_NAME, register, self._check_readiness)], registry)
        self._supervision: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until asked to stop; then running jobs end or go back to the queue while calls are drained."""
        self._supervision = asyncio.create_task(self._supervisor.run(), name="supervisor")
        self._supervision.add_done_callback(lambda _: self.server.request_drain())
        drain = asyncio.create_task(self._drain(), name="drain")
        cleanup = asyncio.create_task(self._cleanup.run(), name="cleanup")
        look = asyncio.create_task(self._look_at_base_models(), name="base models")
        supervision = self._supervision

        async def last_work() -> None:
            # What workers report last is counted while it can still be scraped.
            await asyncio.wait((drain, supervision))

        try:
            await self.server.run(last_work)
        finally:
            self.server.draining.set()
            look.cancel()
            await drain
            await self._supervision
            self._cleanup.stop()
            await asyncio.wait((cleanup,), timeout=_LAST_LOOK_SECONDS)
            await asyncio.to_thread(self._database.close)

    async def _drain(self) -> None:
        await self.server.draining.wait()
        self._stopping.set()
        if self._supervision is None or not self._supervision.done():
            await self._supervisor.drain(self._settings.drain_grace_seconds)

    async def _look_at_base_models(self) -> None:
        """So that the first caller does not wait for it; what is amiss is logged."""
        try:
            await self._base_models.list()
        except DetexError as error:
            _log.warning("%s", error.message)

    async def _check_readiness(self) -> None:
        if self._supervision is not None and self._supervision.done():
            raise FailedPreconditionError("This trainer accepts no more jobs.")
        await asyncio.to_thread(self._dependencies.check)


def _open_store(settings: TrainerSettings, note: StoreNote) -> IdentifiedStore:
    """The object store that the jobs of this database belong to: the one of the settings, once and for all.

    It is made where nothing is noted yet; later, a place without a store is one whose store is unavailable.
    """
    store = settings.object_store
    if not store.identity:
        store = store.model_copy(update={"identity": note.read()})
    return open_object_store(store, note=note.take)


def _executor(settings: TrainerSettings, worker_command: Sequence[str]) -> Executor:
    grace_seconds = settings.worker_stop_grace_seconds
    if settings.kubernetes is None or settings.executor == "process":
        return ProcessExecutor(
            worker_command,
            threads=settings.threads_per_worker(),
            stop_grace_seconds=grace_seconds,
            memory=settings.memory_per_worker(),
        )
    # Imported here: the client of Kubernetes comes with an extra of its own.
    from detex_trainer.executors.kubernetes import KubernetesExecutor

    # The interpreter of the image, wherever that lies.
    return KubernetesExecutor(settings.kubernetes, ("python", *worker_command[1:]), stop_grace_seconds=grace_seconds)


def _intake(
    settings: TrainerSettings,
    training_sets: TrainingSetArchive,
    ledger: TrainingSetLedger,
    spool: UploadSpool,
    pictures: MemoryBudget,
    threads: TenantThreads,
) -> TrainingSetIntake:
    policy = IntakePolicy(
        UploadLimits(settings.max_photos, settings.max_file_bytes, settings.max_training_set_bytes),
        max_uploads=settings.max_uploads,
        max_tenant_uploads=settings.max_uploads_per_tenant or max(1, settings.max_uploads // 2),
        slow_bytes_per_second=settings.upload_slow_bytes_per_second,
        idle_seconds=settings.upload_idle_seconds,
        max_tenant_bytes=settings.max_training_set_bytes_per_tenant,
        segmenter=settings.segmenter,
    )
    return TrainingSetIntake(training_sets, ledger, spool, policy, pictures, threads)


def adopt_store(settings: TrainerSettings) -> str:
    """Take the object store of the settings for the one that the jobs belong to, whatever it was before.

    It is made where there is none. For those who have moved to another store, or have lost the one they had.

    Returns:
        Its identity.

    Raises:
        DetexError: The object store or the database does not answer.
    """
    database = Database(settings.jobs_url())
    try:
        identity = open_object_store(settings.object_store.model_copy(update={"identity": ""})).identity()
        StoreNote(database).replace(identity)
    finally:
        database.close()
    _log.info("the jobs belong to the object store %s at %s now", identity, settings.object_store.url)
    return identity


async def serve(settings: TrainerSettings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
    """Run a trainer until it is asked to stop, and no longer than its grace times say."""
    trainer = Trainer(settings, worker_command)
    longest = settings.drain_delay_seconds + settings.drain_grace_seconds + LAST_WORDS_SECONDS
    bound = asyncio.create_task(end_within(trainer.server.draining, longest), name="end")
    try:
        await trainer.run()
    finally:
        bound.cancel()  # a failed start; otherwise it has been set in motion


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status.

    Args:
        arguments: Of the command line; those of this process where absent.
    """
    parser = argparse.ArgumentParser(
        prog="detex-trainer", description="The trainer. Settings come from the environment, see docs/operations.md."
    )
    parser.add_argument("action", nargs="?", choices=("serve", "adopt-store"), default="serve", help=_ACTIONS)
    action = parser.parse_args(arguments).action
    try:
        settings = TrainerSettings()
    except (ValidationError, DetexError) as error:
        sys.stderr.write(f"detex-trainer: settings refused: {error}\n")
        return 2
    configure_logging(settings)
    try:
        if action == "adopt-store":
            adopt_store(settings)
        else:
            asyncio.run(serve(settings))
    except DetexError as error:
        _log.error("%s", error.message)
        return 1
    return 0
