"""Training jobs in a SQL table: states, submission, claims by servers, queries."""

from detex_trainer.jobs.claims import JobClaim, JobClaims
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.record import Job, JobFailure, JobOrder, JobPage, PreviewRecord
from detex_trainer.jobs.repository import JobRepository
from detex_trainer.jobs.state import ENDED, TRANSITIONS, JobState

__all__ = [
    "ENDED",
    "TRANSITIONS",
    "Database",
    "Job",
    "JobClaim",
    "JobClaims",
    "JobFailure",
    "JobOrder",
    "JobPage",
    "JobRepository",
    "JobState",
    "PreviewRecord",
]
