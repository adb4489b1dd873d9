import itertools
import math
from collections.abc import Callable, Mapping

import pytest
import safetensors.torch
import torch
from PIL import Image

from detex_core.artifact import ConceptArchive
from detex_core.errors import FailedPreconditionError, InvalidInputError
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_trainer.domain.failures import DivergedError, TrainingStopped
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import JobPhase
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.intake.segmenters import SubjectNotFoundError
from detex_trainer.learning.methods import ParameterGroup, StepNoise
from detex_trainer.learning.photos.dataset import Batch, PhotoSet
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.loop import train
from detex_trainer.learning.training.optimizer import learning_rate_share
from detex_trainer.learning.training.progress_meter import ProgressMeter
from detex_trainer.learning.training.run import TrainingRun, draw_noise
from tests.trainer_method.conftest import RecordingReporter, make_training_set

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]
_JOBS = itertools.count()


def run(
    spec: JobSpec, training_set: TrainingSet, store: FolderStore, reporter: RecordingReporter | None = None
) -> dict[str, torch.Tensor]:
    """Train as a job of its own and return the tensors as published."""
    spec = spec.model_copy(update={"job_id": f"job-{next(_JOBS):016x}"})
    manifest = train_concept(spec, training_set, store, reporter or RecordingReporter(), lambda: False)
    archive = ConceptArchive(store)
    stored = archive.resolve("default", "my-mug", manifest.version)
    return safetensors.torch.load(archive.read(stored, "concept.safetensors"))


@pytest.mark.parametrize("method", ["detex", "dreambooth_lora"])
def test_the_same_seed_gives_the_same_tensors(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, method: str
) -> None:
    first = run(make_spec(method, delta_form="full", seed=7), training_set, store)
    torch.manual_seed(99)
    second = run(make_spec(method, delta_form="full", seed=7), training_set, store)
    other = run(make_spec(method, delta_form="full", seed=8), training_set, store)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("method", ["detex", "textual_inversion", "custom_diffusion", "dreambooth", "dreambooth_lora"])
def test_the_loss_on_fixed_noise_falls(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, method: str
) -> None:
    rates = {
        "subject_learning_rate": 0.05,
        "key_value_learning_rate": 0.02,
        "mapper_learning_rate": 0.01,
        "mask_floor": 1.0,
        "unet_learning_rate": 0.01,
        "prior_images": 2,
    }
    spec = make_spec(method, steps=25, **rates)
    manifest = train_concept(spec, training_set, store, RecordingReporter(), lambda: False)
    before, after = manifest.metrics["denoising_loss_before"], manifest.metrics["denoising_loss_after"]
    assert after < before * (0.999 if method == "textual_inversion" else 0.97)


@pytest.mark.parametrize("attributes", [(), ("background",), ("pose", "lighting", "my_thing")])
def test_any_list_of_attributes(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, attributes: tuple[str, ...]
) -> None:
    found = run(make_spec(attributes=attributes, subject_tokens=2), training_set, store)
    assert found["subject"].shape == (2, 24)
    assert {name for name in found if name.startswith("attribute.")} == {f"attribute.{name}" for name in attributes}
    for name in attributes:
        words = found[f"attribute.{name}"]
        assert words.shape == (3, 24)
        assert not torch.equal(words[0], words[1])


def test_captions_are_read(make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore) -> None:
    captioned = make_training_set(captions=("a red mug on a table", "", "the mug at night"))
    plain = run(make_spec(), training_set, store)
    assert not torch.equal(run(make_spec(), captioned, store)["subject"], plain["subject"])


