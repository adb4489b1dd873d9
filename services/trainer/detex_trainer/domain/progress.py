"""How far a job has come, and who wants to know."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class JobPhase(StrEnum):
    """What a running job does."""

    PREPARING = "preparing"
    TRAINING = "training"
    PUBLISHING = "publishing"


@dataclass(frozen=True)
class JobProgress:
    """How far a job has come.

    Attributes:
        phase: What it does now.
        step: Steps done.
        total_steps: Steps in all.
        losses: Losses by name (`total`, `denoising`, `attention`, `prior`), smoothed over the last steps.
        steps_per_second: Speed over the last steps; 0 while unknown.
        time_left_seconds: Estimate of the time to the end of the job; None while unknown.
        gradient_norm: Norm of the gradients of the last step before they were clipped; 0 while unknown.
        returns: How often training went back to an earlier state because it diverged.
        waiting_for: Why it does not continue for now, human-readable; empty where it does.
    """

    phase: JobPhase
    step: int
    total_steps: int
    losses: dict[str, float] = field(default_factory=dict)
    steps_per_second: float = 0.0
    time_left_seconds: float | None = None
    gradient_norm: float = 0.0
    returns: int = 0
    waiting_for: str = ""


@dataclass(frozen=True)
class JobPreview:
    """A picture drawn while a job trains.

    Attributes:
        step: Step at which it was drawn.
        prompt: Prompt it was drawn for.
        png: The picture.
    """

    step: int
    prompt: str
    png: bytes


class ProgressReporter(Protocol):
    """Takes news of a job; called from the thread that trains, so an implementation must be quick."""

    def progress(self, progress: JobProgress) -> None:
        """Called at each change of phase and about twice a second while training."""

    def preview(self, preview: JobPreview) -> None:
        """Called for each preview picture."""

    def checkpoint(self, step: int, seconds: float) -> None:
        """Called when the state of a step is kept, after so many seconds; from a thread of its own."""
