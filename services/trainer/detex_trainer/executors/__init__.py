"""Where workers run."""

from detex_trainer.executors.process import ProcessExecutor
from detex_trainer.executors.protocol import Executor, WorkerExit, WorkerRun

__all__ = ["Executor", "ProcessExecutor", "WorkerExit", "WorkerRun"]