def test_progress_is_told_from_beginning_to_end(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore
) -> None:
    reporter = RecordingReporter()
    run(make_spec(steps=6, preview_interval_steps=3), training_set, store, reporter)
    phases = [phase for phase, _ in itertools.groupby(news.phase for news in reporter.news)]
    assert phases == [JobPhase.PREPARING, JobPhase.TRAINING, JobPhase.PUBLISHING]
    training = [news for news in reporter.news if news.phase is JobPhase.TRAINING]
    assert training[-1].step == training[-1].total_steps == 6
    assert training[-1].time_left_seconds == 0
    assert {"total", "denoising", "attention"} <= training[-1].losses.keys()
    assert [(preview.step, preview.prompt) for preview in reporter.previews] == [
        (3, "a photo of a [my-mug]"),
        (6, "a photo of a [my-mug]"),
    ]
    assert all(preview.png.startswith(b"\x89PNG") for preview in reporter.previews)


def test_previews_do_not_change_what_is_learned(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore
) -> None:
    with_previews = run(make_spec(preview_interval_steps=2), training_set, store)
    without = run(make_spec(), training_set, store)
    assert all(torch.equal(with_previews[name], without[name]) for name in without)


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_stopping_is_heeded_at_the_next_step_and_publishes_nothing(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, asked: int
) -> None:
    times = itertools.count(1)
    reporter = RecordingReporter()
    with pytest.raises(TrainingStopped):
        train_concept(make_spec(steps=50), training_set, store, reporter, lambda: next(times) >= asked)
    assert next(times) == asked + 1
    assert all(news.step < 50 for news in reporter.news)
    assert list(store.list("concepts/")) == []


class FollowingLosses:
    """A learner whose losses are given, as many as there are steps in its life; it learns a number nobody needs."""

    def __init__(self, losses: list[float]) -> None:
        self.parameter = torch.nn.Parameter(torch.ones(()))
        self.coming = iter(losses)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("number", [self.parameter], 1e-3)]

    def losses(self, batch: Batch, noise: StepNoise, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"total": next(self.coming) + 0 * self.parameter}

    def measure(self, batch: Batch, noise: StepNoise) -> dict[str, float]:
        return {"denoising_loss": 1.0}

    def concept(self) -> Concept:
        return Concept("number", "mug", self.parameter.detach().view(1, 1))


