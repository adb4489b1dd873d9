"""What an executor does: start a worker for jobs, tell what it reports, stop it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.worker.events import WorkerEvent


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended.

    Attributes:
        code: Exit status; negative for the signal that killed it.
        log_tail: The end of what it wrote to its log, for the trainer's log and never for callers.
        cause: What is known beyond that, in words that follow `The worker`; empty for nothing.
        reason: Of the failure of its job where that is its fault: `OUT_OF_MEMORY` for a worker that took more than it
            may; empty where nothing is known.
    """

    code: int
    log_tail: str
    cause: str = ""
    reason: str = ""

    def describe(self) -> str:
        """The exit in words, for example `was killed by signal 9`."""
        if self.cause:
            return self.cause
        return f"ended with status {self.code}" if self.code >= 0 else f"was killed by signal {-self.code}"


class WorkerRun(Protocol):
    """A worker that was started."""

    def events(self) -> AsyncIterator[WorkerEvent]:
        """What the worker reports, in order, until it reports no more; to be read once."""

    async def wait(self) -> WorkerExit:
        """Wait for its end; nothing of it runs afterwards."""

    def stop(self) -> None:
        """Ask the worker to stop, and see to it that it has ended after the grace time; may be called repeatedly."""

    def kill(self) -> None:
        """End the worker at once."""


class Executor(Protocol):
    """Starts workers on a kind of machine."""

    @property
    def outlives_trainer(self) -> bool:
        """Whether workers live on when their trainer is gone, for the next one to follow."""

    async def start(self, pack: PackSpec) -> WorkerRun:
        """Start a worker.

        Args:
            pack: What it is to train.

        Raises:
            UnavailableError: There is no room for it now.
        """
