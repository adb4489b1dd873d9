import threading
from collections import deque
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from detex_client import (
    DetexClientError,
    Job,
    JobEndedError,
    JobPreview,
    JobProgress,
    JobState,
    Method,
    Tls,
    TrainerClient,
    TrainingEvent,
    TrainingPhoto,
    TrainingSet,
    UploadProgress,
    find_training_photos,
)
from detex_client.upload import CHUNK_BYTES
from detex_core.errors import InvalidInputError, UnavailableError, Violation
from detex_protos.v1 import trainer_pb2
from tests.client.conftest import Scripted
from tests.client.scripted_services import VERSION, progress


def test_upload_sends_files_with_hashes_in_order(
    scripted: Scripted, trainer_client: TrainerClient, photos: Path
) -> None:
    large = bytes(range(256)) * 10_000  # several chunks
    (photos / "photo_2.png").write_bytes(large)
    told: list[UploadProgress] = []
    found = find_training_photos([photos], captions=["", "lying", ""])
    training_set = trainer_client.upload(found, class_word="mug", on_progress=told.append)

    photo, mask = trainer_pb2.FILE_KIND_PHOTO, trainer_pb2.FILE_KIND_MASK
    assert [file[:4] for file in scripted.trainer.files] == [
        (photo, 0, "photo_0.png", ""),
        (mask, 0, "mask_0.png", ""),
        (photo, 1, "photo_1.png", "lying"),
        (mask, 1, "mask_1.png", ""),
        (photo, 2, "photo_2.png", ""),
    ]
    assert scripted.trainer.files[-1][4] == large
    assert scripted.trainer.largest_chunk == CHUNK_BYTES <= 1024 * 1024
    assert told[-1].sent_bytes == told[-1].total_bytes == sum(path.stat().st_size for path in photos.iterdir())
    assert training_set.class_word == "mug"
    assert training_set.warnings == ("Photo 0 is small.",)
    assert len(training_set.photos) == 3
    assert scripted.trainer.tenants == ["acme"]


def test_upload_comes_through_a_short_absence(scripted: Scripted, trainer_client: TrainerClient, photos: Path) -> None:
    scripted.trainer.failures.append(UnavailableError("The object store does not answer."))
    trainer_client.upload(find_training_photos([photos]), class_word="mug")
    assert len(scripted.trainer.files) == 5


def test_upload_goes_on_where_it_broke_off(
    scripted: Scripted, trainer_client: TrainerClient, photos: Path, tmp_path: Path
) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(bytes([index]) * 600_000)
    scripted.trainer.chunks_before_breaking = 4
    seen: list[int] = []
    trainer_client.upload(
        [TrainingPhoto(tmp_path / f"{index}.png") for index in range(3)],
        class_word="mug",
        on_progress=lambda progress: seen.append(progress.sent_bytes),
    )
    assert [content for *_, content in scripted.trainer.files] == [bytes([index]) * 600_000 for index in range(3)]
    assert seen[-1] == 1_800_000


def test_file_that_vanishes_is_named(trainer_client: TrainerClient, photos: Path) -> None:
    def vanish(_: UploadProgress) -> None:
        (photos / "photo_2.png").unlink(missing_ok=True)

    with pytest.raises(DetexClientError, match=r"photo_2\.png") as raised:
        trainer_client.upload(find_training_photos([photos]), class_word="mug", on_progress=vanish)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    trainer_client.upload(find_training_photos([photos]), class_word="mug")  # the channel is as good as new


