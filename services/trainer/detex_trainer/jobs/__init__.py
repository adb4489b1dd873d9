"""Training jobs in a SQL table: states, submission, claims by servers, queries."""

from detex_trainer.jobs.claim import JobClaim, PackLimits
from detex_trainer.jobs.claims import JobClaims
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.deletions import DeletionLedger
from detex_trainer.jobs.record import Job, JobFailure, JobOrder, JobPage, PreviewRecord
from detex_trainer.jobs.repository import JobRepository
from detex_trainer.jobs.retention import JobRetention, RetentionPolicy
from detex_trainer.jobs.state import ENDED, TRANSITIONS, JobState
from detex_trainer.jobs.store_note import StoreNote
from detex_trainer.jobs.training_set_changes import TRAINING_SET_CHANGING, TrainingSetChanges
from detex_trainer.jobs.training_sets import NewTrainingSet, TrainingSetKey, TrainingSetLedger
from detex_trainer.jobs.transitions import CANCELLED, deadline_passed

__all__ = [
    "CANCELLED",
    "ENDED",
    "TRAINING_SET_CHANGING",
    "TRANSITIONS",
    "Database",
    "DeletionLedger",
    "Job",
    "JobClaim",
    "JobClaims",
    "JobFailure",
    "JobOrder",
    "JobPage",
    "JobRepository",
    "JobRetention",
    "JobState",
    "NewTrainingSet",
    "PackLimits",
    "PreviewRecord",
    "RetentionPolicy",
    "StoreNote",
    "TrainingSetChanges",
    "TrainingSetKey",
    "TrainingSetLedger",
    "deadline_passed",
]
