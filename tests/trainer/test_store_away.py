"""A store that is away, as a folder that is not mounted: what waits goes on waiting, what is to go goes later."""

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from detex_core.object_store import FolderStore
from detex_protos.v1 import common_pb2, trainer_pb2
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import encoded, file, header, mask, photo, stream

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
SUCCEEDED, QUEUED = trainer_pb2.JOB_STATE_SUCCEEDED, trainer_pb2.JOB_STATE_QUEUED


def upload(trainer: RunningTrainer, *, keep_photos: bool = False) -> str:
    parts = stream(header(keep_photos=keep_photos), file(encoded(photo(1))), file(encoded(photo(2)), 1))
    return trainer.stub.UploadTrainingSet(parts, timeout=30).training_set.training_set_id


def unmount(trainer: RunningTrainer) -> None:
    trainer.store_folder.rename(trainer.store_folder.with_name("away"))


def mount(trainer: RunningTrainer) -> None:
    shutil.rmtree(trainer.store_folder, ignore_errors=True)
    trainer.store_folder.with_name("away").rename(trainer.store_folder)


def is_ready(trainer: RunningTrainer) -> bool:
    try:
        with urllib.request.urlopen(f"http://{trainer.metrics_address}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def photos_of(trainer: RunningTrainer, training_set_id: str) -> list[str]:
    prefix = f"training_sets/default/{training_set_id}/"
    return [each.key for each in FolderStore(trainer.store_folder).list(prefix)]


def test_jobs_wait_for_a_store_that_is_away_and_photos_that_were_to_go_go_when_it_is_back(
    start_trainer: StartTrainer,
) -> None:
    trainer = start_trainer(worker_count=1, max_outages=1, readiness_interval_seconds=0.1)
    busy = trainer.submit(upload(trainer), "waits-busy")
    trainer.worker_pid("waits-busy")
    private = upload(trainer)
    unwanted = trainer.submit(private, "ok-unwanted")
    waiting = [trainer.submit(upload(trainer), f"ok-{number}") for number in range(3)]
    unmount(trainer)
    assert trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=unwanted.job_id)).job.state == (
        trainer_pb2.JOB_STATE_CANCELLED
    )
    trainer.go("waits-busy")  # it cannot publish
    eventually(lambda: any("no job begins" in line for line in trainer.log))
    eventually(lambda: trainer.job(busy.job_id).state == QUEUED)
    eventually(lambda: not is_ready(trainer))
    questions: dict[str, Callable[[], object]] = {
        "UploadTrainingSet": lambda: upload(trainer),
        "GetTrainingSet": lambda: trainer.stub.GetTrainingSet(
            trainer_pb2.GetTrainingSetRequest(training_set_id=private)
        ),
        "GetMask": lambda: trainer.stub.GetMask(trainer_pb2.GetMaskRequest(training_set_id=private)),
        "ReplaceMask": lambda: trainer.stub.ReplaceMask(
            trainer_pb2.ReplaceMaskRequest(training_set_id=private, mask=encoded(mask()))
        ),
        "DeleteTrainingSet": lambda: trainer.stub.DeleteTrainingSet(
            trainer_pb2.DeleteTrainingSetRequest(training_set_id=private)
        ),
        "SubmitJob": lambda: trainer.submit(private, "ok-late"),
        "ListConcepts": lambda: trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest()),
        "GetConcept": lambda: trainer.stub.GetConcept(
            trainer_pb2.GetConceptRequest(reference=common_pb2.ConceptReference(name="any"))
        ),
        "DeleteConcept": lambda: trainer.stub.DeleteConcept(
            trainer_pb2.DeleteConceptRequest(reference=common_pb2.ConceptReference(name="any"))
        ),
    }
    for name, ask in questions.items():
        refused = refusal(ask)
        assert (name, refused.code, refused.reason) == (name, grpc.StatusCode.UNAVAILABLE, "STORE_ABSENT")
    assert [trainer.job(job.job_id).state for job in waiting] == [QUEUED] * 3
    assert not trainer.store_folder.exists()

    mount(trainer)
    for job in (busy, *waiting):
        ended = trainer.ended(job.job_id)
        assert (ended.state, ended.failure.reason) == (SUCCEEDED, "")
    eventually(lambda: photos_of(trainer, private) == [])
    eventually(lambda: is_ready(trainer))


