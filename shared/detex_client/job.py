"""Training jobs and their news as the trainer reports them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import grpc

from detex_client import hyperparameters
from detex_client.concept import ConceptReference
from detex_client.errors import DetexClientError
from detex_client.wire_enum import JobPhase, JobState, Method
from detex_protos.v1 import trainer_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp


@dataclass(frozen=True)
class JobProgress:
    """How far a running job has come.

    Attributes:
        phase: What it does now.
        step: Optimisation steps done.
        total_steps: Steps in all.
        losses: Smoothed losses by name.
        steps_per_second: Speed over the last steps.
        time_left_seconds: The trainer's estimate of the time to the end of the job; None where it has none yet.
        waiting_for: Why the job does not continue for now, for example because the object store is full; empty where it
            does.
    """

    phase: JobPhase
    step: int
    total_steps: int
    losses: dict[str, float]
    steps_per_second: float
    time_left_seconds: float | None
    waiting_for: str = ""

    @classmethod
    def from_wire(cls, progress: trainer_pb2.JobProgress) -> Self:
        """From the message of the contract."""
        return cls(
            phase=JobPhase.from_number(progress.phase),
            step=progress.step,
            total_steps=progress.total_steps,
            losses=dict(progress.losses),
            steps_per_second=progress.steps_per_second,
            waiting_for=progress.waiting_for,
            time_left_seconds=progress.time_left.ToTimedelta().total_seconds()
            if progress.HasField("time_left")
            else None,
        )


@dataclass(frozen=True)
class JobPreview:
    """A picture drawn while a job trains.

    Attributes:
        step: Optimisation step at which it was drawn.
        prompt: What it was drawn for.
        png: The picture as PNG.
    """

    step: int
    prompt: str
    png: bytes

    @classmethod
    def from_wire(cls, preview: trainer_pb2.JobPreview) -> Self:
        """From the message of the contract."""
        return cls(preview.step, preview.prompt, preview.png)


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed.

    Attributes:
        reason: Stable reason in capitals.
        message: What happened and what to do, human-readable.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Job:
    """A training job; fields as `detex.v1.Job` documents them, None where absent."""

    job_id: str
    state: JobState
    concept_name: str
    training_set_id: str
    method: Method
    hyperparameters: hyperparameters.Hyperparameters
    attributes: tuple[str, ...]
    base_model: str
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    progress: JobProgress | None
    failure: JobFailure | None
    concept: ConceptReference | None

    @classmethod
    def from_wire(cls, job: trainer_pb2.Job) -> Self:
        """From the message of the contract."""
        return cls(
            job_id=job.job_id,
            state=JobState.from_number(job.state),
            concept_name=job.concept_name,
            training_set_id=job.training_set_id,
            method=Method.from_number(job.method),
            hyperparameters=hyperparameters.from_wire(job.hyperparameters),
            attributes=tuple(job.attributes),
            base_model=job.base_model,
            create_time=job.create_time.ToDatetime(tzinfo=UTC),
            start_time=_moment(job.start_time) if job.HasField("start_time") else None,
            end_time=_moment(job.end_time) if job.HasField("end_time") else None,
            progress=JobProgress.from_wire(job.progress) if job.HasField("progress") else None,
            failure=JobFailure(job.failure.reason, job.failure.message) if job.HasField("failure") else None,
            concept=ConceptReference.from_wire(job.concept) if job.HasField("concept") else None,
        )

    def published(self) -> ConceptReference:
        """The concept of a job that has succeeded.

        Raises:
            JobEndedError: It has ended otherwise, or has not ended.
        """
        if self.concept is None:
            raise JobEndedError(self)
        return self.concept


JobEvent = Job | JobProgress | JobPreview


class JobEndedError(DetexClientError):
    """A job gave no concept. `job` holds it as it stands; `reason` is that of its failure, or its state in capitals."""

    def __init__(self, job: Job) -> None:
        failure = job.failure or JobFailure(job.state.upper(), f"it is {job.state}.")
        super().__init__(
            f"Job {job.job_id} published no concept: {failure.message}",
            code=grpc.StatusCode.ABORTED,
            reason=failure.reason,
        )
        self.job = job


@dataclass(frozen=True)
class JobPage:
    """Some jobs, the newest first.

    Attributes:
        jobs: The jobs.
        next_page_token: What to ask the next page with; empty on the last page.
    """

    jobs: tuple[Job, ...]
    next_page_token: str


def _moment(timestamp: "Timestamp") -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
