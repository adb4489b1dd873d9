"""What a worker tells its trainer: one JSON object per line."""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from detex_core.artifact.manifest import ConceptVersion
from detex_trainer.domain.progress import JobProgress


class ExitCode(IntEnum):
    """How a worker ends.

    Attributes:
        REPORTED: It sent an event that ends the job, whatever that says.
        BAD_SPEC: It could not read its job spec.
        PARENT_GONE: Its trainer is gone: standard input was closed.
    """

    REPORTED = 0
    BAD_SPEC = 64
    PARENT_GONE = 75


class _Event(BaseModel):
    """What is told of a job; `job_id` may be left empty by a worker that has but one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str = ""


class ProgressEvent(_Event):
    """How far the job has come, and the most memory that the worker has used so far, of the machine and of its GPU."""

    type: Literal["progress"] = "progress"
    progress: JobProgress
    memory_bytes: int = Field(default=0, ge=0)
    gpu_memory_bytes: int = Field(default=0, ge=0)


class PreviewEvent(_Event):
    """A preview picture lies in the object store."""

    type: Literal["preview"] = "preview"
    step: int = Field(ge=0)
    prompt: str
    key: str


class CheckpointEvent(_Event):
    """The state of a step is kept in the object store, after so many seconds of writing."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int = Field(ge=0)
    seconds: float = Field(ge=0)


class SucceededEvent(_Event):
    """The concept is published; ends the job."""

    type: Literal["succeeded"] = "succeeded"
    concept_version: ConceptVersion


class FailedEvent(_Event):
    """This attempt has failed; a later one can succeed where `retry_delay_seconds` is set.

    Where `is_shared` is, several jobs were trained together, and it may be another's fault.
    """

    type: Literal["failed"] = "failed"
    reason: str
    message: str
    retry_delay_seconds: float | None = Field(default=None, ge=0)
    is_shared: bool = False


class StoppedEvent(_Event):
    """The worker has stopped because it was asked to; what follows is the trainer's to decide."""

    type: Literal["stopped"] = "stopped"


class ReturnedEvent(_Event):
    """There is no room for the job beside the others of the worker; what it has done so far is kept."""

    type: Literal["returned"] = "returned"


FinalEvent = SucceededEvent | FailedEvent | StoppedEvent | ReturnedEvent
WorkerEvent = Annotated[ProgressEvent | PreviewEvent | CheckpointEvent | FinalEvent, Field(discriminator="type")]

_EVENT: TypeAdapter[WorkerEvent] = TypeAdapter(WorkerEvent)


def write_event(event: WorkerEvent) -> bytes:
    """The event as a line."""
    return _EVENT.dump_json(event) + b"\n"


def read_event(line: bytes) -> WorkerEvent:
    """The event of a line.

    Raises:
        ValueError: The line is none.
    """
    return _EVENT.validate_json(line)
