"""Reconciles the jobs that should run with the workers that do."""

from detex_trainer.supervision.feed import JobFeed
from detex_trainer.supervision.supervisor import Supervisor, SupervisorPolicy

__all__ = ["JobFeed", "Supervisor", "SupervisorPolicy"]
