"""Changes of stored training sets, one at a time.

While one is written, no job begins to use the set and nothing else changes or deletes it, whichever trainer is asked.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, update

from detex_core.errors import AbortedError, FailedPreconditionError
from detex_trainer.domain.training_set_record import training_set_not_found
from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import JobRow, TrainingSetRow

TRAINING_SET_CHANGING = "TRAINING_SET_CHANGING"
CHANGING_RETRY_SECONDS = 0.5

_CHANGE_SECONDS = 120.0
# The store gives up a write after three tries of a connection and a silence each, which takes less than this.
_WRITE_SECONDS = 60.0


def uses(tenant: str, training_set_id: str) -> ColumnElement[bool]:
    """Jobs that have not ended and use a set."""
    return (
        (JobRow.tenant == tenant)
        & (JobRow.training_set_id == training_set_id)
        & JobRow.state.in_([JobState.QUEUED, JobState.RUNNING])
    )


def in_use(training_set_id: str) -> FailedPreconditionError:
    """The error for a set that jobs use which have not ended."""
    return FailedPreconditionError(
        f"The training set {training_set_id} is used by jobs that have not ended; cancel them, or wait until they end.",
        reason="TRAINING_SET_IN_USE",
    )


def is_changing(now: datetime) -> ColumnElement[bool]:
    """Sets that are being changed now; the change of a trainer that died is over after two minutes."""
    return TrainingSetRow.change_expire_time.is_not(None) & (TrainingSetRow.change_expire_time > now)


def check_unchanging(row: TrainingSetRow, now: datetime) -> None:
    """Raise AbortedError (reason `TRAINING_SET_CHANGING`) where a set is being changed now."""
    if row.change_expire_time is not None and row.change_expire_time > now:
        raise AbortedError(
            f"The training set {row.training_set_id} is being changed by another call; try again in a moment.",
            reason=TRAINING_SET_CHANGING,
            retry_delay_seconds=CHANGING_RETRY_SECONDS,
        )


class TrainingSetChange:
    """A change that has the set for itself."""

    def __init__(self, database: Database, change_id: str, now: Callable[[], datetime]) -> None:
        self._database = database
        self._change_id = change_id
        self._now = now

    def confirm(self) -> None:
        """To be called before a write; raises AbortedError where too little time is left to end it."""
        least = self._now() + timedelta(seconds=_WRITE_SECONDS)
        mine = (TrainingSetRow.change_id == self._change_id) & (TrainingSetRow.change_expire_time > least)
        with self._database.reading() as session:
            if not session.scalar(select(func.count()).where(mine)):
                raise AbortedError("The change took too long; nothing was changed.", retry_delay_seconds=1)


class TrainingSetChanges:
    """Lets one caller at a time change a set; safe to use from several threads."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now

    @contextmanager
    def changing(self, tenant: str, training_set_id: str) -> Iterator[TrainingSetChange]:
        """Have a set for oneself within a `with` block.

        Raises:
            NotFoundError: It is being deleted.
            FailedPreconditionError: Jobs that have not ended use it (reason `TRAINING_SET_IN_USE`).
            AbortedError: Another call changes it (reason `TRAINING_SET_CHANGING`).
        """
        change_id = secrets.token_hex(16)
        with self._database.writing() as session:
            now = self._now()
            row = session.get(TrainingSetRow, (tenant, training_set_id), with_for_update=True)
            if row is None:  # stored before sets were listed: it stays, as was meant then
                row = TrainingSetRow(
                    tenant=tenant, training_set_id=training_set_id, size_bytes=0, keep_photos=True, create_time=now
                )
                session.add(row)
            if row.delete_time is not None:
                raise training_set_not_found(training_set_id)
            check_unchanging(row, now)
            if session.scalar(select(func.count()).where(uses(tenant, training_set_id))):
                raise in_use(training_set_id)
            row.change_id = change_id
            row.change_expire_time = now + timedelta(seconds=_CHANGE_SECONDS)
        try:
            yield TrainingSetChange(self._database, change_id, self._now)
        finally:
            with self._database.writing() as session:
                mine = TrainingSetRow.change_id == change_id
                session.execute(update(TrainingSetRow).where(mine).values(change_id=None, change_expire_time=None))

    def is_going(self, tenant: str, training_set_id: str) -> bool:
        """Whether a set was chosen for deletion, done or not."""
        going = or_(TrainingSetRow.deleted, TrainingSetRow.delete_time.is_not(None))
        one = (TrainingSetRow.tenant == tenant) & (TrainingSetRow.training_set_id == training_set_id)
        with self._database.reading() as session:
            return bool(session.scalar(select(func.count()).where(one, going)))
