"""Submitting, listing, cancelling and claiming jobs."""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from detex_core.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.jobs import Database, JobClaims, JobFailure, JobRepository, JobState, PreviewRecord
from detex_trainer.jobs.page_token import write_page_token
from detex_trainer.jobs.repository import Submission

MakeSubmission = Callable[..., Submission]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(database: Database, clock: Clock) -> JobRepository:
    return JobRepository(database, clock)


@pytest.fixture
def claims(database: Database, clock: Clock) -> JobClaims:
    return JobClaims(database, lease_seconds=20, now=clock)


@pytest.fixture
def submit(jobs: JobRepository, make_submission: MakeSubmission) -> Callable[..., str]:
    def submit(tenant: str = "default", **options: str) -> str:
        return jobs.submit(make_submission(tenant, **options), max_queued=100).job_id

    return submit


def test_a_job_comes_back_as_submitted(jobs: JobRepository, clock: Clock, make_submission: MakeSubmission) -> None:
    submission = make_submission("acme")
    submitted = jobs.submit(submission, max_queued=1)
    job = jobs.get("acme", submitted.job_id)
    assert job == submitted
    assert (job.state, job.order, job.create_time, job.start_time) == (
        JobState.QUEUED,
        submission.order,
        clock.time,
        None,
    )


def test_jobs_survive_reopening(tmp_path: Path, make_submission: MakeSubmission) -> None:
    first = Database(f"sqlite:///{tmp_path}/jobs.db")
    job = JobRepository(first).submit(make_submission(), max_queued=1)
    first.close()
    second = Database(f"sqlite:///{tmp_path}/jobs.db")
    assert JobRepository(second).get("default", job.job_id) == job
    second.close()


def test_tenants_do_not_see_each_other(jobs: JobRepository, submit: Callable[..., str]) -> None:
    job_id = submit("acme")
    with pytest.raises(NotFoundError, match=job_id):
        jobs.get("other", job_id)
    with pytest.raises(NotFoundError):
        jobs.request_cancel("other", job_id)
    assert jobs.list("other", page_size=10).jobs == ()


def test_idempotency_key_gives_the_same_job(jobs: JobRepository, make_submission: MakeSubmission) -> None:
    first = jobs.submit(make_submission(key="k"), max_queued=1)
    assert jobs.submit(make_submission(key="k"), max_queued=1) == first
    assert jobs.find_submitted("default", "k", "0" * 64) == first
    assert jobs.submit(make_submission("acme", key="k"), max_queued=1).job_id != first.job_id
    with pytest.raises(AlreadyExistsError, match="idempotency_key: 'k'") as raised:
        jobs.submit(make_submission(key="k", content="1"), max_queued=1)
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    with pytest.raises(InvalidInputError, match=r"idempotency_key: must be at most 128 characters, got 129"):
        jobs.find_submitted("default", "k" * 129, "0" * 64)


def test_racing_submissions_of_one_key_make_one_job(jobs: JobRepository, make_submission: MakeSubmission) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def submit() -> None:
        barrier.wait()
        found.append(jobs.submit(make_submission(key="k"), max_queued=100).job_id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(jobs.list("default", page_size=10).jobs) == 1


def test_a_full_queue_is_refused_with_a_time_to_come_back(
    jobs: JobRepository, claims: JobClaims, make_submission: MakeSubmission
) -> None:
    for _ in range(2):
        jobs.submit(make_submission(), max_queued=2)
    with pytest.raises(ResourceExhaustedError, match="This tenant has 2 of 2 jobs queued") as raised:
        jobs.submit(make_submission(), max_queued=2, retry_delay_seconds=7)
    assert (raised.value.reason, raised.value.retry_delay_seconds) == ("QUEUE_FULL", 7)
    jobs.submit(make_submission("acme"), max_queued=2)
    assert claims.claim("server")
    jobs.submit(make_submission(), max_queued=2)


def test_pages_are_stable_while_jobs_arrive(jobs: JobRepository, submit: Callable[..., str]) -> None:
    ids = [submit() for _ in range(7)]
    first = jobs.list("default", page_size=3)
    submit()
    second = jobs.list("default", page_size=3, page_token=first.next_page_token)
    third = jobs.list("default", page_size=3, page_token=second.next_page_token)
    seen = [job.job_id for page in (first, second, third) for job in page.jobs]
    assert seen == ids[::-1]
    assert third.next_page_token == ""


def test_a_page_that_just_fits_is_the_last(jobs: JobRepository, submit: Callable[..., str]) -> None:
    for _ in range(3):
        submit()
    assert jobs.list("default", page_size=3).next_page_token == ""


def test_filters(jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]) -> None:
    first, second, third = submit(concept_name="a"), submit(concept_name="b"), submit(concept_name="a")
    assert claims.claim("server").job.job_id == first  # type: ignore[union-attr]

    def listed(**query: object) -> list[str]:
        return [job.job_id for job in jobs.list("default", page_size=10, **query).jobs]  # type: ignore[arg-type]

    assert listed(concept_name="a") == [third, first]
    assert listed(states=[JobState.QUEUED]) == [third, second]
    assert listed(states=[JobState.QUEUED, JobState.RUNNING], concept_name="a") == [third, first]
    assert listed(states=[JobState.FAILED]) == []


