"""What a worker says of the end of a job."""

from detex_core.artifact import Manifest
from detex_core.errors import DetexError
from detex_core.grpc_server import as_domain_error
from detex_trainer.domain.failures import OUT_OF_MEMORY, NoRoomError, TrainingStopped, is_out_of_memory
from detex_trainer.worker.events import FailedEvent, FinalEvent, ReturnedEvent, StoppedEvent, SucceededEvent

MEMORY_ADVICE = "Out of memory; submit the job again with a smaller batch_size or resolution."
_STORAGE_RETRY_SECONDS = 1.0
# An event is a line, and the trainer reads no endless ones.
_MESSAGE_CHARACTERS = 4_000


def end_of_job(job_id: str, outcome: Manifest | Exception, *, is_shared: bool) -> FinalEvent:
    """The event that ends a job.

    Args:
        job_id: Id of the job.
        outcome: What it has published, or what kept it from that.
        is_shared: Whether it was trained together with others, which have taken their part of the memory.
    """
    match outcome:
        case Manifest():
            return SucceededEvent(job_id=job_id, concept_version=outcome.version)
        case TrainingStopped():
            return StoppedEvent(job_id=job_id)
        case NoRoomError():
            return ReturnedEvent(job_id=job_id)
        case DetexError():
            return _failed(job_id, outcome)
        case _ if is_out_of_memory(outcome):
            return FailedEvent(job_id=job_id, reason=OUT_OF_MEMORY, message=MEMORY_ADVICE, is_shared=is_shared)
        case _:
            return _failed(job_id, as_domain_error(outcome))


def end_of_pack(job_id: str, error: Exception, *, is_shared: bool) -> FinalEvent:
    """The event that ends a job because what trained all of its worker has failed; arguments as of `end_of_job`.

    Whose fault it was is not known then, but where it was that of something that all need and that may come back.
    """
    event = end_of_job(job_id, error, is_shared=is_shared)
    if isinstance(event, FailedEvent) and event.retry_delay_seconds is None:
        return event.model_copy(update={"is_shared": is_shared})
    return event


def _failed(job_id: str, error: DetexError) -> FailedEvent:
    delay = error.retry_delay_seconds
    if delay is None and error.reason == "STORAGE_FULL":
        delay = _STORAGE_RETRY_SECONDS  # people make room; no job is to blame
    return FailedEvent(
        job_id=job_id,
        reason=error.reason,
        message=error.message[:_MESSAGE_CHARACTERS],
        retry_delay_seconds=delay,
    )
