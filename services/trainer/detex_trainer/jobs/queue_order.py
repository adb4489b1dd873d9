"""In which order queued jobs are taken: fair between tenants, by priority and age within one."""

from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from detex_trainer.jobs.state import JobState
from detex_trainer.jobs.tables import JobRow


def next_queued(now: datetime, max_running: int) -> Select[JobRow]:
    """The next job of each tenant, in the order in which tenants are served.

    Args:
        now: Jobs that pause beyond this time, and those whose deadline was before it, are left out.
        max_running: Tenants with so many running jobs are left out; 0 leaves out none.
    """
    can_run = (
        (JobRow.state == JobState.QUEUED)
        & ~JobRow.cancel_requested
        & (JobRow.ready_time.is_(None) | (JobRow.ready_time <= now))
        & (JobRow.deadline_time.is_(None) | (JobRow.deadline_time >= now))
    )
    place = func.row_number().over(partition_by=JobRow.tenant, order_by=(JobRow.priority.desc(), JobRow.sequence))
    ranked = select(JobRow.sequence, place.label("place")).where(can_run).subquery()
    tenants = select(JobRow.tenant).where(can_run).distinct().subquery()
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
        .join(ranked, (ranked.c.sequence == JobRow.sequence) & (ranked.c.place == 1))
        .outerjoin(running, running.c.tenant == JobRow.tenant)
        .outerjoin(served, served.c.tenant == JobRow.tenant)
        .order_by(running_jobs, served.c.claim_time.nulls_first(), JobRow.sequence)
    )
    return order.where(running_jobs < max_running) if max_running else order
