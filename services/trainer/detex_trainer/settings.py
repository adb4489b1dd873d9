"""Settings of the trainer, read from the environment (`DETEX_*`)."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from detex_core.images import MAX_IMAGE_BYTES
from detex_core.settings import ServiceSettings
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.job_size import machine_memory_bytes
from detex_trainer.domain.job_spec import MOST_PACKED_JOBS
from detex_trainer.domain.training_set_record import MAX_PHOTOS
from detex_trainer.executors.kubernetes_settings import KubernetesSettings
from detex_trainer.executors.worker_memory import WorkerMemory

_MIB = 1024**2
_WORKERS_SHARE = 0.9
"""Of this machine's memory; the rest is for the trainer itself and for the system."""
_PACK_SIZE_ON_CPU, _PACK_SIZE_ON_GPU = 4, 8
_ACCEPTED_DATABASES = (
    "must be an SQLAlchemy URL of SQLite or PostgreSQL, for example sqlite:////var/lib/detex/jobs.db or "
    "postgresql+psycopg://user:password@host/database with special characters of the password percent-encoded"
)
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


class TrainerSettings(ServiceSettings):
    """Settings of the trainer, in addition to those of both services.

    Attributes:
        database_url: SQLAlchemy URL of the job database; empty means `jobs.db` in the work folder.
        segmenter: Segmenter for photos without a mask: `color_contrast`, `none` (the whole photo), or the name of an
            entry point of the group `detex.segmenters`.
        executor: Where workers run: `process` (this machine) or `kubernetes` (Jobs of a cluster).
        kubernetes: Worker pods, as a JSON object (see `KubernetesSettings`); only for the executor `kubernetes`.
        worker_count: Maximum number of workers of this trainer; each trains one job, or several together.
        max_pack_size: Jobs that one worker trains together if they share base model, method and resolution and memory
            allows it; 1 trains each alone, 0 means 4 on CPUs and 8 on GPUs.
        worker_threads: CPU threads per worker; 0 divides the CPUs among the workers.
        worker_niceness: Nice value of the workers, so that calls are answered during training.
        worker_stop_grace_seconds: Wait between asking a worker to stop and killing it.
        worker_memory_bytes: Memory limit of a worker on this machine, excluding mapped files; a worker above it is
            killed. 0 means nine tenths of the machine's memory divided by worker_count. Workers in pods have their
            pods' limits.
        worker_silence_seconds: A worker that has reported nothing for this long is considered hung and killed; 0 waits
            forever.
        worker_turn_seconds: How long a worker trains before it yields to a waiting tenant without a running job: its
            jobs return to the queue with a checkpoint, without counting an attempt. 0 always finishes jobs first.
        publication_patience_seconds: How long a trained job waits, with its worker, for a store that is full, read-only
            or unavailable; then it returns to the queue, to resume from its last checkpoint.
        checkpoint_interval_seconds: Interval between checkpoints of a job; 0 writes one only when the worker is asked
            to stop.
        gradient_checkpointing: Whether to recompute activations of the UNet instead of storing them: a third more time
            for a fraction of the memory.
        compile_unet: Whether workers compile the UNet with torch, if a compiler is available and the method does not
            train it. The first steps take minutes. Not with gradient_checkpointing.
        cuda_graphs: Whether workers on a GPU capture the passes of a frozen base model as CUDA graphs; each of up to
            four batch sizes keeps its memory. No effect with gradient_checkpointing. Off until it has been measured on
            a GPU.
        attribute_vocabulary: Plain words from which attribute words (lists `subject`, `background` and `everywhere`)
            and the subject word (list `appearance`) may be initialized, as a JSON object; missing lists are the
            built-in ones. For base models with another vocabulary.
        max_attempts: How often a job is started before a dying worker counts as the job's failure; the last of several
            attempts runs alone.
        max_outages: How often a job is retried, with growing pauses, because a dependency does not answer.
        lease_seconds: How long a job stays with a trainer that no longer renews its lease.
        reconcile_interval_seconds: Interval between comparisons of the jobs that should run with those that do.
        watch_interval_seconds: Maximum delay until a watcher sees a change made by another trainer.
        max_job_memory_bytes: Limit of the estimated memory of one step of a job, excluding the base model; 0 means this
            machine's memory when training on its CPUs, and no limit elsewhere.
        max_job_megapixels: Limit of the pixels of all pictures in all steps of a job, in millions; 0 sets no limit.
        max_job_seconds: Limit of the training time of a job over all its attempts; a trained job that waits to be
            published is not ended. 0 sets no limit.
        max_queued_jobs_per_tenant: Maximum number of queued jobs per tenant.
        max_running_jobs_per_tenant: Maximum number of running jobs per tenant, over all trainers; 0 sets no limit.
        max_training_set_bytes_per_tenant: Maximum total size of the stored photos and masks of a tenant; 0 sets no
            limit.
        unused_training_set_seconds: How long a training set waits for its first job before it is deleted.
        ended_job_seconds: How long an ended job is kept, with its previews; 0 keeps it forever. Concepts are not
            affected.
        max_ended_jobs_per_tenant: Number of ended jobs kept per tenant, newest first; 0 sets no limit. Others are
            deleted an hour after their end.
        max_photos: Maximum number of photos in a training set.
        max_file_bytes: Maximum size of a photo or mask.
        max_training_set_bytes: Maximum total size of the files of a training set.
        max_uploads: Maximum number of concurrent uploads.
        max_uploads_per_tenant: Maximum number of concurrent uploads per tenant; 0 means half of max_uploads.
        upload_slow_bytes_per_second: When all upload places are taken, an upload slower than this is ended after five
            seconds to make room for a tenant that has none; its caller is asked to retry.
        upload_idle_seconds: Maximum time without data in an upload.
    """

    database_url: str = ""
    segmenter: str = Field(default="color_contrast", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    executor: Literal["process", "kubernetes"] = "process"
    kubernetes: KubernetesSettings | None = None
    worker_count: int = Field(default=1, ge=1, le=64)
    max_pack_size: int = Field(default=0, ge=0, le=MOST_PACKED_JOBS)
    worker_threads: int = Field(default=0, ge=0, le=256)
    worker_niceness: int = Field(default=5, ge=0, le=19)
    worker_stop_grace_seconds: float = Field(default=10.0, gt=0, le=600)
    worker_memory_bytes: int = Field(default=0, ge=0)
    worker_silence_seconds: float = Field(default=3_600.0, ge=0, le=604_800)
    worker_turn_seconds: float = Field(default=300.0, ge=0, le=604_800)
    publication_patience_seconds: float = Field(default=86_400.0, ge=0, le=30 * 86_400)
    checkpoint_interval_seconds: float = Field(default=30.0, ge=0, le=86_400)
    gradient_checkpointing: bool = False
    compile_unet: bool = False
    cuda_graphs: bool = False
    attribute_vocabulary: AttributeVocabulary | None = None
    max_attempts: int = Field(default=3, ge=1, le=10)
    max_outages: int = Field(default=12, ge=0, le=1_000)
    lease_seconds: float = Field(default=20.0, ge=1, le=3_600)
    reconcile_interval_seconds: float = Field(default=1.0, gt=0, le=60)
    watch_interval_seconds: float = Field(default=1.0, gt=0, le=60)
    max_job_memory_bytes: int = Field(default=0, ge=0)
    max_job_megapixels: float = Field(default=500_000.0, ge=0, allow_inf_nan=False)
    max_job_seconds: float = Field(default=172_800.0, ge=0, le=31_536_000)
    max_queued_jobs_per_tenant: int = Field(default=100, ge=1, le=100_000)
    max_running_jobs_per_tenant: int = Field(default=0, ge=0, le=100_000)
    max_training_set_bytes_per_tenant: int = Field(default=0, ge=0)
    unused_training_set_seconds: float = Field(default=86_400.0, ge=60, le=31_536_000)
    ended_job_seconds: float = Field(default=90 * 86_400.0, ge=0, le=10 * 31_536_000)
    max_ended_jobs_per_tenant: int = Field(default=10_000, ge=0, le=10_000_000)
    max_photos: int = Field(default=MAX_PHOTOS, ge=1, le=MAX_PHOTOS)
    max_file_bytes: int = Field(default=32 * _MIB, ge=1024, le=MAX_IMAGE_BYTES)
    max_training_set_bytes: int = Field(default=512 * _MIB, ge=1024, le=16 * 1024 * _MIB)
    max_uploads: int = Field(default=8, ge=1, le=1_000)
    max_uploads_per_tenant: int = Field(default=0, ge=0, le=1_000)
    upload_slow_bytes_per_second: float = Field(default=16 * 1024, ge=0)
    upload_idle_seconds: float = Field(default=60.0, gt=0, le=3_600)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if not url:
            return url
        # No error of SQLAlchemy is passed on: parts of the URL stand in them, and a password may be among those.
        try:
            dialect = make_url(url).get_dialect()
        except (ArgumentError, ValueError):
            raise ValueError(_ACCEPTED_DATABASES) from None
        if dialect.name not in ("sqlite", "postgresql") or dialect.is_async:
            raise ValueError(f"{_ACCEPTED_DATABASES}, got {dialect.name}+{dialect.driver}")
        try:
            dialect.import_dbapi()
        except ImportError:
            raise ValueError(
                f"the driver {dialect.driver} is not installed; for PostgreSQL: pip install 'detex[trainer,postgresql]'"
            ) from None
        return url

    @model_validator(mode="after")
    def _check_executor(self) -> Self:
        if self.executor == "kubernetes" and self.kubernetes is None:
            raise ValueError("kubernetes: must be an object with an image for the executor kubernetes, got nothing")
        return self

    @model_validator(mode="after")
    def _check_intervals(self) -> Self:
        if self.lease_seconds < 3 * self.reconcile_interval_seconds:
            raise ValueError(
                "lease_seconds: must be at least three times reconcile_interval_seconds "
                f"({self.reconcile_interval_seconds}), at which leases are renewed, got {self.lease_seconds}"
            )
        return self

    @model_validator(mode="after")
    def _check_compilation(self) -> Self:
        if self.compile_unet and self.gradient_checkpointing:
            raise ValueError("compile_unet: must be false with gradient_checkpointing, got true")
        return self

    def jobs_url(self) -> str:
        """SQLAlchemy URL of the job database."""
        return self.database_url or f"sqlite:///{self.work_folder.absolute() / 'jobs.db'}"

    def threads_per_worker(self) -> int:
        """CPU threads of each worker, at least 1."""
        return self.worker_threads or max(1, len(os.sched_getaffinity(0)) // self.worker_count)

    def jobs_per_worker(self) -> int:
        """Jobs that one worker trains together at most, at least 1."""
        return self.max_pack_size or (_PACK_SIZE_ON_GPU if self._trains_on_gpus() else _PACK_SIZE_ON_CPU)

    def job_memory_bytes(self) -> int | None:
        """What one step of a job may keep in memory; None for no limit."""
        if self.max_job_memory_bytes:
            return self.max_job_memory_bytes
        return None if self.executor == "kubernetes" or self._trains_on_gpus() else machine_memory_bytes()

    def memory_per_worker(self) -> WorkerMemory:
        """What each worker on this machine may take."""
        share = int(_WORKERS_SHARE * machine_memory_bytes()) // self.worker_count
        return WorkerMemory(self.worker_memory_bytes or share, refuses_more=not self._trains_on_gpus())

    def _trains_on_gpus(self) -> bool:
        """Whether workers will find a GPU; told without torch, which only they load."""
        if self.device != "auto":
            return self.device == "cuda"
        if self.executor == "kubernetes" and self.kubernetes is not None:
            return self.kubernetes.gpu_count > 0
        return any(device.exists() for device in _GPU_DEVICES)
