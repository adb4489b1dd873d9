"""A training job from photos to published concept."""

import time
from collections.abc import Callable, Mapping

import torch

from detex_core.artifact import Manifest
from detex_core.errors import FailedPreconditionError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.attributes import parse_attributes
from detex_trainer.dataset import MaskedPhoto, PhotoSet, prepare_photos, training_side
from detex_trainer.failures import TrainingStopped
from detex_trainer.job_spec import JobSpec
from detex_trainer.masks import mask_from_image, whole_picture
from detex_trainer.methods import MethodRecipe, method_recipe
from detex_trainer.methods.word_learner import WordLearner
from detex_trainer.progress import JobPhase, JobPreview, JobProgress, ProgressReporter
from detex_trainer.report import make_report
from detex_trainer.segmenters import Segmenter, SubjectNotFoundError, open_segmenter
from detex_trainer.training.evaluation import measure
from detex_trainer.training.loop import train
from detex_trainer.training.pictures import draw_pictures, to_png
from detex_trainer.training.progress_meter import ProgressMeter
from detex_trainer.training.publication import publish, write_concept
from detex_trainer.training_set.training_set import TrainingPhoto, TrainingSet

_REPORT_INTERVAL_SECONDS = 0.5
# Gradients underflow in float16; what is trained is float32 in any case.
_DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}


def train_concept(
    spec: JobSpec,
    training_set: TrainingSet,
    store: ObjectStore,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool],
) -> Manifest:
    """Learn a concept and publish it.

    On one machine with one number of threads the same spec, photos and versions give the same tensors.

    Args:
        spec: The job.
        training_set: Its photos.
        store: Where the concept goes, and where base models of source `store:` come from.
        reporter: Told of phases, progress and previews.
        should_stop: Asked before each step and between phases.

    Raises:
        TrainingStopped: `should_stop` said so; nothing is published.
        DivergedError: The loss or a weight is not finite, or the loss grew far beyond where it began.
        SubjectNotFoundError: A photo came without a mask, and the segmenter found no subject.
        DetexError: As loading the base model and publishing.
    """
    hyperparameters = spec.hyperparameters
    reporter.progress(JobProgress(JobPhase.PREPARING, 0, hyperparameters.steps))
    base_model = _base_model(spec, store)
    _stop_if_asked(should_stop)
    recipe = method_recipe(spec.method)
    attributes = parse_attributes(spec.attributes) if recipe.learns_attributes else ()
    generator = torch.Generator().manual_seed(hyperparameters.seed)
    photo_set = prepare(
        training_set,
        base_model,
        recipe,
        hyperparameters.resolution,
        generator,
        with_features=bool(attributes),
        segmenter=open_segmenter(spec.segmenter),
    )
    _stop_if_asked(should_stop)
    learner = recipe.learner(
        base_model,
        spec.concept_name,
        training_set.record.class_word,
        attributes,
        photo_set,
        hyperparameters,
        generator,
    )
    before = measure(learner, photo_set, base_model.noise_schedule)
    started = time.monotonic()
    observer = _StepObserver(spec, base_model, learner, reporter)
    train(learner, photo_set, base_model.noise_schedule, hyperparameters, generator, observer.after_step, should_stop)
    seconds = time.monotonic() - started
    _stop_if_asked(should_stop)
    reporter.progress(JobProgress(JobPhase.PUBLISHING, hyperparameters.steps, hyperparameters.steps, observer.losses()))
    written = write_concept(learner.concept(), hyperparameters)
    report = make_report(
        before=before,
        after=measure(learner, photo_set, base_model.noise_schedule),
        losses=observer.losses(),
        delta_share=learner.words.delta_share(),
        energy_kept=written.energy_kept,
        steps=hyperparameters.steps,
        seconds=seconds,
        photos=photo_set.photos,
        class_word=training_set.record.class_word,
    )
    return publish(store, spec, training_set.record, base_model, written, report)


def prepare(
    training_set: TrainingSet,
    base_model: BaseModel,
    recipe: MethodRecipe,
    resolution: int,
    generator: torch.Generator,
    *,
    with_features: bool,
    segmenter: Segmenter | None = None,
) -> PhotoSet:
    """Photos as tensors: masks found where there are none, cropped, varied and encoded.

    Args:
        training_set: The photos.
        base_model: Whose encoders.
        recipe: Whether masks matter, and how photos vary.
        resolution: As in the hyperparameters.
        generator: Source of the variation.
        with_features: Whether attribute mappers need image features.
        segmenter: For photos without a mask; by default the built-in one.

    Raises:
        SubjectNotFoundError: The segmenter found no subject.
        InvalidInputError: The base model cannot take that resolution.
        FailedPreconditionError: Features are needed, and the base model has no image encoder.
    """
    segmenter = segmenter or open_segmenter("color_contrast")
    photos = [_masked(photo, recipe.uses_masks, segmenter) for photo in training_set.photos]
    side = training_side(base_model, resolution)
    return prepare_photos(
        photos, base_model, side, recipe.versions, recipe.augmentation, generator, with_features=with_features
    )


class _StepObserver:
    """Tells the reporter of steps and draws previews."""

    def __init__(self, spec: JobSpec, base_model: BaseModel, learner: WordLearner, reporter: ProgressReporter) -> None:
        self._spec = spec
        self._base_model = base_model
        self._learner = learner
        self._reporter = reporter
        self._meter = ProgressMeter(spec.hyperparameters.steps)
        self._reported = -1.0

    def after_step(self, step: int, losses: Mapping[str, float]) -> None:
        self._meter.add(losses)
        now = time.monotonic()
        if now - self._reported >= _REPORT_INTERVAL_SECONDS or step == self._spec.hyperparameters.steps:
            self._reported = now
            self._reporter.progress(self._meter.progress())
        interval = self._spec.hyperparameters.preview_interval_steps
        if interval and step % interval == 0:
            self._draw_preview(step)

    def losses(self) -> dict[str, float]:
        return self._meter.losses()

    def _draw_preview(self, step: int) -> None:
        name = self._spec.concept_name
        prompt = f"a photo of a [{name}]"
        concept = self._learner.concept().to(dtype=self._base_model.dtype)
        picture = draw_pictures(self._base_model, [prompt], {name: concept}, seeds=[self._spec.hyperparameters.seed])
        self._reporter.preview(JobPreview(step, prompt, to_png(picture[0])))


def _masked(photo: TrainingPhoto, uses_masks: bool, segmenter: Segmenter) -> MaskedPhoto:
    caption = photo.record.caption
    if not uses_masks:
        return MaskedPhoto(photo.picture, whole_picture(*photo.picture.size), caption)
    if photo.mask is not None:
        return MaskedPhoto(photo.picture, mask_from_image(photo.mask), caption)
    try:
        return MaskedPhoto(photo.picture, segmenter.segment(photo.picture), caption)
    except SubjectNotFoundError as error:
        raise SubjectNotFoundError(f"Photo {photo.record.photo_index}: {error.message}") from error


def _base_model(spec: JobSpec, store: ObjectStore) -> BaseModel:
    if spec.dtype not in _DTYPES:
        raise FailedPreconditionError(
            f"The trainer is set to {spec.dtype}, in which gradients underflow; set auto, float32 or bfloat16."
        )
    device = spec.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_base_model(
        spec.base_model,
        device,
        _DTYPES[spec.dtype],
        store,
        work_folder=spec.work_folder,
        allow_downloads=spec.allow_downloads,
    )


def _stop_if_asked(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise TrainingStopped
