"""Training sets over their lifetime: resumed uploads, masks to look at and to replace, deletion after the jobs."""

import io
from collections.abc import Callable, Iterable

import grpc
import pytest
from PIL import Image, ImageDraw, ImageFilter

from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import Request, cut_out, encoded, file, header, mask, photo, stream, three_photos

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
UPLOAD_ID = "0123456789abcdef"


def upload(trainer: RunningTrainer, **fields: object) -> str:
    return trainer.stub.UploadTrainingSet(three_photos(**fields), timeout=60).training_set.training_set_id


def kept_keys(trainer: RunningTrainer, training_set_id: str) -> list[str]:
    prefix = f"training_sets/default/{training_set_id}/"
    return [info.key for info in FolderStore(trainer.store_folder).list(prefix)]


def mug(position: int, background: tuple[int, int, int]) -> Image.Image:
    """A photo of a red disc with a handle."""
    picture = Image.new("RGB", (128, 128), background)
    pen = ImageDraw.Draw(picture)
    for x in range(0, 128, 8):
        pen.line((x, 0, x, 128), fill=tuple(max(0, value - 20) for value in background))
    pen.ellipse((20 + position, 30, 90 + position, 100), fill=(200, 30, 20))
    pen.rectangle((85 + position, 50, 100 + position, 70), fill=(120, 10, 10))
    return picture


def broken_upload(trainer: RunningTrainer, parts: Iterable[Request], spooled_bytes: int) -> None:
    """Send parts and break off when the trainer has them."""
    folder = trainer.folder / "work" / "uploads"

    def all_parts() -> Iterable[Request]:
        yield from parts
        eventually(lambda: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) >= spooled_bytes)
        call.cancel()

    call = trainer.stub.UploadTrainingSet.future(all_parts(), timeout=60)
    with pytest.raises(grpc.FutureCancelledError):
        call.result()


def test_an_upload_goes_on_where_it_broke_off(trainer: RunningTrainer) -> None:
    photos = [encoded(photo(seed, (256, 256)).effect_spread(40)) for seed in range(3)]
    first, second, third = (file(data, index, chunk_bytes=8_192) for index, data in enumerate(photos))
    sent = [header(upload_id=UPLOAD_ID, file_count=3), *first, *second[:3]]
    broken_upload(trainer, sent, len(photos[0]) + 2 * 8_192)
    request = trainer_pb2.GetUploadRequest(upload_id=UPLOAD_ID)
    progress = trainer.stub.GetUpload(request)
    assert [(each.photo_index, each.received_bytes) for each in progress.files] == [
        (0, len(photos[0])),
        (1, 2 * 8_192),
    ]
    first[0].file.offset_bytes = len(photos[0])
    second[0].file.offset_bytes = 2 * 8_192
    rest = stream(header(upload_id=UPLOAD_ID, file_count=3), first[:1], [second[0], *second[3:]], third)
    training_set = trainer.stub.UploadTrainingSet(rest, timeout=60).training_set
    assert len(training_set.photos) == 3
    assert trainer.stub.GetUpload(request).training_set == training_set
    again = stream(header(upload_id=UPLOAD_ID, file_count=3), *(file(data, index) for index, data in enumerate(photos)))
    assert trainer.stub.UploadTrainingSet(again, timeout=60).training_set == training_set, "never two sets"


def test_bytes_that_were_never_sent_are_not_taken_up(trainer: RunningTrainer) -> None:
    data = encoded(photo(5))
    parts = file(data, offset_bytes=100)
    refused = refusal(
        lambda: trainer.stub.UploadTrainingSet(
            stream(header(upload_id="fedcba9876543210", file_count=1), parts), timeout=60
        )
    )
    assert refused.fields == ("files[0].offset_bytes",)
    refused = refusal(lambda: trainer.stub.UploadTrainingSet(stream(header(), parts), timeout=60))
    assert refused.fields == ("files[0].offset_bytes",)
    refused = refusal(lambda: trainer.stub.GetUpload(trainer_pb2.GetUploadRequest(upload_id="../../x")))
    assert refused.fields == ("upload_id",)
    named = stream(header(upload_id="My_upload-of-today", file_count=1), file(data))
    refused = refusal(lambda: trainer.stub.UploadTrainingSet(named, timeout=60))
    assert refused.fields == ("header.upload_id",)
    assert (
        "must be 16 to 64 of a-z, 0-9 and hyphens, got 'My_upload-of-today', where 'M' is not allowed"
        in refused.sentence
    )


