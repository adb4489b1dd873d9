"""Which training sets are chosen for deletion, over SQLite and PostgreSQL."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from detex_core.errors import FailedPreconditionError, NotFoundError, ResourceExhaustedError
from detex_trainer.jobs import Database, JobClaims, JobRepository, NewTrainingSet, TrainingSetKey, TrainingSetLedger
from detex_trainer.jobs.repository import Submission
from detex_trainer.jobs.tables import Table
from tests.servers.postgresql import PostgresServer

SET_ID = "ts-0123456789abcdef"
UNUSED_SECONDS = 100


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    monkeypatch.setenv("PGPASSWORD", server.password)
    name = f"ledger_{abs(hash(tmp_path)):x}"
    server.create_database(name)
    return server.url(name)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


def test_migrations_make_the_tables_that_the_program_reads(database: Database, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()


def test_tables_from_before_migrations_are_upgraded(url: str, make_submission: Callable[..., Submission]) -> None:
    made = Database(url)
    jobs = JobRepository(made)
    before = jobs.submit(make_submission(), max_queued=9)
    made.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        # As they were: without what came later, and without a word about migrations.
        connection.execute(text("DROP TABLE training_sets"))
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(text("DROP INDEX jobs_training_set"))
        connection.execute(text("DROP INDEX jobs_cleared"))
        connection.execute(text("DROP INDEX jobs_pack_id"))
        later = "training_set_id priority deadline_time ready_time outages retry_reason retry_message cleared"
        later += " pack_key pack_id run_seconds"
        for column in later.split():
            connection.execute(text(f"ALTER TABLE jobs DROP COLUMN {column}"))
        connection.execute(text("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO schema_version VALUES (1)"))
    upgraded = Database(url)
    assert JobRepository(upgraded).get("default", before.job_id) == before
    assert not inspect(engine).has_table("schema_version")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
        used = connection.scalar(text("SELECT training_set_id FROM jobs"))
    assert used == before.order.training_set_id
    upgraded.close()
    engine.dispose()


def test_tables_of_a_later_version_are_refused(url: str) -> None:
    Database(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPreconditionError, match="tables of a later version of detex"):
        Database(url)
    engine.dispose()


def test_sets_are_chosen_when_their_jobs_have_ended(
    database: Database, make_submission: Callable[..., Submission]
) -> None:
    clock = Clock()
    ledger = TrainingSetLedger(database, clock)
    jobs, claims = JobRepository(database, clock), JobClaims(database, lease_seconds=20, now=clock)

    def chosen() -> list[str]:
        return [key.training_set_id for key in ledger.choose_for_deletion(unused_seconds=UNUSED_SECONDS)]

    ledger.add(NewTrainingSet("default", SET_ID, "", 10, keep_photos=False))
    ledger.add(NewTrainingSet("default", "ts-kept", "", 10, keep_photos=True))
    ledger.add(NewTrainingSet("other", SET_ID, "", 10, keep_photos=False))
    assert chosen() == []
    for _ in range(2):
        jobs.submit(make_submission(), max_queued=9)
    with pytest.raises(FailedPreconditionError, match="cancel them, or wait"):
        ledger.request_deletion("default", SET_ID)
    clock.time += timedelta(seconds=UNUSED_SECONDS + 1)
    assert ledger.choose_for_deletion(unused_seconds=UNUSED_SECONDS) == (TrainingSetKey("other", SET_ID),), (
        "no job came"
    )
    ledger.mark_deleted(TrainingSetKey("other", SET_ID))
    first = claims.claim("server")
    assert first is not None
    claims.succeed(first, "20260131T120000Z-0a1b2c3d")
    assert chosen() == [], "one job waits still"
    second = claims.claim("server")
    assert second is not None
    claims.cancel(second)
    assert chosen() == [SET_ID]
    assert chosen() == [SET_ID], "until it is done"
    with pytest.raises(NotFoundError, match="no training set"):
        jobs.submit(make_submission(), max_queued=9)
    ledger.mark_deleted(TrainingSetKey("default", SET_ID))
    assert chosen() == []
    with pytest.raises(NotFoundError):
        jobs.submit(make_submission(), max_queued=9)


def test_bytes_of_a_tenant_are_limited(database: Database) -> None:
    ledger = TrainingSetLedger(database)
    ledger.add(NewTrainingSet("a", "ts-1", "", 70, keep_photos=False), max_tenant_bytes=100)
    with pytest.raises(
        ResourceExhaustedError, match="This upload has 31 bytes, and the tenant already stores 70 of at most 100"
    ) as raised:
        ledger.add(NewTrainingSet("a", "ts-2", "", 31, keep_photos=False), max_tenant_bytes=100)
    assert raised.value.reason == "STORAGE_QUOTA"
    ledger.add(NewTrainingSet("b", "ts-2", "", 31, keep_photos=False), max_tenant_bytes=100)
    ledger.mark_deleted(TrainingSetKey("a", "ts-1"))
    ledger.add(NewTrainingSet("a", "ts-2", "", 100, keep_photos=False), max_tenant_bytes=100)


def test_of_a_killed_upload_nothing_is_kept_and_the_same_upload_may_come_again(database: Database) -> None:
    clock = Clock()
    ledger = TrainingSetLedger(database, clock)

    def chosen() -> set[str]:
        return {key.training_set_id for key in ledger.choose_for_deletion(unused_seconds=UNUSED_SECONDS)}

    for name in ("ts-whole", "ts-half"):
        ledger.add(NewTrainingSet("default", name, f"upload-{name}", 10, keep_photos=True, is_stored=False))
    ledger.mark_stored("default", "ts-whole")
    assert chosen() == set()
    clock.time += timedelta(seconds=UNUSED_SECONDS + 1)
    assert chosen() == {"ts-half"}, "its trainer died before all was stored"

    ledger.add(NewTrainingSet("default", "ts-failed", "upload-again", 10, keep_photos=True, is_stored=False))
    ledger.give_up("default", "ts-failed")
    assert chosen() == {"ts-half", "ts-failed"}
    assert ledger.find_upload("default", "upload-again") is None
    ledger.add(NewTrainingSet("default", "ts-again", "upload-again", 10, keep_photos=True, is_stored=False))
