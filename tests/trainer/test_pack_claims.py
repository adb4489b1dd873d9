"""Which jobs are taken together: in fair order, and never one that could not be trained with the others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from detex_trainer.domain.hyperparameters import Method, resolve_hyperparameters
from detex_trainer.jobs import Database, JobClaim, JobClaims, JobFailure, JobRepository, PackLimits
from detex_trainer.jobs.repository import Submission
from tests.trainer.test_jobs import Clock

MakeSubmission = Callable[..., Submission]
Submit = Callable[..., str]
LIMITS = PackLimits(most=4, max_attempts=3)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def claims(database: Database, clock: Clock) -> JobClaims:
    return JobClaims(database, lease_seconds=20, now=clock)


@pytest.fixture
def submit(database: Database, clock: Clock, make_submission: MakeSubmission) -> Submit:
    jobs = JobRepository(database, clock)

    def submit(name: str, tenant: str = "default", *, priority: int = 0, method: str = "detex", **knobs: object) -> str:
        submission = replace(make_submission(tenant, concept_name=name), priority=priority)
        changed = {
            "method": Method(method),
            "attributes": ("pose",) if method == "detex" else (),
            "hyperparameters": resolve_hyperparameters(method, knobs),
        }
        order = submission.order.model_copy(update=changed)
        return jobs.submit(replace(submission, order=order), max_queued=100).job_id

    return submit


def names(claimed: tuple[JobClaim, ...]) -> list[str]:
    return [claim.job.order.concept_name for claim in claimed]


def test_a_pack_holds_what_fits_together(claims: JobClaims, submit: Submit) -> None:
    submit("a")
    submit("other-size", resolution=64)
    submit("other-maps", attention_map_side=4)
    submit("other-method", method="textual_inversion")
    submit("b")
    submit("trains-the-unet", method="dreambooth")
    submit("c", batch_size=1, steps=7, seed=5)
    submit("d", prior_preservation="prompt", prior_loss_weight=0.5)
    first = claims.claim_pack("server", LIMITS)
    assert names(first) == ["a", "b", "c", "d"]
    assert len({claim.pack_id for claim in first}) == 1
    rest = [claims.claim_pack("server", LIMITS) for _ in range(5)]
    alone = ["other-size", "other-maps", "other-method", "trains-the-unet"]
    assert [names(each) for each in rest] == [*([each] for each in alone), []]
    assert len({claim.pack_id for each in (first, *rest) for claim in each}) == 5


def test_jobs_that_learn_pictures_of_the_class_share_a_pack(claims: JobClaims, submit: Submit) -> None:
    for index in range(3):
        submit(f"m{index}", method="custom_diffusion", seed=index)
    assert names(claims.claim_pack("server", LIMITS)) == ["m0", "m1", "m2"]


def test_a_pack_has_so_many_jobs_and_no_more(claims: JobClaims, submit: Submit) -> None:
    for index in range(6):
        submit(f"m{index}")
    assert [len(claims.claim_pack("server", LIMITS)) for _ in range(3)] == [4, 2, 0]


def test_what_waits_is_spread_over_idle_workers(claims: JobClaims, submit: Submit) -> None:
    for index in range(5):
        submit(f"m{index}")
    sizes = [len(claims.claim_pack("server", replace(LIMITS, idle_workers=idle))) for idle in (3, 2, 1)]
    assert sizes == [2, 2, 1]


def test_a_pack_is_filled_fairly(claims: JobClaims, submit: Submit) -> None:
    for index in range(4):
        submit(f"a{index}", "a")
    submit("b0", "b")
    submit("c0", "c")
    assert names(claims.claim_pack("server", LIMITS)) == ["a0", "b0", "c0", "a1"]


def test_a_pack_takes_no_job_before_one_of_higher_priority(claims: JobClaims, submit: Submit) -> None:
    submit("low", "a", priority=-1)
    submit("high", "a", priority=5)
    submit("urgent-other-size", "b", priority=9, resolution=64)
    submit("waits-for-it", "b", priority=0)
    submit("high-too", "a", priority=5)
    assert names(claims.claim_pack("server", LIMITS)) == ["high", "high-too", "low"]
    assert names(claims.claim_pack("server", LIMITS)) == ["urgent-other-size"]
    assert names(claims.claim_pack("server", LIMITS)) == ["waits-for-it"]


def test_a_pack_keeps_to_the_limit_of_a_tenant(database: Database, clock: Clock, submit: Submit) -> None:
    claims = JobClaims(database, lease_seconds=20, max_running_per_tenant=2, now=clock)
    for index in range(4):
        submit(f"a{index}", "a")
    submit("b0", "b")
    assert names(claims.claim_pack("server", LIMITS)) == ["a0", "b0", "a1"]
    assert claims.claim_pack("server", LIMITS) == ()


def test_the_last_of_several_attempts_is_made_alone(claims: JobClaims, submit: Submit) -> None:
    died = JobFailure("WORKER_DIED", "It died.")
    for name in ("a", "b"):
        submit(name)
    for attempt in (1, 2):
        pack = claims.claim_pack("server", LIMITS)
        assert names(pack) == ["a", "b"], attempt
        for claim in pack:
            assert claims.requeue(claim, cause=died)
    submit("new")
    packs = [claims.claim_pack("server", LIMITS) for _ in range(4)]
    assert [names(each) for each in packs] == [["a"], ["b"], ["new"], []]
    assert claims.requeue(packs[2][0]), "one that was stopped on purpose"
    assert names(claims.claim_pack("server", replace(LIMITS, max_attempts=1))) == ["new"]


def test_a_pack_whose_server_was_lost_stays_together_where_its_worker_lives_on(
    claims: JobClaims, clock: Clock, submit: Submit
) -> None:
    following = replace(LIMITS, follows_workers=True)
    for name in ("a", "b", "c"):
        submit(name)
    lost = claims.claim_pack("lost", following)
    claims.succeed(lost[0], "20260131T120000Z-0a1b2c3d")
    clock.advance(30)
    submit("d")
    assert len(claims.release_expired(max_attempts=3)) == 2
    found = claims.claim_pack("next", following)
    assert names(found) == ["b", "c"]
    assert {claim.pack_id for claim in found} == {lost[0].pack_id}
    assert names(claims.claim_pack("next", following)) == ["d"]
    for claim in found:
        assert claims.requeue(claim)
    again = claims.claim_pack("next", following)
    assert names(again) == ["b", "c"]
    assert again[0].pack_id != lost[0].pack_id, "another worker"


def test_workers_that_end_with_their_server_leave_jobs_free_for_any_pack(
    claims: JobClaims, clock: Clock, submit: Submit
) -> None:
    for name in ("a", "b"):
        submit(name)
    lost = claims.claim_pack("lost", LIMITS)
    clock.advance(30)
    submit("c")
    claims.release_expired(max_attempts=3)
    found = claims.claim_pack("next", LIMITS)
    assert names(found) == ["a", "b", "c"]
    assert found[0].pack_id != lost[0].pack_id


def test_a_database_of_the_version_before_gets_its_columns(tmp_path: Path, make_submission: MakeSubmission) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    database = Database(url)
    jobs = JobRepository(database)
    running, queued = (jobs.submit(make_submission(), max_queued=9).job_id for _ in range(2))
    JobClaims(database, lease_seconds=20).claim("server")
    database.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in (
            "DROP INDEX jobs_pack_id",
            "ALTER TABLE jobs DROP COLUMN pack_id",
            "ALTER TABLE jobs DROP COLUMN pack_key",
            "ALTER TABLE training_sets DROP COLUMN change_id",
            "ALTER TABLE training_sets DROP COLUMN change_expire_time",
            "ALTER TABLE training_sets DROP COLUMN stored",
            "DROP TABLE object_stores",
            "DROP TABLE deletions",
            "ALTER TABLE jobs DROP COLUMN run_seconds",
            "UPDATE alembic_version SET version_num = '0002'",
        ):
            connection.execute(text(statement))
    Database(url).close()
    with engine.connect() as connection:
        assert "jobs_pack_id" in {index["name"] for index in inspect(connection).get_indexes("jobs")}
        assert "change_id" in {column["name"] for column in inspect(connection).get_columns("training_sets")}
        rows = connection.execute(text("SELECT job_id, pack_id, pack_key FROM jobs ORDER BY sequence")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(running, running, ""), (queued, None, "")]
