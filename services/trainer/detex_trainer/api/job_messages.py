"""Messages of jobs to the domain and back."""

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from detex_core.errors import invalid_input
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.api.method_messages import (
    hyperparameters_message,
    method_message,
    read_hyperparameters,
    read_method,
)
from detex_trainer.api.submission import JobRequest
from detex_trainer.domain.progress import JobPhase, JobPreview, JobProgress
from detex_trainer.jobs import Job, JobFailure, JobState

_STATES = {
    JobState.QUEUED: trainer_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: trainer_pb2.JOB_STATE_RUNNING,
    JobState.SUCCEEDED: trainer_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: trainer_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: trainer_pb2.JOB_STATE_CANCELLED,
}
_STATE_OF = {message: state for state, message in _STATES.items()}
_PHASES = {
    JobPhase.PREPARING: trainer_pb2.JOB_PHASE_PREPARING,
    JobPhase.TRAINING: trainer_pb2.JOB_PHASE_TRAINING,
    JobPhase.PUBLISHING: trainer_pb2.JOB_PHASE_PUBLISHING,
}


def read_job_request(request: trainer_pb2.SubmitJobRequest) -> JobRequest:
    """What a caller asks for; raises InvalidInputError where a number stands for no method or delta form."""
    return JobRequest(
        training_set_id=request.training_set_id,
        concept_name=request.concept_name,
        method=read_method(request.method),
        hyperparameters=read_hyperparameters(request.hyperparameters),
        attributes=tuple(request.attributes),
        base_model=request.base_model,
        priority=request.priority,
        deadline_time=_read_time(request.deadline_time, "deadline_time") if request.HasField("deadline_time") else None,
    )


def _read_time(message: Timestamp, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (OverflowError, ValueError):
        accepted = "a time in the years 1 to 9999 with 0 to 999,999,999 ns"
        raise invalid_input(field, f"{message.seconds} s {message.nanos} ns", accepted) from None


def read_states(states: Sequence[int]) -> frozenset[JobState]:
    """The states of a filter; raises InvalidInputError (field `states[<position>]`) for one that is none."""
    for position, state in enumerate(states):
        if state not in _STATE_OF:
            names = ", ".join(trainer_pb2.JobState.Name(message) for message in _STATE_OF)
            raise invalid_input(f"states[{position}]", state, f"one of {names}")
    return frozenset(_STATE_OF[trainer_pb2.JobState.ValueType(state)] for state in states)


def job_message(job: Job) -> trainer_pb2.Job:
    """A job as callers see it."""
    order = job.order
    message = trainer_pb2.Job(
        job_id=job.job_id,
        state=_STATES[job.state],
        concept_name=order.concept_name,
        training_set_id=order.training_set_id,
        method=method_message(order.method),
        hyperparameters=hyperparameters_message(order.hyperparameters),
        attributes=order.attributes,
        base_model=order.base_model,
        create_time=timestamp(job.create_time),
        attempts=job.attempts,
        priority=job.priority,
    )
    if job.deadline_time is not None:
        message.deadline_time.CopyFrom(timestamp(job.deadline_time))
    if job.start_time is not None:
        message.start_time.CopyFrom(timestamp(job.start_time))
    if job.end_time is not None:
        message.end_time.CopyFrom(timestamp(job.end_time))
    if job.progress is not None:
        message.progress.CopyFrom(progress_message(job.progress))
    if job.failure is not None:
        message.failure.CopyFrom(_failure_message(job.failure))
    if job.interruption is not None:
        message.interruption.CopyFrom(_failure_message(job.interruption))
    if job.concept_version is not None:
        message.concept.CopyFrom(common_pb2.ConceptReference(name=order.concept_name, version=job.concept_version))
    return message


def watch_message(news: Job | JobProgress | JobPreview) -> trainer_pb2.WatchJobResponse:
    """News of a job as callers see them."""
    match news:
        case Job():
            return trainer_pb2.WatchJobResponse(job=job_message(news))
        case JobProgress():
            return trainer_pb2.WatchJobResponse(progress=progress_message(news))
        case JobPreview():
            preview = trainer_pb2.JobPreview(step=news.step, prompt=news.prompt, png=news.png)
            return trainer_pb2.WatchJobResponse(preview=preview)


def progress_message(progress: JobProgress) -> trainer_pb2.JobProgress:
    """Progress as callers see it."""
    message = trainer_pb2.JobProgress(
        phase=_PHASES[progress.phase],
        step=progress.step,
        total_steps=progress.total_steps,
        losses=progress.losses,
        steps_per_second=progress.steps_per_second,
        waiting_for=progress.waiting_for,
    )
    if progress.time_left_seconds is not None:
        message.time_left.CopyFrom(_duration(progress.time_left_seconds))
    return message


def timestamp(time: datetime) -> Timestamp:
    """A point in time as callers see it."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _failure_message(failure: JobFailure) -> trainer_pb2.JobFailure:
    return trainer_pb2.JobFailure(reason=failure.reason, message=failure.message)


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMilliseconds(round(seconds * 1_000))
    return message
