"""Photos in, pictures out, through the real trainer and the real generator."""

import io
import json
import time
from collections.abc import Callable

import grpc
import pytest
from PIL import Image

from detex_client import (
    DetexClientError,
    Job,
    JobProgress,
    JobState,
    MaskSource,
    Solver,
    TrainingEvent,
    TrainingSet,
    UploadProgress,
    find_training_photos,
)
from detex_showroom import sample_subjects
from tests.e2e.conftest import Services

SUBJECT = sample_subjects()[0]
PHOTOS = [photo.image_path for photo in SUBJECT.photos]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("main_job")]


def test_photos_become_a_concept_and_the_concept_pictures(services: Services) -> None:
    trainer, generator = services.trainer, services.generator
    told: list[TrainingEvent] = []
    concept = trainer.train(
        PHOTOS, class_word=SUBJECT.class_word, name="first", on_progress=told.append, steps=2, seed=1
    )

    assert isinstance(told[0], UploadProgress)
    training_set = next(event for event in told if isinstance(event, TrainingSet))
    assert [photo.mask_source for photo in training_set.photos] == [MaskSource.UPLOADED] * len(PHOTOS)
    assert max(event.step for event in told if isinstance(event, JobProgress)) == 2
    job = told[-1]
    assert isinstance(job, Job)
    assert job.state is JobState.SUCCEEDED
    assert job.hyperparameters["steps"] == 2
    published = trainer.concept("first")
    assert published.reference == concept
    assert {(each.name, each.count) for each in published.attributes} == {("pose", 4), ("background", 4)}
    assert [found.reference for found in trainer.concepts()] == [concept]
    report = trainer.concept_report("first")
    assert report.reference == concept
    assert report.verdict.value in json.loads(report.report_json)["verdict"]
    assert report.summary == json.loads(report.report_json)["summary"]
    assert report.choice == "The published state is the one after all 2 steps."
    assert Image.open(io.BytesIO(report.report_png)).format == "PNG"

    prompt = f"a photo of a {concept.word} with {concept.attribute_word('pose', 1)} on a beach"
    options = {"seed": 3, "steps": 2, "solver": Solver.DDIM}
    pictures = generator.generate(prompt, count=2, **options)  # type: ignore[arg-type]
    assert [picture.seed for picture in pictures] == [3, 4]
    assert pictures[0].image().size == (16, 16)
    provenance = pictures[0].provenance
    assert provenance.concepts[0].reference == concept
    assert provenance.concepts[0].manifest_sha256 == published.manifest_sha256
    assert provenance.base_model_fingerprint == published.base_model_fingerprint
    assert json.loads(pictures[0].image().text["detex"])["prompt"] == prompt  # type: ignore[attr-defined]
    # The concept changes the picture, and the seed alone decides the rest.
    again, plain = generator.generate(prompt, **options), generator.generate("a photo of a vase", **options)  # type: ignore[arg-type]
    assert again[0].png == pictures[0].png
    assert plain[0].image().tobytes() != pictures[0].image().tobytes()
    assert generator.resident_concepts()[0].reference == concept

    deleted = trainer.delete_concept("first")
    assert deleted.references == (concept,)
    assert status_of(lambda: trainer.concept("first")) is grpc.StatusCode.NOT_FOUND
    eventually(lambda: status_of(lambda: generator.generate(prompt, steps=1)) is grpc.StatusCode.NOT_FOUND)
    assert trainer.serving()
    assert generator.serving()


def test_running_job_is_cancelled(services: Services) -> None:
    trainer = services.trainer
    training_set = trainer.upload(find_training_photos(PHOTOS), class_word=SUBJECT.class_word)
    job = trainer.submit(training_set.training_set_id, name="endless", steps=20_000)
    for event in trainer.watch(job.job_id):
        if isinstance(event, JobProgress) and event.step > 0:
            trainer.cancel(job.job_id)
            break
    assert trainer.wait(job.job_id).state is JobState.CANCELLED
    assert status_of(lambda: trainer.concept("endless")) is grpc.StatusCode.NOT_FOUND
    assert trainer.cancel(job.job_id).state is JobState.CANCELLED
    assert [each.job_id for each in trainer.jobs(states=[JobState.CANCELLED])] == [job.job_id]
    assert trainer.serving()


def test_bad_input_is_refused_with_its_field(services: Services) -> None:
    trainer, generator = services.trainer, services.generator
    training_set = trainer.upload(find_training_photos(PHOTOS), class_word=SUBJECT.class_word)
    single = trainer.upload(find_training_photos(PHOTOS[:1]), class_word=SUBJECT.class_word)
    cases: dict[str, Callable[[], object]] = {
        "steps": lambda: trainer.submit(training_set.training_set_id, name="a", steps=0),
        "base_model": lambda: trainer.submit(training_set.training_set_id, name="a", base_model="other"),
        "training_set_id": lambda: trainer.submit(single.training_set_id, name="a"),
        "class_word": lambda: trainer.upload(find_training_photos(PHOTOS), class_word=""),
        "prompt": lambda: generator.generate(""),
        "guidance_scale": lambda: generator.generate("a mug", guidance_scale=float("nan")),
        "count": lambda: generator.generate("a mug", count=65),
    }
    for field, call in cases.items():
        with pytest.raises(DetexClientError) as raised:
            call()
        assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT, field
        assert field in raised.value.violations[0].field
    assert status_of(lambda: generator.generate("[nobody]")) is grpc.StatusCode.NOT_FOUND
    assert status_of(lambda: trainer.submit("no-such-set", name="a")) is grpc.StatusCode.NOT_FOUND
    assert trainer.serving()
    assert generator.serving()


def test_tenants_do_not_see_each_other(services: Services) -> None:
    from detex_client import TrainerClient

    with TrainerClient(services.trainer_service.address, "stranger") as stranger:
        assert list(stranger.jobs()) == []
        assert list(stranger.concepts()) == []


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    """How a call ends."""
    try:
        call()
    except DetexClientError as error:
        return error.code
    return grpc.StatusCode.OK


def eventually(condition: Callable[[], bool]) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
