"""Jobs that have ended are kept for a time and to a number; what is published, runs or waits stays."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from detex_core.artifact import ConceptArchive, ConceptReference
from detex_core.errors import NotFoundError, UnavailableError
from detex_core.object_store import FolderStore
from detex_trainer.domain.job_files import outcome_key, preview_key
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.jobs import (
    Database,
    DeletionLedger,
    Job,
    JobClaims,
    JobFailure,
    JobRepository,
    JobRetention,
    JobState,
    NewTrainingSet,
    PreviewRecord,
    RetentionPolicy,
    TrainingSetLedger,
)
from detex_trainer.jobs.repository import Submission
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.retention.cleanup import Cleanup, CleanupStores
from detex_trainer.retention.concept_deletion import ConceptDeletion
from tests.trainer.test_training_set_ledger import database, url

__all__ = ["database", "url"]  # over SQLite and PostgreSQL

DAY = 86_400.0
MakeSubmission = Callable[..., Submission]


class FailingStore(FolderStore):
    """A store whose deletions fail after some have been made, as often as it is told."""

    deletions_left: int | None = None

    def delete(self, key: str) -> bool:
        if self.deletions_left is not None:
            if not self.deletions_left:
                raise UnavailableError("The object store does not answer.")
            self.deletions_left -= 1
        return super().delete(key)


@dataclass
class Jobs:
    """A database and a store with the trainer's cleanup over them, at a time that tests set."""

    database: Database
    store: FailingStore
    make_submission: MakeSubmission
    time: datetime = datetime(2026, 1, 31, 12, tzinfo=UTC)
    version: str = "20260131T120000Z-01234567"

    def __post_init__(self) -> None:
        self.repository = JobRepository(self.database, self.now)
        self.claims = JobClaims(self.database, lease_seconds=10 * 365 * DAY, now=self.now)
        self.ledger = TrainingSetLedger(self.database, self.now)
        self.registry = CollectorRegistry()
        self.metrics = TrainerMetrics(self.registry)

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def submit(self, tenant: str = "default", key: str = "") -> Job:
        return self.repository.submit(self.make_submission(tenant, key=key), max_queued=1_000)

    def end(self, state: JobState = JobState.SUCCEEDED, tenant: str = "default", key: str = "") -> Job:
        """A job that has run and ended, with a preview and an outcome in the store."""
        job = self.submit(tenant, key)
        claim = self.claims.claim("server")
        assert claim is not None
        assert claim.job.job_id == job.job_id
        preview = preview_key(tenant, job.job_id, 10)
        self.store.put(preview, b"preview")
        self.store.put(outcome_key(tenant, job.job_id), b"outcome")
        assert self.claims.record_preview(claim, PreviewRecord(10, "a mug", preview))
        if state is JobState.SUCCEEDED:
            self.claims.succeed(claim, self.version)
        elif state is JobState.FAILED:
            self.claims.fail(claim, JobFailure("DIVERGED", "It diverged."))
        else:
            self.claims.cancel(claim)
        return self.repository.get(tenant, job.job_id)

    def look(self, seconds: float = 90 * DAY, most: int = 0) -> None:
        """What a trainer that has just started deletes."""
        retention = JobRetention(self.database, RetentionPolicy(seconds, most), self.now)
        stores = CleanupStores(
            self.repository,
            retention,
            self.ledger,
            TrainingSetArchive(self.store),
            self.store,
            DeletionLedger(self.database, self.now),
        )
        Cleanup(stores, self.metrics, unused_seconds=DAY, remove_abandoned_uploads=lambda: None).look()

    def listed(self, tenant: str = "default") -> list[str]:
        return [job.job_id for job in self.repository.list(tenant, page_size=100).jobs]

    def objects(self) -> list[str]:
        return [each.key for each in self.store.list("")]

    def removed(self, state: JobState) -> float:
        return self.registry.get_sample_value("detex_trainer_jobs_removed_total", {"state": state}) or 0.0


@pytest.fixture
def jobs(database: Database, tmp_path: Path, make_submission: MakeSubmission) -> Jobs:
    return Jobs(database, FailingStore(tmp_path / "objects"), make_submission)


def test_what_has_ended_long_ago_goes_with_its_files_and_nothing_else(jobs: Jobs) -> None:
    concept = f"concepts/default/my-mug/{jobs.version}/manifest.json"
    jobs.store.put(concept, b"manifest")
    states = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    old = [jobs.end(state) for state in states]
    running = jobs.submit()
    assert jobs.claims.claim("server") is not None
    waiting = jobs.submit()
    jobs.advance(89 * DAY)
    young = jobs.end(JobState.FAILED, tenant="other")

    jobs.look()
    assert set(jobs.listed()) == {running.job_id, waiting.job_id, *(job.job_id for job in old)}

    jobs.advance(2 * DAY)
    jobs.look()
    assert set(jobs.listed()) == {running.job_id, waiting.job_id}
    assert jobs.listed("other") == [young.job_id]
    assert jobs.objects() == [concept, outcome_key("other", young.job_id)]
    assert [jobs.removed(state) for state in states] == [1, 1, 1]
    with pytest.raises(NotFoundError):
        jobs.repository.get("default", old[0].job_id)


def test_of_each_tenant_the_newest_stay_and_no_job_goes_within_the_hour(jobs: Jobs) -> None:
    ended = {tenant: [jobs.end(tenant=tenant).job_id for _ in range(4)] for tenant in ("one", "two")}
    last = jobs.end(tenant="third").job_id
    jobs.advance(3_000)
    jobs.look(seconds=0, most=2)
    assert [len(jobs.listed(tenant)) for tenant in ended] == [4, 4]

    jobs.advance(1_000)
    jobs.look(seconds=0, most=2)
    assert {tenant: jobs.listed(tenant) for tenant in ended} == {
        tenant: list(reversed(each[2:])) for tenant, each in ended.items()
    }
    assert jobs.listed("third") == [last]


