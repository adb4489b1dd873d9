"""Any interleaving of callers and servers keeps to the transitions that there are."""

import tempfile
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from detex_trainer.domain.hyperparameters import default_hyperparameters
from detex_trainer.domain.progress import JobPhase, JobProgress
from detex_trainer.jobs import (
    ENDED,
    TRANSITIONS,
    Database,
    JobClaim,
    JobClaims,
    JobFailure,
    JobOrder,
    JobRepository,
    JobState,
)
from detex_trainer.jobs.repository import Submission

ORDER = JobOrder(
    concept_name="my-mug",
    training_set_id="ts-0123456789abcdef",
    method="detex",
    hyperparameters=default_hyperparameters("detex"),
    attributes=("pose",),
    base_model="showroom",
)
OWNERS = st.sampled_from(["one", "two"])
MAX_ATTEMPTS = 2
LEASE_SECONDS = 20


class JobStates(RuleBasedStateMachine):
    """Two servers and a caller act in any order; a model beside the table says what may come of it."""

    job_ids = Bundle("job_ids")
    claims = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = datetime(2026, 1, 31, tzinfo=UTC)
        self.database = Database(f"sqlite:///{self.folder.name}/jobs.db")
        self.jobs = JobRepository(self.database, lambda: self.now)
        self.servers = JobClaims(self.database, lease_seconds=LEASE_SECONDS, now=lambda: self.now)
        self.states: dict[str, JobState] = {}
        self.live: dict[str, JobClaim] = {}
        self.cancelled: set[str] = set()
        self.begun: set[str] = set()
        self.expires: dict[str, datetime] = {}

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    @rule(target=job_ids, tenant=st.sampled_from(["a", "b"]))
    def submit(self, tenant: str) -> tuple[str, str]:
        job = self.jobs.submit(Submission(tenant, ORDER, "0" * 64), max_queued=1_000)
        self.states[job.job_id] = JobState.QUEUED
        return tenant, job.job_id

    @rule(target=claims, owner=OWNERS)
    def claim(self, owner: str) -> object:
        claim = self.servers.claim(owner)
        queued = {job_id for job_id, state in self.states.items() if state is JobState.QUEUED} - self.cancelled
        assert (claim is None) == (not queued)
        if claim is None:
            return multiple()
        assert claim.job.job_id in queued
        self.live[claim.job.job_id] = claim
        self.begun.add(claim.job.job_id)
        self.expires[claim.job.job_id] = self.now + timedelta(seconds=LEASE_SECONDS)
        return claim

    @rule(target=claims, owner=OWNERS)
    def claim_to_end(self, owner: str) -> object:
        claim = self.servers.claim_to_end(owner, max_attempts=MAX_ATTEMPTS)
        unwanted = {job_id for job_id in self.cancelled if self.states[job_id] is JobState.QUEUED}
        if claim is None:
            assert not unwanted
            return multiple()
        assert claim.to_end is not None
        left = self.live.get(claim.job.job_id)
        if left is not None:
            assert self.expires[left.job.job_id] < self.now
            assert claim.job.job_id in self.cancelled or claim.job.attempts >= MAX_ATTEMPTS
        else:
            assert claim.job.job_id in unwanted
        self.live[claim.job.job_id] = claim
        self.expires[claim.job.job_id] = self.now + timedelta(seconds=LEASE_SECONDS)
        return claim

    @rule(job=job_ids)
    def request_cancel(self, job: tuple[str, str]) -> None:
        before = self.states[job[1]]
        after = self.jobs.request_cancel(*job).state
        never_ran = before is JobState.QUEUED and job[1] not in self.begun
        assert after is (JobState.CANCELLED if never_ran else before)
        if before not in ENDED:
            self.cancelled.add(job[1])

    @rule(claim=claims)
    def progress(self, claim: JobClaim) -> None:
        assert self.servers.record_progress(claim, JobProgress(JobPhase.TRAINING, 1, 2)) == self.holds(claim)

    @rule(claim=claims, ending=st.sampled_from(["succeed", "fail", "cancel", "requeue", "requeue_attempt"]))
    def end(self, claim: JobClaim, ending: str) -> None:
        held = self.holds(claim)
        match ending:
            case "succeed":
                done = self.servers.succeed(claim, "20260131T120000Z-0a1b2c3d")
            case "fail":
                done = self.servers.fail(claim, JobFailure("DIVERGED", "NaN"))
            case "cancel":
                done = self.servers.cancel(claim)
            case _:
                cause = JobFailure("WORKER_DIED", "It died.") if ending == "requeue_attempt" else None
                done = self.servers.requeue(claim, cause=cause)
        assert done == held, "only the holder of a claim may end it"
        self.live.pop(claim.job.job_id, None) if done else None

    @rule(claim=consumes(claims))
    def forget_claim(self, claim: JobClaim) -> None:
        """The server dies: its claim is never used again."""

    @rule(seconds=st.sampled_from([1, 15, 25]), owner=OWNERS)
    def time_passes(self, seconds: int, owner: str) -> None:
        self.now += timedelta(seconds=seconds)
        held = {(job.job_id, job.number) for job in self.servers.renew(owner, list(self.states))}
        expected = {(claim.job.job_id, claim.number) for claim in self.live.values() if claim.owner == owner}
        assert held == expected
        self.expires |= {job_id: self.now + timedelta(seconds=LEASE_SECONDS) for job_id, _ in held}
        for job in self.servers.release_expired(max_attempts=MAX_ATTEMPTS):
            claim = self.live.pop(job.job_id)
            assert claim.owner != owner, "just renewed"
            assert job.job_id not in self.cancelled

    @invariant()
    def transitions_are_allowed(self) -> None:
        if not hasattr(self, "database"):
            return
        for tenant in ("a", "b"):
            for job in self.jobs.list(tenant, page_size=1_000).jobs:
                before = self.states[job.job_id]
                assert job.state is before or job.state in TRANSITIONS[before]
                self.states[job.job_id] = job.state
                assert (job.end_time is not None) == (job.state in ENDED)
                assert (job.failure is not None) == (job.state is JobState.FAILED)
                assert (job.concept_version is not None) == (job.state is JobState.SUCCEEDED)
                assert (job.job_id in self.live) == (job.state is JobState.RUNNING)
                assert job.attempts >= 0
                assert job.state is not JobState.CANCELLED or job.job_id in self.cancelled or job.job_id in self.begun

    def holds(self, claim: JobClaim) -> bool:
        live = self.live.get(claim.job.job_id)
        return live is not None and (live.owner, live.number) == (claim.owner, claim.number)


JobStates.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestJobStates = JobStates.TestCase
