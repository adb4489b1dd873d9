"""Prometheus metrics of the trainer."""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from detex_core.errors import DetexError
from detex_trainer.domain.hyperparameters import Method, trainable_methods
from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.jobs.state import ENDED, JobState

# Failures carry many reasons and labels must stay few: what is not listed counts as OTHER.
_REASONS = frozenset(
    {
        "DATA_LOSS",
        "DEADLINE_PASSED",
        "DIVERGED",
        "INTERNAL",
        "NOT_FOUND",
        "OUT_OF_MEMORY",
        "STORAGE_FULL",
        "TRAINER_DIED",
        "UNAVAILABLE",
    }
    | {"SUBJECT_NOT_FOUND", "WORKER_DIED"}
)
_WAIT_BUCKETS = (
    *(0.1, 0.5, 1, 2, 5, 10, 15, 30, 45, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1_200, 1_800, 2_700),
    *(3_600, 7_200, 14_400, 28_800, 86_400),
)
_PHASE_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 600, 900, 1_800, 3_600, 14_400)

_SPEED_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_PACK_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16)
_NORM_BUCKETS = (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100)
_CHECKPOINT_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_LOSS_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_MEMORY_BUCKETS = tuple(2.0**power for power in range(28, 38))  # 256 MiB to 128 GiB

REQUEUE_CAUSES = (
    "no_room",
    "not_started",
    "pack_failed",
    "trainer_died",
    "trainer_stops",
    "turn_over",
    "unavailable",
    "worker_died",
)
"""Why running jobs go back into the queue."""

_log = logging.getLogger(__name__)