def test_train_gives_the_concept_and_tells_all_news(
    scripted: Scripted, trainer_client: TrainerClient, photos: Path
) -> None:
    preview = trainer_pb2.JobPreview(step=2, prompt="[my-mug]", png=b"png")
    scripted.trainer.news = deque([progress(1), preview, progress(4), "end"])
    told: list[TrainingEvent] = []
    concept = trainer_client.train(
        photos,
        class_word="mug",
        name="my-mug",
        method=Method.CUSTOM_DIFFUSION,
        attributes=["pose"],
        on_progress=told.append,
        steps=4,
        seed=7,
    )
    assert (concept.name, concept.version) == ("my-mug", VERSION)
    assert concept.word == "[my-mug]"
    assert concept.attribute_word("pose", 1) == "[my-mug:pose:1]"
    kinds = [type(event) for event in told if not isinstance(event, UploadProgress)]
    assert kinds == [TrainingSet, Job, JobProgress, JobPreview, JobProgress, Job]
    assert isinstance(told[0], UploadProgress)
    news = [event for event in told if isinstance(event, JobProgress)]
    assert (news[0].step, news[0].total_steps, news[0].time_left_seconds) == (1, 4, 0.375)
    job = scripted.trainer.jobs["job-0"]
    assert (job.hyperparameters.steps, job.hyperparameters.seed, list(job.attributes)) == (4, 7, ["pose"])
    assert Job.from_wire(job).method is Method.CUSTOM_DIFFUSION


def test_train_raises_why_the_job_failed(scripted: Scripted, trainer_client: TrainerClient, photos: Path) -> None:
    failure = trainer_pb2.JobFailure(reason="DIVERGED", message="The loss is not a number.")
    scripted.trainer.news = deque([progress(1), failure])
    with pytest.raises(JobEndedError, match="The loss is not a number") as raised:
        trainer_client.train(photos, class_word="mug", name="my-mug")
    assert raised.value.reason == "DIVERGED"
    assert raised.value.job.state is JobState.FAILED


def test_names_are_checked_before_anything_is_sent(
    scripted: Scripted, trainer_client: TrainerClient, photos: Path
) -> None:
    with pytest.raises(DetexClientError, match="concept_name") as raised:
        trainer_client.train(photos, class_word="mug", name="My Mug")
    assert raised.value.violations[0].field == "concept_name"
    assert scripted.trainer.tenants == []


def test_unknown_hyperparameter_is_refused_by_name(trainer_client: TrainerClient) -> None:
    with pytest.raises(DetexClientError, match=r"must be one of steps, batch_size, .*, got stepps"):
        trainer_client.submit("set-1", name="my-mug", stepps=3)  # type: ignore[call-arg]
    with pytest.raises(DetexClientError, match=r"hyperparameters\.steps: must be a non-negative whole number, got -1"):
        trainer_client.submit("set-1", name="my-mug", steps=-1)


def test_watch_goes_on_after_lost_connections(scripted: Scripted, trainer_client: TrainerClient) -> None:
    preview = trainer_pb2.JobPreview(step=1, png=b"png")
    lost = UnavailableError("The trainer ends.")
    job_id = trainer_client.submit("set-1", name="my-mug").job_id
    scripted.trainer.news = deque([progress(1), preview, lost, preview, progress(2), lost, progress(4), "end"])
    events = list(trainer_client.watch(job_id))
    assert [event.step for event in events if isinstance(event, JobProgress)] == [1, 2, 4]
    assert len([event for event in events if isinstance(event, JobPreview)]) == 1
    assert isinstance(events[-1], Job)
    assert events[-1].state is JobState.SUCCEEDED


def test_watch_of_an_unknown_job_fails_at_once(trainer_client: TrainerClient) -> None:
    with pytest.raises(DetexClientError, match="There is no job nope") as raised:
        list(trainer_client.watch("nope"))
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


def test_repeated_submission_keeps_its_idempotency_key(scripted: Scripted, trainer_client: TrainerClient) -> None:
    scripted.trainer.failures.append(UnavailableError("The database does not answer."))
    trainer_client.submit("set-1", name="my-mug")
    keys = scripted.trainer.idempotency_keys
    assert len(keys) == 2
    assert keys[0] == keys[1] != ""
    trainer_client.submit("set-1", name="my-mug")
    assert scripted.trainer.idempotency_keys[-1] != keys[0]


def test_deletion_is_not_repeated(scripted: Scripted, trainer_client: TrainerClient) -> None:
    scripted.trainer.add_concept("my-mug")
    scripted.trainer.failures.append(UnavailableError("The object store does not answer.", retry_delay_seconds=1.5))
    with pytest.raises(DetexClientError) as raised:
        trainer_client.delete_concept("my-mug")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.retry_delay_seconds == 1.5
    assert trainer_client.delete_concept("my-mug").references[0].version == VERSION


