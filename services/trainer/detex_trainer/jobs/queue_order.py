"""In which order queued jobs are taken: fair between tenants, by priority and age within one."""

from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import aliased

from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import JobRow


def next_queued(now: datetime, max_running: int) -> Select[JobRow]:
    """The next job of each tenant, in the order in which tenants are served.

    Args:
        now: Jobs that pause beyond this time, and those whose deadline was before it, are left out.
        max_running: Tenants with so many running jobs are left out; 0 leaves out none.
    """
    place = func.row_number().over(partition_by=JobRow.tenant, order_by=(JobRow.priority.desc(), JobRow.sequence))
    ranked = select(JobRow.sequence, place.label("place")).where(_can_run(now)).subquery()
    first = select(ranked.c.sequence).where(ranked.c.place == 1)
    return _by_tenant(now, max_running, first)


def next_companions(now: datetime, max_running: int, pack_key: str, max_attempts: int) -> Select[JobRow]:
    """The next job of each tenant that can be trained with others of a pack key, in the order of `next_queued`.

    No job is taken while its tenant has one of a higher priority waiting, for a pack takes longer the more it trains.
    The last of several attempts is made alone, so that no job fails for what another does to its worker.

    Args:
        now: As of `next_queued`.
        max_running: As of `next_queued`.
        pack_key: See `JobOrder.pack_key`.
        max_attempts: How often a job is tried.
    """
    highest = func.max(JobRow.priority).over(partition_by=JobRow.tenant)
    waiting = (
        select(
            JobRow.sequence,
            JobRow.tenant,
            JobRow.priority,
            JobRow.pack_key,
            JobRow.attempts,
            highest.label("highest"),
        )
        .where(_can_run(now))
        .subquery()
    )
    fits = (
        (waiting.c.pack_key == pack_key)
        & (waiting.c.priority == waiting.c.highest)
        & ((waiting.c.attempts == 0) | (waiting.c.attempts < max_attempts - 1))
    )
    place = func.row_number().over(partition_by=waiting.c.tenant, order_by=waiting.c.sequence)
    ranked = select(waiting.c.sequence, place.label("place")).where(fits).subquery()
    first = select(ranked.c.sequence).where(ranked.c.place == 1)
    return _by_tenant(now, max_running, first)


def waiting_of_pack_key(now: datetime, pack_key: str) -> Select[int]:
    """How many jobs of a pack key could be taken now."""
    return select(func.count()).select_from(JobRow).where(_can_run(now), JobRow.pack_key == pack_key)


def waiting_without_worker(now: datetime) -> Select[int]:
    """A job that could be taken now, of a tenant that has none running; no row where there is none."""
    other = aliased(JobRow)
    runs = select(other.sequence).where(other.tenant == JobRow.tenant, other.state == JobState.RUNNING).exists()
    return select(JobRow.sequence).where(_can_run(now), ~runs).limit(1)


def _can_run(now: datetime) -> ColumnElement[bool]:
    return (
        (JobRow.state == JobState.QUEUED)
        & ~JobRow.cancel_requested
        & (JobRow.ready_time.is_(None) | (JobRow.ready_time <= now))
        & (JobRow.deadline_time.is_(None) | (JobRow.deadline_time >= now))
    )


def _by_tenant(now: datetime, max_running: int, sequences: Select[int]) -> Select[JobRow]:
    """Jobs in the order of their tenants: of the fewest running jobs first, then of the one served longest ago."""
    tenants = select(JobRow.tenant).where(_can_run(now)).distinct().subquery()
    running = (
        select(JobRow.tenant, func.count().label("jobs"))
        .where(JobRow.state == JobState.RUNNING)
        .group_by(JobRow.tenant)
        .subquery()
    )
    # Of these tenants alone: the table keeps all jobs that ever were.
    earlier = aliased(JobRow)
    served = (
        select(earlier.tenant, func.max(earlier.claim_time).label("claim_time"))
        .join(tenants, tenants.c.tenant == earlier.tenant)
        .group_by(earlier.tenant)
        .subquery()
    )
    running_jobs = func.coalesce(running.c.jobs, 0)
    order = (
        select(JobRow)
        .where(JobRow.sequence.in_(sequences))
        .outerjoin(running, running.c.tenant == JobRow.tenant)
        .outerjoin(served, served.c.tenant == JobRow.tenant)
        .order_by(running_jobs, served.c.claim_time.nulls_first(), JobRow.sequence)
    )
    return order.where(running_jobs < max_running) if max_running else order