class StepRecorder:
    """Keeps the steps that it is told of."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        self.steps.append(run.step)

    def before_stop(self, run: TrainingRun) -> None:
        pass


def following_run(base_model: BaseModel, losses: list[float], steps: int) -> TrainingRun:
    photo_set = PhotoSet(*[torch.zeros(2, 1, 4, 8, 8)] * 3, torch.zeros(2, 1, 0), ("", ""), ())
    hyperparameters = resolve_hyperparameters("detex", {"steps": steps})
    generator = torch.Generator().manual_seed(0)
    return TrainingRun(FollowingLosses(losses), photo_set, base_model.noise_schedule, hyperparameters, generator)


@pytest.mark.parametrize(
    ("losses", "message", "steps"),
    [
        ([1.0, 1.0, math.nan], "The loss of step 3 is not a finite number", 2),
        ([1.0, math.inf], "The loss of step 2 is not a finite number", 1),
        ([1.0] * 20 + [50.0] * 2, "The loss has grown from 1 to", 21),
    ],
)
def test_divergence_leads_back_twice_and_ends_training_with_advice(
    base_model: BaseModel, losses: list[float], message: str, steps: int
) -> None:
    recorder = StepRecorder()
    run = following_run(base_model, losses * 3, len(losses) + 1)
    with pytest.raises(DivergedError, match=f"{message}.*lower the learning rates.*Going back 2 times") as caught:
        train(run, [recorder], lambda: False)
    assert caught.value.reason == "DIVERGED"
    assert recorder.steps == list(range(1, steps + 1)) * 3


def test_a_run_that_diverged_goes_on_from_its_last_good_state_with_lower_rates(base_model: BaseModel) -> None:
    losses = [1.0] * 5 + [math.nan] + [1.0] * 4
    run = following_run(base_model, losses, 7)
    recorder = StepRecorder()

    class KeepThird(StepRecorder):
        def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
            if run.step == 3:
                assert run.keep_as_good() is not None

    train(run, [recorder, KeepThird()], lambda: False)
    assert recorder.steps == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert run.returns == 1
    assert run.state()["optimizer"].values["rate_scale"] == pytest.approx(0.3)


def test_one_bad_step_is_no_divergence(base_model: BaseModel) -> None:
    losses = [1.0] * 25 + [30.0] + [1.0] * 25
    recorder = StepRecorder()
    train(following_run(base_model, losses, len(losses)), [recorder], lambda: False)
    assert recorder.steps == list(range(1, len(losses) + 1))


def test_photos_without_masks_are_segmented(make_spec: MakeSpec, store: FolderStore) -> None:
    assert run(make_spec(steps=2), make_training_set(masks=False), store)


def test_a_photo_without_mask_and_subject_is_named(make_spec: MakeSpec, store: FolderStore) -> None:
    whole = make_training_set(masks=False)
    blank = TrainingPhoto(whole.photos[1].record, Image.new("RGB", whole.photos[1].picture.size, "grey"), None)
    photos = TrainingSet(whole.record, (whole.photos[0], blank, whole.photos[2]))
    with pytest.raises(SubjectNotFoundError, match=r"^Photo 1: .*Send a mask"):
        run(make_spec(), photos, store)
    assert run(make_spec("custom_diffusion", steps=1), photos, store)  # knows no masks


def test_methods_that_are_not_there_name_those_that_are(make_spec: MakeSpec) -> None:
    with pytest.raises(InvalidInputError, match=r"method: must be one of detex, textual_inversion, .*, got magic"):
        make_spec("magic")


def test_attribute_words_are_checked(make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore) -> None:
    with pytest.raises(InvalidInputError, match=r"attributes\[1\]: must be unique, got pose again"):
        run(make_spec(attributes=("pose", "pose")), training_set, store)


def test_bfloat16_weights_train_float32_words(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore
) -> None:
    found = run(make_spec(dtype="bfloat16", delta_form="full"), training_set, store)
    assert found["subject"].dtype is torch.float32


def test_recomputed_activations_change_nothing(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore
) -> None:
    spec = make_spec(delta_form="full")
    recomputed = run(spec.model_copy(update={"gradient_checkpointing": True}), training_set, store)
    kept = run(spec, training_set, store)
    for name, tensor in kept.items():
        torch.testing.assert_close(recomputed[name], tensor, atol=1e-4, rtol=1e-3)


def test_float16_without_a_gpu_is_refused(make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore) -> None:
    with pytest.raises(FailedPreconditionError, match="requires a GPU"):
        run(make_spec(dtype="float16"), training_set, store)


def test_denoising_steps_of_a_batch_are_spread_over_the_schedule(base_model: BaseModel) -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 4, 7):
        drawn = draw_noise(torch.zeros(rows, 4, 8, 8), base_model.noise_schedule, generator)
        assert drawn.noise.shape == (rows, 4, 8, 8)
        assert sorted(drawn.timesteps // (1000 / rows)) == list(range(rows))
        assert drawn.timesteps.dtype is torch.int64


def test_learning_rates_warm_up_and_decay() -> None:
    shares = [learning_rate_share(step, 100) for step in range(100)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(shares) == 1.0
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[-1] == pytest.approx(0.1, abs=0.01)
    assert learning_rate_share(0, 1) == 1.0


def test_progress_meter_measures_speed_and_time_left() -> None:
    now = itertools.count(0.0, 0.5)
    meter = ProgressMeter(100, clock=lambda: next(now))
    assert meter.progress().time_left_seconds is None
    for loss in (4.0, 4.0, 4.0):
        meter.add({"total": loss})
    progress = meter.progress()
    assert progress.steps_per_second == 2.0
    assert progress.time_left_seconds == pytest.approx(48.5)
    assert progress.losses == {"total": pytest.approx(4.0)}
    meter.add({"total": 0.0})
    assert 0 < meter.losses()["total"] < 4
    assert math.isfinite(meter.progress().losses["total"])
