"""Ways in which a training job ends without a concept."""

from detex_core.errors import FailedPreconditionError

OUT_OF_MEMORY = "OUT_OF_MEMORY"
TIME_LIMIT = "TIME_LIMIT"
WORKER_SILENT = "WORKER_SILENT"


class DivergedError(FailedPreconditionError):
    """The loss or a trained weight became NaN or infinite, or the loss grew far beyond where it began."""

    reason = "DIVERGED"


class TrainingStopped(Exception):  # noqa: N818 - an answer to a request, not an error
    """Training ended early because it was asked to; nothing was published."""


class NoRoomError(Exception):
    """Memory does not suffice for this job beside those that train already; what it has done so far is kept."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of its GPU."""
    # torch has a type of its own for GPUs and a plain RuntimeError for main memory. Told by name: this loads no torch.
    names = {kind.__name__ for kind in type(error).__mro__}
    texts = ("can't allocate memory", "std::bad_alloc", "Cannot allocate memory")
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(text in str(error) for text in texts)


def spoils_worker(error: BaseException) -> bool:
    """Whether nothing that the same process asks of its GPU can succeed any more, whoever asks."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not is_out_of_memory(error) and ("AcceleratorError" in names or "CUDA error" in str(error))
