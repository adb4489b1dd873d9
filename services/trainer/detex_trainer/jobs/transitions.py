"""Conditions and values of the transitions of running jobs, as `JobClaims` writes them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement

from detex_trainer.jobs.claim import JobClaim
from detex_trainer.jobs.record import JobFailure
from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import JobRow

CANCELLED = "CANCELLED"
UNHELD: dict[str, Any] = {"lease_owner": None, "lease_expire_time": None}


def cause_to_end(row: JobRow, now: datetime) -> JobFailure:
    """Why a job is to be ended that is not to be run."""
    if row.cancel_requested:
        return JobFailure(CANCELLED, "The caller cancelled it.")
    if row.deadline_time is not None and row.deadline_time < now:
        return deadline_passed(row.deadline_time)
    return JobFailure("TRAINER_DIED", f"The trainer stopped {row.attempts} times while this job ran; submit it again.")


def deadline_passed(deadline: datetime) -> JobFailure:
    """Why a job ends at its deadline."""
    return JobFailure(
        "DEADLINE_PASSED", f"The job was not done by its deadline, {deadline:%Y-%m-%d %H:%M:%S} UTC; submit it again."
    )


def expired(now: datetime) -> ColumnElement[bool]:
    """Jobs whose server did not renew its lease."""
    return (JobRow.state == JobState.RUNNING) & (JobRow.lease_expire_time < now)


def held(claim: JobClaim) -> ColumnElement[bool]:
    """The job of a claim that still holds."""
    return (
        (JobRow.sequence == claim.job.sequence)
        & (JobRow.state == JobState.RUNNING)
        & (JobRow.lease_owner == claim.owner)
        & (JobRow.claims == claim.number)
    )


def ended(state: JobState, now: datetime, failure: JobFailure | None = None) -> dict[str, Any]:
    """Values of a job that ends."""
    values = {"state": state, "end_time": now, **UNHELD}
    if failure is not None:
        values |= {"failure_reason": failure.reason[:64], "failure_message": storable(failure.message, 2_000)}
    return values


def interrupted(cause: JobFailure) -> dict[str, Any]:
    """Values of a job whose attempt failed and is to be repeated."""
    return {"retry_reason": cause.reason[:64], "retry_message": storable(cause.message, 2_000)}


def storable(text: str, characters: int) -> str:
    """Text of whatever origin as every database takes it: without NUL, which PostgreSQL refuses, and not too long."""
    return text[:characters].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def changed(result: Any) -> bool:
    """Whether an UPDATE met its row."""
    return bool(result.rowcount == 1)