def test_photos_are_deleted_when_their_last_job_has_ended(trainer: RunningTrainer) -> None:
    training_set_id = upload(trainer, keep_photos=False)
    first = trainer.submit(training_set_id, "waits-private")
    second = trainer.submit(training_set_id, "diverges-private")
    trainer.ended(second.job_id)
    assert kept_keys(trainer, training_set_id), "another job uses them"
    trainer.go("waits-private")
    assert trainer.ended(first.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    eventually(lambda: not kept_keys(trainer, training_set_id))
    refused = refusal(lambda: trainer.submit(training_set_id, "ok-late"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TRAINING_SET_NOT_FOUND")
    assert "unless keep_photos" in refused.sentence


def test_photos_of_a_job_cancelled_in_the_queue_are_deleted(trainer: RunningTrainer) -> None:
    blockers = [trainer.submit(upload(trainer), f"waits-blocker-{number}") for number in range(2)]
    for number in range(2):
        trainer.worker_pid(f"waits-blocker-{number}")
    training_set_id = upload(trainer, keep_photos=False)
    job = trainer.submit(training_set_id, "ok-queued")
    cancelled = trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id)).job
    assert cancelled.state == trainer_pb2.JOB_STATE_CANCELLED
    eventually(lambda: not kept_keys(trainer, training_set_id))
    for number, blocker in enumerate(blockers):
        trainer.go(f"waits-blocker-{number}")
        trainer.ended(blocker.job_id)


def test_kept_photos_stay_until_they_are_deleted(trainer: RunningTrainer) -> None:
    training_set_id = upload(trainer, keep_photos=True)
    assert trainer.ended(trainer.submit(training_set_id, "ok-kept").job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    running = trainer.submit(training_set_id, "waits-kept")
    request = trainer_pb2.DeleteTrainingSetRequest(training_set_id=training_set_id)
    refused = refusal(lambda: trainer.stub.DeleteTrainingSet(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TRAINING_SET_IN_USE")
    trainer.go("waits-kept")
    trainer.ended(running.job_id)
    assert trainer.stub.GetTrainingSet(
        trainer_pb2.GetTrainingSetRequest(training_set_id=training_set_id)
    ).training_set.keep_photos
    before = kept_keys(trainer, training_set_id)
    assert sorted(trainer.stub.DeleteTrainingSet(request).deleted_keys) == before
    assert kept_keys(trainer, training_set_id) == []
    assert refusal(lambda: trainer.stub.DeleteTrainingSet(request)).code is grpc.StatusCode.NOT_FOUND


def test_deleting_a_concept_deletes_what_its_job_left(trainer: RunningTrainer) -> None:
    job = trainer.ended(trainer.submit(upload(trainer), "ok-forgotten").job_id)
    store = FolderStore(trainer.store_folder)
    left = [info.key for info in store.list(f"jobs/default/{job.job_id}/")]
    assert any("preview" in key for key in left)
    deleted = trainer.stub.DeleteConcept(
        trainer_pb2.DeleteConceptRequest(reference={"name": "ok-forgotten"})  # type: ignore[arg-type]
    )
    assert set(left) <= set(deleted.deleted_keys)
    assert list(store.list(f"jobs/default/{job.job_id}/")) == []
    assert list(store.list("concepts/default/ok-forgotten/")) == []


def test_masks_are_shown_and_replaced(trainer: RunningTrainer) -> None:
    parts = stream(header(), file(encoded(photo(1))), file(encoded(cut_out(2)), 1))
    before = trainer.stub.UploadTrainingSet(parts, timeout=60).training_set

    def shown(index: int) -> trainer_pb2.GetMaskResponse:
        request = trainer_pb2.GetMaskRequest(training_set_id=before.training_set_id, photo_index=index)
        return trainer.stub.GetMask(request)

    assert (shown(0).mask_png, shown(0).photo.mask_source) == (b"", trainer_pb2.MASK_SOURCE_SEGMENTER)
    assert Image.open(io.BytesIO(shown(1).mask_png)).tobytes() == mask(share=0.5).tobytes()
    assert Image.open(io.BytesIO(shown(1).preview_png)).size == (48, 40)
    for index, share in ((0, 0.75), (1, 0.25), (1, 0.1)):
        request = trainer_pb2.ReplaceMaskRequest(
            training_set_id=before.training_set_id, photo_index=index, mask=encoded(mask(share=share))
        )
        after = trainer.stub.ReplaceMask(request).training_set
        assert after.photos[index].mask_source == trainer_pb2.MASK_SOURCE_UPLOADED
        assert after.photos[index].mask_share == pytest.approx(share, abs=0.02)
        assert Image.open(io.BytesIO(shown(index).mask_png)).tobytes() == mask(share=share).tobytes()
    assert after.digest != before.digest
    names = {key.rpartition("/")[2].partition("_")[0] for key in kept_keys(trainer, before.training_set_id)}
    assert names == {"photo", "mask", "set.json"}
    assert len(kept_keys(trainer, before.training_set_id)) == 5, "replaced masks are gone"
    assert trainer.ended(trainer.submit(before.training_set_id, "ok-masks").job_id).concept.name == "ok-masks"
    wrong = trainer_pb2.ReplaceMaskRequest(
        training_set_id=before.training_set_id, photo_index=0, mask=encoded(mask((64, 64)))
    )
    assert refusal(lambda: trainer.stub.ReplaceMask(wrong)).fields == ("mask",)
    wrong.photo_index = 2
    assert refusal(lambda: trainer.stub.ReplaceMask(wrong)).fields == ("photo_index",)


def test_the_segmenter_finds_masks_when_photos_arrive(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(segmenter="color_contrast")
    grey, blue = (200, 200, 205), (90, 140, 220)
    pictures = [mug(0, grey), mug(8, grey), mug(16, grey).filter(ImageFilter.GaussianBlur(9))]
    parts = stream(header(), *(file(encoded(picture), index) for index, picture in enumerate(pictures)))
    training_set = trainer.stub.UploadTrainingSet(parts, timeout=60).training_set
    assert {each.mask_source for each in training_set.photos} == {trainer_pb2.MASK_SOURCE_SEGMENTER}
    for each in training_set.photos[:2]:
        assert each.mask_share == pytest.approx(0.25, abs=0.08)
    warnings = " ".join(training_set.warnings)
    assert "These three photos share one background; add another for a cleaner result." in warnings
    assert "Photo 2 (2.png) is blurred" in warnings
    assert "Photo 0 (0.png) is blurred" not in warnings
    assert "Photos 0 (0.png), 1 (1.png), 2 (2.png) had no mask: the segmenter has found a subject" in warnings
    other = stream(header(), file(encoded(mug(0, grey))), file(encoded(mug(8, blue)), 1))
    assert "share one background" not in " ".join(
        trainer.stub.UploadTrainingSet(other, timeout=60).training_set.warnings
    )


def test_near_duplicates_are_told(trainer: RunningTrainer) -> None:
    picture = photo(7, (256, 256))
    parts = stream(
        header(),
        file(encoded(picture)),
        file(encoded(picture.resize((200, 200)), "JPEG", quality=60), 1),
        file(encoded(photo(8, (256, 256))), 2),
    )
    warnings = trainer.stub.UploadTrainingSet(parts, timeout=60).training_set.warnings
    assert [each for each in warnings if "nearly identical" in each] == [
        "Photos 0 (0.png) and 1 (1.png) are nearly identical; one from another side would help more."
    ]