def test_a_trainer_that_starts_while_its_store_is_away_makes_no_other(start_trainer: StartTrainer) -> None:
    first = start_trainer()
    training_set_id = upload(first, keep_photos=True)
    assert first.terminate() == 0
    unmount(first)
    second = start_trainer(readiness_interval_seconds=0.1)
    assert not is_ready(second)
    refused = refusal(lambda: second.submit(training_set_id, "ok-early"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_ABSENT")
    assert not second.store_folder.exists()
    FolderStore(second.store_folder)  # somebody else's
    refused = refusal(lambda: second.submit(training_set_id, "ok-early"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "OTHER_STORE")
    assert "detex-trainer adopt-store" in refused.sentence
    mount(second)
    eventually(lambda: is_ready(second))
    assert second.ended(second.submit(training_set_id, "ok-back").job_id).state == SUCCEEDED


def test_a_store_that_is_lost_for_good_is_given_up_by_a_command(
    start_trainer: StartTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_trainer()
    upload(first)
    assert first.terminate() == 0
    shutil.rmtree(first.store_folder)
    monkeypatch.setenv("DETEX_OBJECT_STORE_URL", f"folder://{first.store_folder}")
    monkeypatch.setenv("DETEX_WORK_FOLDER", str(first.folder / "work"))
    subprocess.run([sys.executable, "-m", "detex_trainer", "adopt-store"], check=True, timeout=60)
    second = start_trainer()
    assert second.ended(second.submit(upload(second), "ok-anew").job_id).state == SUCCEEDED


def test_a_set_that_is_noted_as_deleted_and_still_there_is_deleted_when_its_owner_asks(
    start_trainer: StartTrainer,
) -> None:
    trainer = start_trainer(worker_count=1)
    training_set_id = upload(trainer, keep_photos=True)
    backup = trainer.folder / "backup"
    shutil.copytree(trainer.store_folder, backup, symlinks=True)
    request = trainer_pb2.DeleteTrainingSetRequest(training_set_id=training_set_id)
    trainer.stub.DeleteTrainingSet(request)
    assert photos_of(trainer, training_set_id) == []
    shutil.rmtree(trainer.store_folder)
    backup.rename(trainer.store_folder)
    assert len(photos_of(trainer, training_set_id)) >= 3
    assert len(trainer.stub.DeleteTrainingSet(request).deleted_keys) >= 3
    assert photos_of(trainer, training_set_id) == []


def test_an_upload_that_could_not_be_removed_is_removed_later(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(unused_training_set_seconds=86_400)
    large = encoded(photo(size=(1536, 1536)))
    parts = [header(upload_id="0123456789abcdef", file_count=8)]
    for index in range(8):
        parts += file(large, index)

    def begun() -> bool:
        return any(path.name == "photo_0.png" for path in trainer.store_folder.glob("objects/training_sets/*/*/*"))

    with ThreadPoolExecutor(1) as others:
        sent = others.submit(refusal, lambda: trainer.stub.UploadTrainingSet(iter(parts), timeout=60))
        eventually(lambda: begun() or sent.done())
        assert not sent.done(), sent.result()
        unmount(trainer)
        assert sent.result().code is grpc.StatusCode.UNAVAILABLE
    mount(trainer)
    assert _all_photos(trainer)
    eventually(lambda: not _all_photos(trainer))
    again = trainer.stub.UploadTrainingSet(iter(parts), timeout=60).training_set
    assert len(again.photos) == 8


def _all_photos(trainer: RunningTrainer) -> list[str]:
    return [each.key for each in FolderStore(trainer.store_folder).list("training_sets/")]
