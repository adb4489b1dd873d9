"""Jobs and concepts through a running trainer."""

import itertools
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
from google.protobuf.message import Message
from prometheus_client.parser import text_string_to_metric_families

import detex_showroom
from detex_core.object_store import FolderStore
from detex_protos.v1 import common_pb2, trainer_pb2
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer, eventually, is_running
from tests.trainer.uploads import encoded, file, header, photo, stream, three_photos

pytestmark = pytest.mark.slow

StartTrainer = Callable[..., RunningTrainer]
Knobs = trainer_pb2.Hyperparameters


def test_a_job_from_submission_to_concept(trainer: RunningTrainer, training_set_id: str) -> None:
    submitted = trainer.submit(
        training_set_id,
        "waits-mug",
        attributes=["pose", "lighting"],
        hyperparameters=Knobs(steps=30, seed=0, delta_form=trainer_pb2.DELTA_FORM_FULL, mask_floor=0),
    )
    assert submitted.state == trainer_pb2.JOB_STATE_QUEUED
    assert not submitted.HasField("start_time")
    news = trainer.watch(submitted.job_id)
    first = next(news)
    assert first.job.job_id == submitted.job_id
    assert first.job.state in (trainer_pb2.JOB_STATE_QUEUED, trainer_pb2.JOB_STATE_RUNNING)
    seen = list(itertools.takewhile(lambda each: each.progress.step < 1, news))
    trainer.go("waits-mug")
    seen += list(news)

    kinds = [each.WhichOneof("event") for each in seen]
    assert kinds[-1] == "job"
    assert {"progress", "preview"} <= set(kinds)
    (preview,) = (each.preview for each in seen if each.HasField("preview"))
    assert (preview.step, preview.prompt, preview.png[:4]) == (2, "a [waits-mug]", b"\x89PNG")
    steps = [each.progress.step for each in seen if each.HasField("progress")]
    assert steps == sorted(steps)

    job = seen[-1].job
    assert job == trainer.job(job.job_id)
    assert job.state == trainer_pb2.JOB_STATE_SUCCEEDED
    assert job.create_time.ToDatetime() < job.start_time.ToDatetime() < job.end_time.ToDatetime()
    assert (job.method, job.base_model, list(job.attributes)) == (
        common_pb2.METHOD_DETEX,
        "showroom",
        ["pose", "lighting"],
    )
    assert (job.hyperparameters.steps, job.hyperparameters.mask_floor) == (30, 0)
    assert job.hyperparameters.delta_form == trainer_pb2.DELTA_FORM_FULL
    assert all(job.hyperparameters.HasField(field.name) for field in Knobs.DESCRIPTOR.fields), "all knobs are reported"

    concept = trainer.stub.GetConcept(trainer_pb2.GetConceptRequest(reference={"name": "waits-mug"})).concept
    assert concept.reference == job.concept
    assert concept.class_word == "mug"
    assert [(each.name, each.count) for each in concept.attributes] == [("pose", 3), ("lighting", 3)]
    listed = trainer.stub.ListConcepts(trainer_pb2.ListConceptsRequest())
    assert concept in listed.concepts
    deleted = trainer.stub.DeleteConcept(trainer_pb2.DeleteConceptRequest(reference=job.concept))
    assert list(deleted.deleted) == [job.concept]
    assert f"concepts/default/waits-mug/{job.concept.version}/manifest.json" in deleted.deleted_keys
    gone = refusal(lambda: trainer.stub.GetConcept(trainer_pb2.GetConceptRequest(reference=job.concept)))
    assert gone.code is grpc.StatusCode.NOT_FOUND