def test_all_violations_come_through(scripted: Scripted, trainer_client: TrainerClient) -> None:
    scripted.trainer.failures.append(
        InvalidInputError(Violation("class_word", "''", "1 or 2 words"), Violation("photos", "0", "2 to 64"))
    )
    with pytest.raises(DetexClientError) as raised:
        trainer_client.job("job-0")
    assert [(each.field, each.description) for each in raised.value.violations] == [
        ("class_word", "Must be 1 or 2 words, got ''."),
        ("photos", "Must be 2 to 64, got 0."),
    ]
    assert raised.value.reason == "INVALID_INPUT"


def test_defects_of_a_service_keep_their_secrets(scripted: Scripted, trainer_client: TrainerClient) -> None:
    scripted.trainer.failures.append(RuntimeError("password 1234"))
    with pytest.raises(DetexClientError) as raised:
        trainer_client.job("job-0")
    assert raised.value.code is grpc.StatusCode.INTERNAL
    assert "1234" not in str(raised.value)


def test_lists_run_over_all_pages(scripted: Scripted, trainer_client: TrainerClient) -> None:
    for _ in range(5):
        trainer_client.submit("set-1", name="my-mug")
    scripted.trainer.jobs["job-3"].state = trainer_pb2.JOB_STATE_RUNNING
    assert [job.job_id for job in trainer_client.jobs()] == [f"job-{index}" for index in range(5)]
    assert [job.job_id for job in trainer_client.jobs(states=[JobState.RUNNING])] == ["job-3"]


def test_deadline_ends_a_call_that_is_not_answered(scripted: Scripted) -> None:
    with (
        TrainerClient(scripted.trainer_address, timeout_seconds=0.2) as client,
        pytest.raises(DetexClientError, match="did not answer in time") as raised,
    ):
        client.base_models()
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_nobody_there_is_said_with_the_address() -> None:
    with (
        TrainerClient("127.0.0.1:1", timeout_seconds=10) as client,
        pytest.raises(DetexClientError, match=r"trainer at 127\.0\.0\.1:1 does not answer \(.*refused") as raised,
    ):
        client.job("job-0")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_proxy_on_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("grpc_proxy", "http://user:secret@127.0.0.1:1")
    with (
        TrainerClient("trainer.invalid:50051", timeout_seconds=10) as client,
        pytest.raises(
            DetexClientError, match=r"trainer\.invalid:50051 through the proxy of grpc_proxy does not"
        ) as raised,
    ):
        client.job("job-0")
    assert "secret" not in raised.value.message


def test_health_is_awaited(scripted: Scripted) -> None:
    with TrainerClient(scripted.trainer_address) as client:
        client.wait_until_serving(10)
        assert client.serving()
    with (
        TrainerClient("127.0.0.1:1") as client,
        pytest.raises(DetexClientError, match="was not ready within 0 seconds"),
    ):
        client.wait_until_serving(0.2)


def test_clients_serve_several_threads(scripted: Scripted, trainer_client: TrainerClient) -> None:
    for _ in range(4):
        trainer_client.submit("set-1", name="my-mug")
    with futures.ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda index: trainer_client.job(f"job-{index % 4}").job_id, range(64)))
    assert jobs == [f"job-{index % 4}" for index in range(64)]
    assert threading.active_count() < 40


def test_tls_trusts_the_given_authority_alone(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    key, chain = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
        address = f"localhost:{port}"
        with TrainerClient(address, tls=Tls(tmp_path / "authority.pem")) as client:
            assert client.serving(10)
        with TrainerClient(address, tls=Tls(tmp_path / "stranger.pem")) as client:
            assert not client.serving(2)
        with TrainerClient(address) as client:
            assert not client.serving(2)
    finally:
        server.stop(None)


def test_unreadable_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(DetexClientError, match=r"tls\.root_certificates"):
            TrainerClient("localhost:1", tls=Tls(path))
    with pytest.raises(DetexClientError, match=r"tls\.client_certificate"):
        TrainerClient("localhost:1", tls=Tls(client_key=tmp_path / "empty.pem"))