@pytest.mark.parametrize("token", ["x", "ä", "bm8=", write_page_token("1", "another", "query"), "A" * 5_000])
def test_a_token_of_another_query_is_refused(jobs: JobRepository, submit: Callable[..., str], token: str) -> None:
    submit()
    with pytest.raises(
        InvalidInputError, match=r"page_token: must be the next_page_token of the previous page.*, got .+"
    ):
        jobs.list("default", page_size=1, page_token=token)


def test_a_queued_job_is_cancelled_at_once(jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]) -> None:
    job = jobs.request_cancel("default", submit())
    assert (job.state, job.has_ended, job.end_time is not None) == (JobState.CANCELLED, True, True)
    assert claims.claim("server") is None
    assert jobs.request_cancel("default", job.job_id) == job


def test_a_running_job_is_cancelled_by_its_server(
    jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]
) -> None:
    job_id = submit()
    claim = claims.claim("server")
    assert claim is not None
    assert [held.cancel_requested for held in claims.renew("server", [job_id])] == [False]
    assert jobs.request_cancel("default", job_id).state is JobState.RUNNING
    assert [held.cancel_requested for held in claims.renew("server", [job_id])] == [True]
    assert claims.cancel(claim)
    assert jobs.get("default", job_id).state is JobState.CANCELLED


def test_what_a_worker_reports_is_kept(jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]) -> None:
    job_id = submit()
    claim = claims.claim("server")
    assert claim is not None
    progress = JobProgress(JobPhase.TRAINING, 10, 400, {"total": 0.5}, 8.5, 45.9)
    assert claims.record_progress(claim, progress)
    for step in (20, 10, 20):
        assert claims.record_preview(claim, PreviewRecord(step, "a [mug]", f"key/{step}"))
    job = jobs.get("default", job_id)
    assert job.progress == progress
    assert [preview.step for preview in jobs.previews(job)] == [10, 20]
    assert [preview.key for preview in jobs.previews(job, after_step=10)] == ["key/20"]


def test_endings(jobs: JobRepository, claims: JobClaims, clock: Clock, submit: Callable[..., str]) -> None:
    succeeded, failed = submit(), submit()
    clock.advance(5)
    first, second = claims.claim("server"), claims.claim("server")
    assert first is not None
    assert second is not None
    clock.advance(5)
    assert claims.succeed(first, "20260131T120000Z-0a1b2c3d")
    assert claims.fail(second, JobFailure("DIVERGED", "The loss became NaN."))
    job = jobs.get("default", succeeded)
    assert (job.state, job.concept_version) == (JobState.SUCCEEDED, "20260131T120000Z-0a1b2c3d")
    assert [(time - job.create_time).total_seconds() for time in (job.start_time, job.end_time) if time] == [5, 10]
    assert jobs.get("default", failed).failure == JobFailure("DIVERGED", "The loss became NaN.")
    assert claims.renew("server", [succeeded, failed]) == ()


def test_the_queue_is_fair_between_tenants(claims: JobClaims, clock: Clock, submit: Callable[..., str]) -> None:
    for _ in range(3):
        submit("busy")
    submit("quiet")
    submit("late")
    order = []
    while claim := claims.claim("server"):
        order.append(claim.job.tenant)
        clock.advance(1)
        claims.succeed(claim, "20260131T120000Z-0a1b2c3d")
    assert order == ["busy", "quiet", "late", "busy", "busy"]


def test_a_tenant_with_running_jobs_waits_for_others(claims: JobClaims, submit: Callable[..., str]) -> None:
    for tenant in ("busy", "busy", "busy", "quiet", "quiet"):
        submit(tenant)
    tenants = [claim.job.tenant for _ in range(4) if (claim := claims.claim("server"))]
    assert tenants == ["busy", "quiet", "busy", "quiet"]


