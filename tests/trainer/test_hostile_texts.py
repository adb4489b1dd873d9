"""Texts that a database does not take and page tokens that nobody gave out, over SQLite and PostgreSQL."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.jobs import Database, JobClaims, JobFailure, JobRepository
from detex_trainer.jobs.repository import Submission
from tests.servers.postgresql import PostgresServer
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer

NUL = "job-\x000123"
REFERENCE = common_pb2.ConceptReference(name="my-mug", version="2026\x00")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return ""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    monkeypatch.setenv("PGPASSWORD", server.password)
    name = f"texts_{abs(hash(tmp_path)):x}"
    server.create_database(name)
    return server.url(name)


def forged(after: str) -> str:
    query = hashlib.sha256(repr(("default", [], "")).encode()).hexdigest()[:16]
    token = json.dumps({"after": after, "query": query}).encode()
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def test_what_no_database_takes_is_refused_by_name(
    start_trainer: Callable[..., RunningTrainer], database_url: str
) -> None:
    stub = start_trainer(**({"database_url": database_url} if database_url else {})).stub
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: stub.GetJob(trainer_pb2.GetJobRequest(job_id=NUL)), "job_id"),
        (lambda: stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=NUL)), "job_id"),
        (lambda: list(stub.WatchJob(trainer_pb2.WatchJobRequest(job_id=NUL))), "job_id"),
        (lambda: stub.ListJobs(trainer_pb2.ListJobsRequest(concept_name=NUL)), "concept_name"),
        (lambda: stub.ListJobs(trainer_pb2.ListJobsRequest(page_token=NUL)), "page_token"),
        (lambda: stub.SubmitJob(trainer_pb2.SubmitJobRequest(idempotency_key=NUL)), "idempotency_key"),
        (lambda: stub.SubmitJob(trainer_pb2.SubmitJobRequest(attributes=["a", NUL])), "attributes[1]"),
        (lambda: stub.GetUpload(trainer_pb2.GetUploadRequest(upload_id=NUL)), "upload_id"),
        (lambda: stub.GetTrainingSet(trainer_pb2.GetTrainingSetRequest(training_set_id=NUL)), "training_set_id"),
        (lambda: stub.GetMask(trainer_pb2.GetMaskRequest(training_set_id=NUL)), "training_set_id"),
        (lambda: stub.ReplaceMask(trainer_pb2.ReplaceMaskRequest(training_set_id=NUL)), "training_set_id"),
        (lambda: stub.DeleteTrainingSet(trainer_pb2.DeleteTrainingSetRequest(training_set_id=NUL)), "training_set_id"),
        (lambda: stub.GetConcept(trainer_pb2.GetConceptRequest(reference=REFERENCE)), "reference.version"),
        (lambda: stub.DeleteConcept(trainer_pb2.DeleteConceptRequest(reference=REFERENCE)), "reference.version"),
        (lambda: stub.ListConcepts(trainer_pb2.ListConceptsRequest(page_token=NUL)), "page_token"),
    ]
    for call, field in calls:
        refused = refusal(call)
        assert (refused.code, refused.fields, refused.retry_seconds) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            (field,),
            None,
        )
    for after in ("", "x", "-1", "0", "1.5", "1e3", "\u0661", " 1", "9" * 19, "9" * 30, "1" * 600, "\x00"):
        refused = refusal(lambda: stub.ListJobs(trainer_pb2.ListJobsRequest(page_token=forged(after))))  # noqa: B023
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))
    for place in (
        "my-mug/2026",
        "my-mug/20260101T000000Z-01234567/x",
        "../20260101T000000Z-01234567",
        "\x00/\x00",
        "/",
    ):
        token = base64.urlsafe_b64encode(place.encode()).decode()
        refused = refusal(lambda: stub.ListConcepts(trainer_pb2.ListConceptsRequest(page_token=token)))  # noqa: B023
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))
    assert not stub.ListJobs(trainer_pb2.ListJobsRequest(page_token=forged("9223372036854775807"))).jobs


def test_an_error_that_quotes_such_text_ends_its_job(
    tmp_path: Path, database_url: str, make_submission: Callable[..., Submission]
) -> None:
    database = Database(database_url or f"sqlite:///{tmp_path}/jobs.db")
    jobs, claims = JobRepository(database), JobClaims(database, lease_seconds=20)
    jobs.submit(make_submission(), max_queued=9)
    claim = claims.claim("owner")
    assert claim is not None
    assert claims.fail(claim, JobFailure("INVALID_INPUT", "caption: got 'a\x00b'"))
    failure = jobs.get("default", claim.job.job_id).failure
    assert failure is not None
    assert failure.message == "caption: got 'a\ufffdb'"
    database.close()