def test_nothing_goes_where_no_limit_is_set(jobs: Jobs) -> None:
    ended = [jobs.end().job_id for _ in range(3)]
    jobs.advance(9_000 * DAY)
    jobs.look(seconds=0, most=0)
    assert sorted(jobs.listed()) == sorted(ended)


def test_the_row_of_a_job_goes_last_and_the_next_look_ends_what_an_outage_broke_off(jobs: Jobs) -> None:
    old = jobs.end()
    jobs.end(tenant="other")
    jobs.advance(80 * DAY)
    jobs.look()  # working files of ended jobs
    jobs.advance(20 * DAY)
    jobs.store.deletions_left = 1
    with pytest.raises(UnavailableError):
        jobs.look()
    found = jobs.repository.get("default", old.job_id)
    assert jobs.repository.previews(found) == (), "a preview is named whose picture may be gone"
    assert len([key for key in jobs.objects() if old.job_id in key]) == 1

    jobs.store.deletions_left = None
    jobs.look()
    assert jobs.listed() == []
    assert not [key for key in jobs.objects() if old.job_id in key]
    assert jobs.removed(JobState.SUCCEEDED) == 1


def test_page_tokens_stay_valid_and_numbers_are_never_given_twice(jobs: Jobs) -> None:
    ended = [jobs.end().job_id for _ in range(6)]
    page = jobs.repository.list("default", page_size=2)
    assert [job.job_id for job in page.jobs] == [ended[5], ended[4]]
    jobs.advance(100 * DAY)
    jobs.look()
    assert jobs.listed() == [ended[5]], "the last one stays, so that its number is not given again"
    rest = jobs.repository.list("default", page_size=2, page_token=page.next_page_token)
    assert rest.jobs == ()
    assert rest.next_page_token == ""
    after = jobs.submit()
    assert after.sequence > page.jobs[0].sequence
    jobs.look()
    assert jobs.listed() == [after.job_id]


def test_an_idempotency_key_is_known_as_long_as_its_job(jobs: Jobs) -> None:
    first = jobs.end(key="one")
    jobs.end(tenant="other")
    assert jobs.submit(key="one").job_id == first.job_id
    jobs.advance(100 * DAY)
    jobs.look()
    assert jobs.submit(key="one").job_id != first.job_id


def test_a_late_word_of_one_trainer_removes_nothing_twice(jobs: Jobs) -> None:
    jobs.end()
    jobs.end(tenant="other")
    jobs.advance(80 * DAY)
    jobs.look()
    jobs.advance(20 * DAY)
    retention = JobRetention(jobs.database, RetentionPolicy(DAY, 0), jobs.now)
    (found,) = retention.due()
    jobs.look()
    assert retention.forget(found) is False
    assert jobs.removed(JobState.SUCCEEDED) == 1


def test_names_of_deleted_training_sets_go_as_well_and_sets_that_are_kept_stay(jobs: Jobs) -> None:
    for number, keeps in enumerate((False, True)):
        jobs.ledger.add(NewTrainingSet("default", f"ts-{number:016x}", f"upload-{number}", 100, keeps))
    jobs.advance(2 * DAY)
    jobs.look()  # deletes the one that is unused
    retention = JobRetention(jobs.database, RetentionPolicy(90 * DAY, 0), jobs.now)
    jobs.advance(80 * DAY)
    assert retention.forget_deleted_training_sets() == 0
    jobs.advance(20 * DAY)
    assert retention.forget_deleted_training_sets() == 1
    assert jobs.ledger.find_upload("default", "upload-1") is not None


class Died(BaseException):
    """The process is no more."""


class MortalStore(FailingStore):
    """A store whose process dies where it would fail."""

    def delete(self, key: str) -> bool:
        try:
            return super().delete(key)
        except UnavailableError:
            raise Died from None


@pytest.mark.parametrize("ending", [FailingStore, MortalStore])
@pytest.mark.parametrize("asks_again", [False, True])
@pytest.mark.parametrize("deletions", range(8))
def test_a_deletion_of_a_concept_that_broke_off_is_ended(
    jobs: Jobs, tmp_path: Path, deletions: int, asks_again: bool, ending: type[FailingStore]
) -> None:
    jobs.store = ending(tmp_path / "objects")
    concepts = ConceptArchive(jobs.store)
    made = jobs.end()
    other = jobs.end(tenant="other")
    for name in ("my-mug", "other-mug"):
        for file_name in ("concept.safetensors", "report.json", "manifest.json"):
            jobs.store.put(f"concepts/default/{name}/{jobs.version}/{file_name}", b"file")
    kept = [key for key in jobs.objects() if "/other" in key]
    deletion = ConceptDeletion(concepts, jobs.repository, jobs.store, DeletionLedger(jobs.database, jobs.now))
    jobs.store.deletions_left = deletions
    breaks_off = deletions < 7  # the manifest twice, and with its files once more; two files of the job
    with pytest.raises((UnavailableError, Died)) if breaks_off else nullcontext():
        deletion.delete("default", "my-mug")
    jobs.store.deletions_left = None
    if asks_again and breaks_off:
        assert deletion.delete("default", "my-mug").references == (ConceptReference("my-mug", jobs.version),)
    jobs.look()
    assert jobs.objects() == kept
    assert outcome_key("other", other.job_id) in kept
    assert jobs.repository.get("default", made.job_id).state is JobState.SUCCEEDED
    with pytest.raises(NotFoundError):
        deletion.delete("default", "my-mug")
    assert DeletionLedger(jobs.database).due() == ()