def test_who_has_no_job_running_is_waited_for_alone(
    jobs: JobRepository, claims: JobClaims, clock: Clock, submit: Callable[..., str]
) -> None:
    assert not claims.is_waited_for()
    submit("busy")
    submit("busy")
    assert claims.is_waited_for()
    assert claims.claim("server")
    assert not claims.is_waited_for(), "what waits is of a tenant that has a job running"
    waiting = submit("quiet")
    assert claims.is_waited_for()
    assert (claim := claims.claim("server"))
    assert not claims.is_waited_for()
    assert claims.requeue(claim, is_outage=True, pause_seconds=10)
    assert not claims.is_waited_for(), "it pauses"
    clock.advance(11)
    assert claims.is_waited_for()
    jobs.request_cancel("quiet", waiting)
    assert not claims.is_waited_for()


def test_an_expired_lease_frees_the_job(
    jobs: JobRepository, claims: JobClaims, clock: Clock, submit: Callable[..., str]
) -> None:
    job_id = submit()
    lost = claims.claim("dead")
    assert lost is not None
    clock.advance(19)
    assert claims.release_expired(max_attempts=2) == ()
    clock.advance(2)
    assert [job.state for job in claims.release_expired(max_attempts=2)] == [JobState.QUEUED]
    assert claims.renew("dead", [job_id]) == ()
    # The server was only slow: nothing that it still does counts.
    assert not claims.record_progress(lost, JobProgress(JobPhase.TRAINING, 1, 2))
    assert not claims.record_preview(lost, PreviewRecord(1, "", "key"))
    assert not claims.succeed(lost, "20260131T120000Z-0a1b2c3d")
    again = claims.claim("dead")
    assert again is not None
    assert not claims.cancel(lost), "an earlier claim of the same server"
    assert jobs.get("default", job_id).interruption == JobFailure(
        "TRAINER_DIED", "The trainer stopped while this job ran."
    )
    clock.advance(21)
    assert claims.release_expired(max_attempts=2) == (), "tried often enough"
    to_end = claims.claim_to_end("server", max_attempts=2)
    assert to_end is not None
    assert to_end.to_end == JobFailure(
        "TRAINER_DIED", "The trainer stopped 2 times while this job ran; submit it again."
    )
    assert claims.claim_to_end("other", max_attempts=2) is None
    assert not claims.cancel(again), "taken from it"
    assert claims.fail(to_end, to_end.to_end)
    assert jobs.get("default", job_id).state is JobState.FAILED


def test_renewing_keeps_the_job(claims: JobClaims, clock: Clock, submit: Callable[..., str]) -> None:
    kept, forgotten = submit(), submit()
    claims.claim("server")
    claims.claim("server")
    for number in range(4):
        clock.advance(15)
        assert [held.job_id for held in claims.renew("server", [kept])] == [kept]
        released = [job.job_id for job in claims.release_expired(max_attempts=2)]
        assert released == ([forgotten] if number == 1 else [])


def test_requeueing_on_purpose_is_no_attempt(
    jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]
) -> None:
    job_id = submit()
    submit()
    for attempts in (1, 1, 1):
        claim = claims.claim("server")
        assert claim is not None
        assert (claim.job.job_id, claim.job.attempts) == (job_id, attempts)
        assert claims.requeue(claim)
    claim = claims.claim("server")
    assert claim is not None
    cause = JobFailure("WORKER_DIED", "The worker was killed by signal 9.")
    assert claims.requeue(claim, cause=cause)
    job = jobs.get("default", job_id)
    assert (job.attempts, job.outages, job.interruption) == (1, 0, cause)


def test_an_outage_pauses_the_job_and_is_no_attempt(
    jobs: JobRepository, claims: JobClaims, clock: Clock, submit: Callable[..., str]
) -> None:
    job_id = submit()
    claim = claims.claim("server")
    assert claim is not None
    cause = JobFailure("UNAVAILABLE", "The object store does not answer.")
    assert claims.requeue(claim, cause=cause, is_outage=True, pause_seconds=8)
    assert claims.claim("server") is None
    clock.advance(8)
    again = claims.claim("server")
    assert again is not None
    assert (again.job.job_id, again.job.attempts, again.job.outages) == (job_id, 1, 1)


def test_priorities_order_the_jobs_of_a_tenant_alone(
    jobs: JobRepository, claims: JobClaims, clock: Clock, make_submission: MakeSubmission
) -> None:
    for tenant, name, priority in [
        ("a", "low", -5),
        ("a", "old", 0),
        ("a", "new", 0),
        ("a", "high", 9),
        ("b", "b", -9),
    ]:
        jobs.submit(replace(make_submission(tenant, concept_name=name), priority=priority), max_queued=9)
    order = []
    while claim := claims.claim("server"):
        order.append(claim.job.order.concept_name)
        clock.advance(1)
        claims.succeed(claim, "20260131T120000Z-0a1b2c3d")
    assert order == ["high", "b", "old", "new", "low"]