class TrainerMetrics:
    """What the trainer counts and times; states of jobs are counted in the database when they are asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_wait = Histogram(
            "detex_trainer_queue_wait_seconds",
            "Time from entering the queue to being taken by a worker.",
            ["method"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self.phase = Histogram(
            "detex_trainer_phase_seconds",
            "Time that jobs spend in each phase.",
            ["method", "phase"],
            buckets=_PHASE_BUCKETS,
            registry=registry,
        )
        self.steps = Counter(
            "detex_trainer_steps_total",
            "Training steps done; the rate is the speed.",
            ["method"],
            registry=registry,
        )
        self.ended = Counter(
            "detex_trainer_jobs_ended_total", "Jobs that have ended.", ["method", "state"], registry=registry
        )
        self.failures = Counter(
            "detex_trainer_job_failures_total", "Jobs that failed, by reason.", ["reason"], registry=registry
        )
        self.requeued = Counter(
            "detex_trainer_jobs_requeued_total", "Running jobs returned to the queue.", ["cause"], registry=registry
        )
        self.workers = Gauge("detex_trainer_workers", "Workers running on this trainer.", registry=registry)
        self.uploads = Counter(
            "detex_trainer_training_sets_total", "Uploads of training sets, by outcome.", ["outcome"], registry=registry
        )
        self.speed = Histogram(
            "detex_trainer_steps_per_second",
            "Speed of each job over its last steps.",
            ["method"],
            buckets=_SPEED_BUCKETS,
            registry=registry,
        )
        self.loss = Histogram(
            "detex_trainer_final_loss",
            "Smoothed total loss of each job at its last step.",
            ["method"],
            buckets=_LOSS_BUCKETS,
            registry=registry,
        )
        self.memory = Histogram(
            "detex_trainer_worker_memory_bytes",
            "Peak memory of each worker: of the machine, and of its GPU if any.",
            ["device"],
            buckets=_MEMORY_BUCKETS,
            registry=registry,
        )
        self.attempts = Histogram(
            "detex_trainer_job_attempts",
            "Attempts of each ended job.",
            ["state"],
            buckets=(0, 1, 2, 3, 5, 10),
            registry=registry,
        )
        self.removed_jobs = Counter(
            "detex_trainer_jobs_removed_total",
            "Ended jobs deleted with their files after their retention.",
            ["state"],
            registry=registry,
        )
        self.deleted_training_sets = Counter(
            "detex_trainer_training_sets_deleted_total",
            "Training sets whose photos were deleted by the trainer, after their jobs or unused.",
            registry=registry,
        )
        self.pack_size = Histogram(
            "detex_trainer_pack_size",
            "Jobs per worker, trained together.",
            buckets=_PACK_BUCKETS,
            registry=registry,
        )
        self.gradient_norm = Histogram(
            "detex_trainer_gradient_norm",
            "Gradient norm of each job at its last report, before clipping.",
            ["method"],
            buckets=_NORM_BUCKETS,
            registry=registry,
        )
        self.divergences = Counter(
            "detex_trainer_divergences_total",
            "Returns of training to an earlier state because the loss diverged or was not finite.",
            ["method"],
            registry=registry,
        )
        self.checkpoint = Histogram(
            "detex_trainer_checkpoint_seconds",
            "Time to write a checkpoint, concurrently with training.",
            buckets=_CHECKPOINT_BUCKETS,
            registry=registry,
        )
        self.checkpoint_age = Gauge(
            "detex_trainer_checkpoint_age_seconds",
            "Oldest state of a running job: time since its last checkpoint, or since it was taken by its worker.",
            registry=registry,
        )
        # Born at 0, so that `increase()` sees the first event.
        for method in trainable_methods():
            self.steps.labels(method)
            self.divergences.labels(method)
            for state in ENDED:
                self.ended.labels(method, state)
        for state in ENDED:
            self.removed_jobs.labels(state)
        for reason in (*_REASONS, "OTHER"):
            self.failures.labels(reason)
        for cause in REQUEUE_CAUSES:
            self.requeued.labels(cause)
        for outcome in ("kept", "refused"):
            self.uploads.labels(outcome)

    def failed(self, reason: str) -> None:
        """Count a failed job."""
        self.failures.labels(reason if reason in _REASONS else "OTHER").inc()

    def job_trained(self, method: Method, last: JobProgress) -> None:
        """Note what was reported last of the training of a job."""
        if last.gradient_norm:
            self.gradient_norm.labels(method).observe(last.gradient_norm)
        if last.step == last.total_steps:
            if last.steps_per_second:
                self.speed.labels(method).observe(last.steps_per_second)
            if "total" in last.losses:
                self.loss.labels(method).observe(last.losses["total"])

    def worker_ended(self, memory_bytes: int, gpu_memory_bytes: int) -> None:
        """Note what a worker has used; 0 for what it has not told."""
        for device, used in (("machine", memory_bytes), ("gpu", gpu_memory_bytes)):
            if used:
                self.memory.labels(device).observe(used)

    def phase_ended(self, method: Method, phase: JobPhase, seconds: float) -> None:
        """Time a phase of a job."""
        self.phase.labels(method, phase).observe(seconds)


@dataclass(frozen=True)
class JobTable:
    """What the job table says at one time.

    Attributes:
        counts: Jobs by state and method.
        oldest_seconds: Age of the oldest queued job since it entered the queue, and of the oldest running one since it
            was taken; nothing for a state without jobs.
    """

    counts: Mapping[tuple[JobState, Method], int] = field(default_factory=dict)
    oldest_seconds: Mapping[JobState, float] = field(default_factory=dict)


class JobsCollector(Collector):
    """Jobs by state and method and the ages of the oldest, read from the database at each scrape.

    Every replica says the same of the shared database, so queries take `max by (state, method)`, never `sum`.
    """

    def __init__(self, read: Callable[[], JobTable]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, or nothing while the database does not answer: a stale number would look like a true one."""
        try:
            table = self._read()
        except DetexError as error:
            _log.warning("jobs not counted: %s", error.message)
            return
        jobs, oldest = self.describe()
        for state, method in itertools.product(JobState, trainable_methods()):
            jobs.add_metric([state, method], table.counts.get((state, method), 0))
        for state in (JobState.QUEUED, JobState.RUNNING):
            oldest.add_metric([state], table.oldest_seconds.get(state, 0.0))
        yield from (jobs, oldest)

    def describe(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        """The names, so that registering asks the database nothing."""
        return (
            GaugeMetricFamily(
                "detex_trainer_jobs",
                "Jobs by state and method; each replica reports all of them, so use max by (state, method), never sum.",
                labels=["state", "method"],
            ),
            GaugeMetricFamily(
                "detex_trainer_oldest_job_seconds",
                "Time since the oldest queued job entered the queue, and since the oldest running one was taken; 0 "
                "without such jobs. Each replica tells of all: max by (state).",
                labels=["state"],
            ),
        )