def test_progress_reaches_those_who_only_look(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.submit(training_set_id, "waits-looked-at")
    eventually(lambda: trainer.job(job.job_id).progress.step == 1)
    progress = trainer.job(job.job_id).progress
    assert (progress.phase, progress.total_steps) == (trainer_pb2.JOB_PHASE_TRAINING, 3)
    assert dict(progress.losses) == {"total": 0.5}, "what is no number is left out"
    assert (progress.steps_per_second, progress.time_left.ToTimedelta().total_seconds()) == (2, 1)
    trainer.go("waits-looked-at")
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_who_watches_an_ended_job_gets_it_once(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.ended(trainer.submit(training_set_id, "ok-done").job_id)
    assert [each.job for each in trainer.watch(job.job_id)] == [job]


def test_who_watches_late_gets_the_last_preview(trainer: RunningTrainer, training_set_id: str) -> None:
    store = FolderStore(trainer.store_folder)
    job = trainer.submit(training_set_id, "waits-late")
    trainer.worker_pid("waits-late")
    assert list(store.list(f"jobs/default/{job.job_id}/")) == []
    trainer.go("waits-late")
    trainer.ended(job.job_id)
    assert [info.key for info in store.list("jobs/") if job.job_id in info.key] == [
        f"jobs/default/{job.job_id}/outcome.json",
        f"jobs/default/{job.job_id}/preview_2.png",
    ]


@pytest.mark.parametrize(
    ("concept_name", "reason", "message"),
    [
        ("diverges", "DIVERGED", "The loss became NaN at step 1; submit the job again with a lower learning rate."),
        ("hungry", "OUT_OF_MEMORY", "Out of memory; submit the job again with a smaller batch_size"),
        ("defect", "INTERNAL", "the service's log has details under incident"),
        (
            "dies",
            "WORKER_DIED",
            "The worker was killed by signal 9 before publishing a concept, in the last of 3 attempts",
        ),
        (
            "exits",
            "WORKER_DIED",
            "The worker ended with status 3 before publishing a concept, in the last of 3 attempts",
        ),
    ],
)
def test_failures(trainer: RunningTrainer, training_set_id: str, concept_name: str, reason: str, message: str) -> None:
    job = trainer.ended(trainer.submit(training_set_id, concept_name).job_id)
    assert (job.state, job.failure.reason) == (trainer_pb2.JOB_STATE_FAILED, reason)
    assert message in job.failure.message
    assert "must not see" not in job.failure.message
    assert not job.HasField("concept")
    attempts = (trainer.meeting_folder / f"{concept_name}.started").read_text().splitlines()
    assert len(attempts) == (3 if reason == "WORKER_DIED" else 1), "only a dead worker is worth another try"


def test_what_a_worker_prints_does_not_disturb(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.ended(trainer.submit(training_set_id, "chatty").job_id)
    assert job.state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_nothing_that_a_worker_started_survives_it(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.ended(trainer.submit(training_set_id, "litters").job_id)
    assert job.state == trainer_pb2.JOB_STATE_SUCCEEDED
    child = int((trainer.meeting_folder / "litters.child").read_text())
    eventually(lambda: not is_running(child))


def cancel(trainer: RunningTrainer, job_id: str) -> trainer_pb2.Job:
    return trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job_id), timeout=30).job


def test_cancelling_a_running_job(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.submit(training_set_id, "waits-cancelled")
    pid = trainer.worker_pid("waits-cancelled")
    assert cancel(trainer, job.job_id).state == trainer_pb2.JOB_STATE_RUNNING
    ended = trainer.ended(job.job_id)
    assert ended.state == trainer_pb2.JOB_STATE_CANCELLED
    assert not ended.HasField("failure")
    assert not is_running(pid)
    assert cancel(trainer, job.job_id) == ended, "what has ended stays as it is"


def test_cancelling_a_queued_job(trainer: RunningTrainer, training_set_id: str) -> None:
    running = [trainer.submit(training_set_id, f"waits-before-{number}") for number in range(2)]
    for number in range(2):
        trainer.worker_pid(f"waits-before-{number}")
    queued = trainer.submit(training_set_id, "ok-never")
    assert cancel(trainer, queued.job_id).state == trainer_pb2.JOB_STATE_CANCELLED
    for number, job in enumerate(running):
        trainer.go(f"waits-before-{number}")
        assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
    assert not (trainer.meeting_folder / "ok-never.started").exists()


def test_a_watcher_may_leave(trainer: RunningTrainer, training_set_id: str) -> None:
    job = trainer.submit(training_set_id, "waits-watched")
    leaving = trainer.watch(job.job_id)
    next(leaving)
    leaving.cancel()  # type: ignore[attr-defined]
    short = trainer.stub.WatchJob(trainer_pb2.WatchJobRequest(job_id=job.job_id), timeout=0.3)
    with pytest.raises(grpc.RpcError) as raised:
        list(short)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    trainer.go("waits-watched")
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


def test_listing(trainer: RunningTrainer, training_set_id: str) -> None:
    metadata = (("detex-tenant", "lister"),)
    other = trainer.stub.UploadTrainingSet(three_photos(), metadata=metadata).training_set.training_set_id
    ids = []
    for number in range(3):
        request = trainer_pb2.SubmitJobRequest(training_set_id=other, concept_name=f"ok-{number}")
        ids.append(trainer.stub.SubmitJob(request, metadata=metadata).job.job_id)

    def page(**query: object) -> trainer_pb2.ListJobsResponse:
        return trainer.stub.ListJobs(trainer_pb2.ListJobsRequest(**query), metadata=metadata)

    first = page(page_size=2)
    second = page(page_size=2, page_token=first.next_page_token)
    assert [job.job_id for job in (*first.jobs, *second.jobs)] == ids[::-1]
    assert second.next_page_token == ""
    assert [job.job_id for job in page(concept_name="ok-1").jobs] == [ids[1]]
    eventually(lambda: len(page(states=[trainer_pb2.JOB_STATE_SUCCEEDED]).jobs) == 3)
    assert not page(states=[trainer_pb2.JOB_STATE_FAILED]).jobs
    assert other not in {job.training_set_id for job in trainer.stub.ListJobs(trainer_pb2.ListJobsRequest()).jobs}


def test_idempotency_keys(trainer: RunningTrainer, training_set_id: str) -> None:
    first = trainer.submit(training_set_id, "ok-once", idempotency_key="once")
    assert trainer.submit(training_set_id, "ok-once", idempotency_key="once").job_id == first.job_id
    refused = refusal(lambda: trainer.submit(training_set_id, "ok-twice", idempotency_key="once"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert first.job_id in refused.sentence
    trainer.ended(first.job_id)


NAMES = "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter"
SUBMISSIONS = {
    "no name": ({"concept_name": ""}, "concept_name", f"concept_name: must be {NAMES}, for example my-mug, got ''"),
    "capitals": ({"concept_name": "My-Mug"}, "concept_name", "got 'My-Mug'"),
    "underscore": (
        {"concept_name": "my_mug"},
        "concept_name",
        f"must be {NAMES}, for example my-mug, got 'my_mug', where '_' is not allowed",
    ),
    "path": ({"concept_name": "../mug"}, "concept_name", "got '../mug'"),
    "steps 0": (
        {"hyperparameters": Knobs(steps=0)},
        "hyperparameters.steps",
        "hyperparameters.steps: must be a whole number from 1 to 20,000, got 0.",
    ),
    "many steps": ({"hyperparameters": Knobs(steps=20_001)}, "hyperparameters.steps", "got 20001"),
    "NaN": (
        {"hyperparameters": Knobs(subject_learning_rate=float("nan"))},
        "hyperparameters.subject_learning_rate",
        "must be a number above 0 and at most 1, got nan",
    ),
    "infinity": (
        {"hyperparameters": Knobs(attention_loss_weight=float("inf"))},
        "hyperparameters.attention_loss_weight",
        "got inf",
    ),
    "resolution": ({"hyperparameters": Knobs(resolution=100)}, "hyperparameters.resolution", "a multiple of 8"),
    "delta form": ({"hyperparameters": Knobs(delta_form=9)}, "hyperparameters.delta_form", "DELTA_FORM_LOW_RANK or"),
    "method": ({"method": 99}, "method", "method: must be one of METHOD_DETEX"),
    "attributes": (
        {"attributes": ["pose"], "method": common_pb2.METHOD_TEXTUAL_INVERSION},
        "attributes",
        "must be empty for the method textual_inversion, got pose",
    ),
    "attribute": (
        {"attributes": ["pose", "Back ground"]},
        "attributes[1]",
        "beginning with a letter, got 'Back ground', where 'B' is not allowed",
    ),
    "NUL in key": (
        {"idempotency_key": "a\0"},
        "idempotency_key",
        "got 'a\\x00', where '\\x00' (U+0000) is not allowed",
    ),
    "attribute twice": ({"attributes": ["pose", "pose"]}, "attributes[1]", "must be unique, got pose again"),
    "many attributes": ({"attributes": list("abcdefghi")}, "attributes", "must be at most 8 words, got 9."),
    "base model": ({"base_model": "sdxl"}, "base_model", "must be one of showroom"),
    "long key": ({"idempotency_key": "k" * 129}, "idempotency_key", "must be at most 128 characters, got 129."),
}


@pytest.mark.parametrize(("fields", "field", "sentence"), SUBMISSIONS.values(), ids=SUBMISSIONS)
def test_bad_submissions(
    trainer: RunningTrainer, training_set_id: str, fields: dict[str, object], field: str, sentence: str
) -> None:
    request = trainer_pb2.SubmitJobRequest(
        **{"training_set_id": training_set_id, "concept_name": "never", **fields}  # type: ignore[arg-type]
    )
    refused = refusal(lambda: trainer.stub.SubmitJob(request))
    assert (refused.code, refused.reason, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_INPUT",
        (field,),
    )
    assert sentence in refused.sentence
    assert not trainer.stub.ListJobs(trainer_pb2.ListJobsRequest(concept_name="never")).jobs


def test_several_wrong_knobs_are_all_named(trainer: RunningTrainer, training_set_id: str) -> None:
    knobs = Knobs(steps=0, batch_size=65)
    refused = refusal(lambda: trainer.submit(training_set_id, "never", hyperparameters=knobs))
    assert refused.fields == ("hyperparameters.steps", "hyperparameters.batch_size")


def test_one_photo_is_too_few_to_tell_attributes_apart(trainer: RunningTrainer) -> None:
    parts = stream(header(), file(encoded(photo())))
    training_set_id = trainer.stub.UploadTrainingSet(parts).training_set.training_set_id
    refused = refusal(lambda: trainer.submit(training_set_id, "never"))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("training_set_id",))
    assert "must be a training set of 2 to 64 photos for METHOD_DETEX, got 1 photo;" in refused.sentence
    job = trainer.submit(training_set_id, "ok-single", method=common_pb2.METHOD_TEXTUAL_INVERSION)
    assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize("training_set_id", ["", "ts-0000000000000000", "../../etc", "x" * 10_000])
def test_an_unknown_training_set(trainer: RunningTrainer, training_set_id: str) -> None:
    refused = refusal(lambda: trainer.submit(training_set_id, "never"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TRAINING_SET_NOT_FOUND")
    assert "training_set_id: there is no training set" in refused.sentence


def test_training_sets_belong_to_tenants(trainer: RunningTrainer, training_set_id: str) -> None:
    request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name="never")
    refused = refusal(lambda: trainer.stub.SubmitJob(request, metadata=(("detex-tenant", "stranger"),)))
    assert refused.code is grpc.StatusCode.NOT_FOUND


QUERIES: dict[str, tuple[str, Message, str, str]] = {
    "page size": ("ListJobs", trainer_pb2.ListJobsRequest(page_size=1_001), "page_size", "got 1001"),
    "page token": ("ListJobs", trainer_pb2.ListJobsRequest(page_token="?"), "page_token", "next_page_token"),
    "state": (
        "ListJobs",
        trainer_pb2.ListJobsRequest(states=[9]),
        "states[0]",
        "must be one of JOB_STATE_QUEUED",
    ),
    "concept page": ("ListConcepts", trainer_pb2.ListConceptsRequest(page_token="?"), "page_token", "next_page_token"),
    "concept name": (
        "GetConcept",
        trainer_pb2.GetConceptRequest(reference={"name": "A"}),
        "reference.name",
        "got 'A'",
    ),
    "no reference": ("DeleteConcept", trainer_pb2.DeleteConceptRequest(), "reference.name", "got ''"),
}


@pytest.mark.parametrize(("method", "request_message", "field", "sentence"), QUERIES.values(), ids=QUERIES)
def test_bad_queries(trainer: RunningTrainer, method: str, request_message: Message, field: str, sentence: str) -> None:
    refused = refusal(lambda: getattr(trainer.stub, method)(request_message))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
    assert sentence in refused.sentence


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("GetJob", trainer_pb2.GetJobRequest(job_id="job-0")),
        ("CancelJob", trainer_pb2.CancelJobRequest(job_id="")),
        ("GetConcept", trainer_pb2.GetConceptRequest(reference={"name": "absent"})),
        ("DeleteConcept", trainer_pb2.DeleteConceptRequest(reference={"name": "absent"})),
    ],
)
def test_what_there_is_not(trainer: RunningTrainer, method: str, request_message: Message) -> None:
    assert refusal(lambda: getattr(trainer.stub, method)(request_message)).code is grpc.StatusCode.NOT_FOUND


def test_watching_what_there_is_not(trainer: RunningTrainer) -> None:
    assert refusal(lambda: list(trainer.watch("job-0"))).reason == "JOB_NOT_FOUND"


def test_a_full_queue(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(max_queued_jobs_per_tenant=1)
    training_set_id = trainer.stub.UploadTrainingSet(three_photos()).training_set.training_set_id
    trainer.submit(training_set_id, "waits-first")
    trainer.worker_pid("waits-first")
    trainer.submit(training_set_id, "ok-second")
    refused = refusal(lambda: trainer.submit(training_set_id, "ok-third"))
    assert (refused.code, refused.reason, refused.retry_seconds) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
        30,
    )


def test_metrics(trainer: RunningTrainer, training_set_id: str) -> None:
    trainer.ended(trainer.submit(training_set_id, "ok-measured").job_id)
    with urllib.request.urlopen(f"http://{trainer.metrics_address}/metrics", timeout=30) as response:
        text = response.read().decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["detex_trainer_jobs", "detex", "succeeded"] >= 1
    assert samples["detex_trainer_jobs", "detex", "queued"] == 0
    assert samples["detex_trainer_jobs_ended_total", "detex", "succeeded"] >= 1
    assert samples["detex_trainer_queue_wait_seconds_count", "detex"] >= 1
    assert samples["detex_trainer_phase_seconds_count", "detex", "training"] >= 1
    assert samples["detex_trainer_steps_total", "detex"] >= 3
    assert samples["detex_trainer_steps_per_second_count", "detex"] >= 1
    assert samples["detex_trainer_final_loss_count", "detex"] >= 1
    assert samples["detex_trainer_job_attempts_sum", "succeeded"] >= 1
    assert samples["detex_trainer_pack_size_sum",] >= samples["detex_trainer_pack_size_count",] >= 1
    assert samples["detex_trainer_gradient_norm_sum", "detex"] >= 0.75
    assert samples["detex_trainer_divergences_total", "detex"] >= 1
    assert samples["detex_trainer_checkpoint_seconds_sum",] >= 0.125
    assert samples["detex_trainer_checkpoint_age_seconds",] >= 0
    assert samples["detex_trainer_worker_memory_bytes_sum", "machine"] > 10_000_000
    assert samples["detex_trainer_training_sets_total", "kept"] >= 1


def write_model_folder(folder: Path) -> Path:
    """A Stable Diffusion 2.x in diffusers format, but for the weights, which nobody reads here."""
    classes = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        **{part: ["diffusers", name] for part, name in classes.items()},
    }
    contents = {
        "model_index.json": index,
        "tokenizer/tokenizer_config.json": {},
        "text_encoder/config.json": {"hidden_size": 1280},
        "unet/config.json": {"sample_size": [96, 64]},
        "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    tokenizer = Path(detex_showroom.__file__).with_name("base_model") / "tokenizer" / "tokenizer.json"
    (folder / "tokenizer" / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    for name in ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        safetensors.numpy.save_file({name.split("/")[0]: np.zeros(1)}, folder / f"{name}.safetensors")
    return folder


def test_defaults_follow_the_base_model(start_trainer: StartTrainer, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    models = [{"name": "showroom", "source": "embedded"}, {"name": "large", "source": str(folder)}]
    trainer = start_trainer(base_models=json.dumps(models))

    def methods(base_model: str) -> trainer_pb2.ListMethodsResponse:
        return trainer.stub.ListMethods(trainer_pb2.ListMethodsRequest(base_model=base_model), timeout=120)

    small, large = methods(""), methods("large")
    assert (small.base_model.name, small.base_model.family) == ("showroom", "embedded")
    assert small.base_model.is_default
    assert (large.base_model.name, large.base_model.family) == ("large", "stable_diffusion")
    for answer in (small, large):
        assert answer.methods[0].method == common_pb2.METHOD_DETEX
        assert len(answer.methods) == len(common_pb2.Method.values()) - 1
    custom = common_pb2.METHOD_CUSTOM_DIFFUSION
    steps = [next(each.defaults.steps for each in of.methods if each.method == custom) for of in (small, large)]
    assert steps == [400, 250]
    training_set_id = trainer.stub.UploadTrainingSet(three_photos()).training_set.training_set_id
    request = trainer_pb2.SubmitJobRequest(
        training_set_id=training_set_id, concept_name="mug", base_model="large", method=custom
    )
    used = trainer.stub.SubmitJob(request, timeout=60).job.hyperparameters
    assert used == next(each.defaults for each in large.methods if each.method == custom)
    assert refusal(lambda: methods("absent")).fields == ("base_model",)


def test_base_models(start_trainer: StartTrainer, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    models = [{"name": "large", "source": str(folder)}, {"name": "absent", "source": "/absent"}]
    trainer = start_trainer(base_models=json.dumps(models))

    def listed() -> list[common_pb2.BaseModel]:
        request = trainer_pb2.ListTrainableBaseModelsRequest()
        return list(trainer.stub.ListTrainableBaseModels(request, timeout=120).base_models)

    (large,) = listed()
    assert (large.name, large.height, large.width) == ("large", 96 * 8, 64 * 8)
    assert (large.prediction_type, large.is_default, len(large.fingerprint)) == ("v_prediction", True, 64)
    assert listed() == [large]
    assert large.family == "stable_diffusion"
    small = stream(header(), file(encoded(photo(size=(40, 48)))))
    warnings = trainer.stub.UploadTrainingSet(small).training_set.warnings
    assert any("Photo 0 (0.png) has 40 x 48 pixels, fewer than the 512" in warning for warning in warnings)


def test_no_job_is_taken_for_a_folder_that_cannot_train(start_trainer: StartTrainer, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    place = folder / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5}))
    trainer = start_trainer(base_models=json.dumps([{"name": "playground", "source": str(folder)}]))
    training_set_id = trainer.stub.UploadTrainingSet(three_photos()).training_set.training_set_id
    request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name="mug")
    for _ in range(2):
        refused = refusal(lambda: trainer.stub.SubmitJob(request, timeout=120))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BASE_MODEL_UNSUPPORTED")
        assert "'playground': scheduler/scheduler_config.json" in refused.sentence
        assert "It is an EDM schedule" in refused.sentence
    assert not trainer.stub.ListJobs(trainer_pb2.ListJobsRequest(), timeout=60).jobs


def test_no_base_model_at_all(trainer: RunningTrainer) -> None:
    refused = refusal(
        lambda: trainer.stub.ListTrainableBaseModels(trainer_pb2.ListTrainableBaseModelsRequest(), timeout=30)
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_BASE_MODEL")
    assert "there is no such folder" in refused.sentence
