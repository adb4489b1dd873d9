"""Ways in which a training job ends without a concept."""

from detex_core.errors import FailedPreconditionError


class DivergedError(FailedPreconditionError):
    """The loss or a trained weight became NaN or infinite, or the loss grew far beyond where it began."""

    reason = "DIVERGED"


class TrainingStopped(Exception):  # noqa: N818 - an answer to a request, not an error
    """Training ended early because it was asked to; nothing was published."""


class NoRoomError(Exception):
    """Memory does not suffice for this job beside those that train already; nothing of it was begun."""
