"""Which training sets there are and what becomes of them; their pictures lie in the object store."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from detex_core.errors import ResourceExhaustedError
from detex_trainer.domain.training_set_record import training_set_not_found
from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import JobRow, TrainingSetRow
from detex_trainer.jobs.training_set_changes import check_unchanging, in_use, is_changing, uses


@dataclass(frozen=True)
class NewTrainingSet:
    """A training set that is about to be stored.

    Attributes:
        tenant: Owner.
        training_set_id: Its id.
        upload_id: Chosen by the caller for its upload; empty for none.
        size_bytes: Size of its photos and masks as sent.
        keep_photos: Whether it stays when its jobs have ended.
        is_stored: Whether all of it is stored already; otherwise `mark_stored` says so later.
    """

    tenant: str
    training_set_id: str
    upload_id: str
    size_bytes: int
    keep_photos: bool
    is_stored: bool = True


@dataclass(frozen=True)
class TrainingSetKey:
    """Names a training set."""

    tenant: str
    training_set_id: str


class TrainingSetLedger:
    """Lists training sets before they are stored and until they are deleted; each method is one transaction.

    Jobs begin to use a set, and sets are chosen for deletion, in transactions that exclude each other: no job is queued
    for photos that are going.
    """

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now

    def add(self, new: NewTrainingSet, *, max_tenant_bytes: int = 0) -> None:
        """List a set.

        Args:
            new: The set.
            max_tenant_bytes: Bytes that all sets of the tenant may have together; 0 sets no limit.

        Raises:
            ResourceExhaustedError: They would have more (reason `STORAGE_QUOTA`).
            sqlalchemy.exc.IntegrityError: A set of the same upload is listed.
        """
        with self._database.writing() as session:
            if max_tenant_bytes:
                self._database.wait_for_turn(session, f"upload {new.tenant}")
                self._check_quota(session, new, max_tenant_bytes)
            session.add(
                TrainingSetRow(
                    tenant=new.tenant,
                    training_set_id=new.training_set_id,
                    upload_id=new.upload_id or None,
                    size_bytes=new.size_bytes,
                    keep_photos=new.keep_photos,
                    stored=new.is_stored,
                    create_time=self._now(),
                )
            )

    def mark_stored(self, tenant: str, training_set_id: str) -> None:
        """Note that all of a set is stored."""
        self._update(tenant, training_set_id, stored=True)

    def give_up(self, tenant: str, training_set_id: str) -> None:
        """Choose a set for deletion whose upload failed; the same upload may come again."""
        self._update(tenant, training_set_id, delete_time=self._now(), upload_id=None)

    def remove(self, tenant: str, training_set_id: str) -> None:
        """Forget a set whose upload failed and of which nothing is left."""
        with self._database.writing() as session:
            session.execute(
                delete(TrainingSetRow).where(
                    TrainingSetRow.tenant == tenant, TrainingSetRow.training_set_id == training_set_id
                )
            )

    def find_upload(self, tenant: str, upload_id: str) -> str | None:
        """Id of the set that an upload has become, where that is not deleted; else None."""
        with self._database.reading() as session:
            return session.scalar(
                select(TrainingSetRow.training_set_id).where(
                    TrainingSetRow.tenant == tenant,
                    TrainingSetRow.upload_id == upload_id,
                    TrainingSetRow.delete_time.is_(None),
                )
            )

    def use(self, session: Session, tenant: str, training_set_id: str) -> None:
        """Begin to use a set, within the transaction that queues its job.

        Raises:
            NotFoundError: It is going.
            AbortedError: It is being changed (reason `TRAINING_SET_CHANGING`).
        """
        row = session.get(TrainingSetRow, (tenant, training_set_id), with_for_update=True)
        now = self._now()
        if row is None:  # stored before sets were listed: it stays, as was meant then
            row = TrainingSetRow(
                tenant=tenant, training_set_id=training_set_id, size_bytes=0, keep_photos=True, create_time=now
            )
            session.add(row)
        if row.delete_time is not None:
            raise training_set_not_found(training_set_id)
        check_unchanging(row, now)
        row.use_time = now

    def request_deletion(self, tenant: str, training_set_id: str) -> None:
        """Choose a set for deletion because its owner asks for it.

        Raises:
            NotFoundError: There is none of that id.
            FailedPreconditionError: Jobs that have not ended use it (reason `TRAINING_SET_IN_USE`).
            AbortedError: It is being changed (reason `TRAINING_SET_CHANGING`).
        """
        with self._database.writing() as session:
            row = session.get(TrainingSetRow, (tenant, training_set_id), with_for_update=True)
            if row is None:  # stored before sets were listed
                row = TrainingSetRow(
                    tenant=tenant,
                    training_set_id=training_set_id,
                    size_bytes=0,
                    keep_photos=True,
                    create_time=self._now(),
                )
                session.add(row)
            if row.deleted:
                raise training_set_not_found(training_set_id)
            if session.scalar(select(func.count()).where(uses(tenant, training_set_id))):
                raise in_use(training_set_id)
            check_unchanging(row, self._now())
            row.delete_time = row.delete_time or self._now()

    def choose_for_deletion(self, *, unused_seconds: float, limit: int = 64) -> tuple[TrainingSetKey, ...]:
        """The sets that are to be deleted: their jobs have ended, or no job ever came; chosen now or before.

        Args:
            unused_seconds: How long a set waits for its first job.
            limit: Most sets.
        """
        now = self._now()
        used = exists().where(
            JobRow.tenant == TrainingSetRow.tenant,
            JobRow.training_set_id == TrainingSetRow.training_set_id,
            JobRow.state.in_([JobState.QUEUED, JobState.RUNNING]),
        )
        forgotten = TrainingSetRow.use_time.is_(None) & (
            TrainingSetRow.create_time < now - timedelta(seconds=unused_seconds)
        )
        done = TrainingSetRow.use_time.is_not(None) & ~TrainingSetRow.keep_photos & ~used
        chosen = TrainingSetRow.delete_time.is_not(None)
        # One that is not stored as a whole is of an upload whose trainer died.
        goes = ~TrainingSetRow.keep_photos | ~TrainingSetRow.stored
        due = ~TrainingSetRow.deleted & ~is_changing(now) & or_(chosen, forgotten & goes, done)
        with self._database.reading() as session:
            found = session.execute(
                select(TrainingSetRow.tenant, TrainingSetRow.training_set_id)
                .where(due)
                .order_by(TrainingSetRow.create_time)
                .limit(limit)
            ).all()
        if not found:
            return ()
        keys = []
        with self._database.writing() as session:
            for tenant, training_set_id in found:
                row = session.get(TrainingSetRow, (tenant, training_set_id), with_for_update=True)
                # Looked at again, now that no job can begin to use it.
                count = session.scalar(select(func.count()).where(uses(tenant, training_set_id)))
                is_changed = row is not None and row.change_expire_time is not None and row.change_expire_time > now
                if row is not None and not row.deleted and not count and not is_changed:
                    row.delete_time = row.delete_time or now
                    keys.append(TrainingSetKey(tenant, training_set_id))
        return tuple(keys)

    def mark_deleted(self, key: TrainingSetKey) -> None:
        """Note that the pictures of a set are deleted."""
        self._update(key.tenant, key.training_set_id, deleted=True)

    def _update(self, tenant: str, training_set_id: str, **values: object) -> None:
        with self._database.writing() as session:
            session.execute(
                update(TrainingSetRow)
                .where(TrainingSetRow.tenant == tenant, TrainingSetRow.training_set_id == training_set_id)
                .values(**values)
            )

    def _check_quota(self, session: Session, new: NewTrainingSet, max_tenant_bytes: int) -> None:
        stored = session.scalar(
            select(func.coalesce(func.sum(TrainingSetRow.size_bytes), 0)).where(
                TrainingSetRow.tenant == new.tenant, ~TrainingSetRow.deleted
            )
        )
        if int(stored or 0) + new.size_bytes > max_tenant_bytes:
            raise ResourceExhaustedError(
                f"This upload has {new.size_bytes:,} bytes, and the tenant already stores {int(stored or 0):,} of at "
                f"most {max_tenant_bytes:,}; delete training sets, or wait until running jobs end.",
                reason="STORAGE_QUOTA",
            )
