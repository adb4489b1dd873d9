"""Reconciles the jobs that should run with the workers that do."""

from detex_trainer.supervisor.feed import JobFeed
from detex_trainer.supervisor.supervisor import Supervisor, SupervisorPolicy

__all__ = ["JobFeed", "Supervisor", "SupervisorPolicy"]
