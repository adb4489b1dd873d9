"""Submitting, listing, cancelling and claiming jobs."""

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from detex_core.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidInputError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_trainer.jobs import Database, JobClaims, JobFailure, JobRepository, JobState, PreviewRecord
from detex_trainer.jobs.page_token import write_page_token
from detex_trainer.jobs.repository import Submission
from detex_trainer.progress import JobPhase, JobProgress

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
    with pytest.raises(AlreadyExistsError, match="idempotency key 'k'") as raised:
        jobs.submit(make_submission(key="k", content="1"), max_queued=1)
    assert raised.value.reason == "IDEMPOTENCY_KEY_REUSED"
    with pytest.raises(InvalidInputError, match=r"idempotency_key: given 129 characters; accepted is at most 128"):
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
    with pytest.raises(ResourceExhaustedError, match="2 jobs of this tenant wait") as raised:
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
    with pytest.raises(InvalidInputError, match=r"page_token: given .+; accepted is next_page_token"):
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
    clock.advance(21)
    (job,) = claims.release_expired(max_attempts=2)
    assert (job.job_id, job.state) == (job_id, JobState.FAILED)
    assert job.failure is not None
    assert job.failure.reason == "TRAINER_DIED"


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
        assert claims.requeue(claim, counts_as_attempt=False)
    claim = claims.claim("server")
    assert claim is not None
    assert claims.requeue(claim, counts_as_attempt=True)
    assert jobs.get("default", job_id).attempts == 1


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


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/jobs.db").close()
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(FailedPreconditionError, match="version 99"):
        Database(f"sqlite:///{tmp_path}/jobs.db")