def test_a_deadline_ends_a_job_in_the_queue_and_in_the_work(
    jobs: JobRepository, claims: JobClaims, clock: Clock, make_submission: MakeSubmission
) -> None:
    deadline = clock.time + timedelta(seconds=60)
    ids = [jobs.submit(replace(make_submission(), deadline_time=deadline), max_queued=9).job_id for _ in range(3)]
    for owner in ("alive", "dead"):
        assert claims.claim(owner) is not None
    clock.advance(15)
    assert [held.deadline_passed for held in claims.renew("alive", ids)] == [False]
    clock.advance(50)
    assert claims.claim("alive") is None
    claims.renew("alive", ids)
    assert claims.release_expired(max_attempts=2) == ()
    ended = [claims.claim_to_end("alive", max_attempts=2) for _ in range(3)]
    assert [claim and claim.job.job_id for claim in ended] == [ids[1], ids[2], None]
    for claim in ended[:2]:
        assert claim is not None
        assert claim.to_end is not None
        assert claim.to_end.reason == "DEADLINE_PASSED"
        assert "2026-01-31 12:01:00 UTC" in claim.to_end.message


def test_a_tenant_has_so_many_running_jobs_and_no_more(
    database: Database, clock: Clock, submit: Callable[..., str]
) -> None:
    claims = JobClaims(database, lease_seconds=20, max_running_per_tenant=1, now=clock)
    for tenant in ("a", "a", "b"):
        submit(tenant)
    first, second = claims.claim("server"), claims.claim("server")
    assert first is not None
    assert second is not None
    assert (first.job.tenant, second.job.tenant) == ("a", "b")
    assert claims.claim("server") is None
    claims.succeed(first, "20260131T120000Z-0a1b2c3d")
    assert claims.claim("server") is not None


def test_a_job_that_may_have_published_is_not_cancelled_in_the_queue(
    jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]
) -> None:
    job_id = submit()
    claim = claims.claim("server")
    assert claim is not None
    assert claims.requeue(claim)
    assert jobs.request_cancel("default", job_id).state is JobState.QUEUED
    assert claims.claim("server") is None
    to_end = claims.claim_to_end("server", max_attempts=2)
    assert to_end is not None
    assert to_end.to_end is not None
    assert to_end.to_end.reason == "CANCELLED"


def test_racing_servers_claim_each_job_once(claims: JobClaims, submit: Callable[..., str]) -> None:
    ids = {submit() for _ in range(12)}
    taken: list[str] = []
    barrier = threading.Barrier(4)

    def serve(owner: str) -> None:
        barrier.wait()
        while claim := claims.claim(owner):
            taken.append(claim.job.job_id)

    threads = [threading.Thread(target=serve, args=(f"server-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 12
    assert set(taken) == ids


def test_counts(jobs: JobRepository, claims: JobClaims, submit: Callable[..., str]) -> None:
    for _ in range(3):
        submit()
    claims.claim("server")
    assert jobs.counts() == {(JobState.QUEUED, "detex"): 2, (JobState.RUNNING, "detex"): 1}


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, make_submission: MakeSubmission) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    jobs = JobRepository(database)
    kept = jobs.submit(make_submission(), max_queued=10_000)
    with database.writing() as session:
        # SQLite gives the error of a full disk when the file may not grow: the pragma holds for this connection.
        (pages,) = session.connection().exec_driver_sql("PRAGMA page_count").one()
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")

    def submit_until_refused() -> None:
        for _ in range(100):
            jobs.submit(make_submission(), max_queued=10_000)

    with pytest.raises(ResourceExhaustedError, match="disk of the job database is full") as raised:
        submit_until_refused()
    assert raised.value.reason == "STORAGE_FULL"
    assert jobs.get("default", kept.job_id) == kept
    database.close()


def test_a_database_that_is_locked_is_unavailable(
    tmp_path: Path, make_submission: MakeSubmission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detex_trainer.jobs.database._BUSY_TIMEOUT_SECONDS", 0.1)
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    jobs = JobRepository(database)
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as raised:
        jobs.submit(make_submission(), max_queued=1)
    assert raised.value.retry_delay_seconds
    assert jobs.list("default", page_size=1).jobs == (), "readers do not wait for writers"
    other.execute("ROLLBACK")
    other.close()
    jobs.submit(make_submission(), max_queued=1)
    database.close()
