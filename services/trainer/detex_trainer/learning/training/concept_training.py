"""A training job from photos to published concept."""

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch
from torch import Tensor

from detex_core.artifact import Manifest
from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attributes import parse_attributes
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.photo_place import photo_name
from detex_trainer.domain.progress import JobPhase, JobProgress, ProgressReporter
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.intake.masks import mask_from_image, whole_picture
from detex_trainer.intake.segmenters import Segmenter, SubjectNotFoundError, open_segmenter
from detex_trainer.intake.text_limits import TextReader, captions_of, check_job_texts
from detex_trainer.learning.methods import MethodRecipe, method_recipe, needs_prior_images
from detex_trainer.learning.photos.dataset import MaskedPhoto, PhotoSet, prepare_photos, training_side
from detex_trainer.learning.resumable import Resumable
from detex_trainer.learning.training.base_model import base_model_of
from detex_trainer.learning.training.checkpoint_archive import CheckpointArchive
from detex_trainer.learning.training.checkpointing import Checkpointer, course_digest
from detex_trainer.learning.training.evaluation import measure
from detex_trainer.learning.training.leakage import LeakageProbe
from detex_trainer.learning.training.loop import StepListener, train
from detex_trainer.learning.training.loss_curve import LossCurve
from detex_trainer.learning.training.patient_publication import publish_when_possible
from detex_trainer.learning.training.prior_images import prior_latents, prior_pictures
from detex_trainer.learning.training.progress_meter import ProgressMeter
from detex_trainer.learning.training.publication import publish, write_concept
from detex_trainer.learning.training.reporting import Training, report_on
from detex_trainer.learning.training.run import TrainingRun
from detex_trainer.learning.training.selection import CheckpointSelection
from detex_trainer.learning.training.step_observer import StepObserver

_MESSAGE_CHARACTERS = 500

_log = logging.getLogger(__name__)


def train_concept(
    spec: JobSpec,
    training_set: TrainingSet,
    store: ObjectStore,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool],
) -> Manifest:
    """Learn a concept and publish it; continues from the job's last checkpoint where there is one.

    On one machine with one number of threads the same spec, photos and versions give the same tensors, also where the
    job was interrupted.

    Args:
        spec: The job.
        training_set: Its photos.
        store: Where the concept goes, and where base models of source `store:` come from.
        reporter: Told of phases, progress and previews.
        should_stop: Asked before each step and between phases.

    Raises:
        TrainingStopped: `should_stop` said so; nothing is published.
        DivergedError: The loss or a weight is not finite, or the loss grew far beyond where it began, and going back
            with lower learning rates did not help.
        SubjectNotFoundError: A photo came without a mask, and the segmenter found no subject.
        DetexError: As loading the base model and publishing.
    """
    reporter.progress(JobProgress(JobPhase.PREPARING, 0, spec.hyperparameters.steps))
    base_model = base_model_of(spec, store)
    _stop_if_asked(should_stop)
    training = ConceptTraining(spec, training_set, store, reporter, base_model, should_stop)
    try:
        train(training.run, training.listeners, should_stop)
        return training.publish()
    finally:
        training.close()


class ConceptTraining:
    """A job between its photos and its publication.

    Attributes:
        spec: The job.
        run: What is trained; at the last checkpoint where there is one.
        listeners: Who wants to know of its steps.
    """

    def __init__(
        self,
        spec: JobSpec,
        training_set: TrainingSet,
        store: ObjectStore,
        reporter: ProgressReporter,
        base_model: BaseModel,
        should_stop: Callable[[], bool],
    ) -> None:
        """Prepare the photos, and find the job's last checkpoint; arguments and errors as of `train_concept`."""
        hyperparameters = spec.hyperparameters
        self.spec = spec
        self._training_set = training_set
        self._store = store
        self._reporter = reporter
        self._base_model = base_model
        self._should_stop = should_stop
        recipe = method_recipe(spec.method)
        attributes = parse_attributes(spec.attributes) if recipe.learns_attributes else ()
        _check_texts(spec, training_set, base_model)
        generator = torch.Generator().manual_seed(hyperparameters.seed)
        self._photo_set = prepare(
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
            self._photo_set,
            hyperparameters,
            generator,
            _prior(spec, training_set.record.class_word, base_model, store, should_stop),
            spec.attribute_vocabulary,
        )
        self._learner = learner
        self._attributes = attributes
        self._before = measure(learner, self._photo_set, base_model.noise_schedule)
        meter = self._meter = ProgressMeter(hyperparameters.steps)
        curve = self._curve = LossCurve(hyperparameters.steps)
        probe = LeakageProbe(base_model, self._photo_set, spec.concept_name, training_set.record.class_word)
        selection = self._selection = CheckpointSelection(learner, self._photo_set, base_model, probe)
        parts: dict[str, Resumable] = {"progress": meter, "curve": curve, "selection": selection}
        self.run = TrainingRun(
            learner,
            self._photo_set,
            base_model.noise_schedule,
            hyperparameters,
            generator,
            parts,
            scales_losses=base_model.dtype is torch.float16,
        )
        observer = StepObserver(spec, base_model, learner, reporter, meter)
        # What keeps states comes last, so that it keeps what the others have made of the step.
        self.listeners: list[StepListener] = [observer, curve, selection]
        self._checkpointer = Checkpointer(
            CheckpointArchive(store, spec.tenant, spec.job_id),
            course_digest(spec, base_model, learner.first_words()),
            interval_seconds=spec.checkpoint_interval_seconds or math.inf,
            on_kept=reporter.checkpoint,
        )
        self._checkpointer.resume(self.run)
        self.listeners.append(self._checkpointer)
        self._started = time.monotonic()
        self._is_waiting = False

    def publish(self) -> Manifest:
        """Publish what was learned; checkpoints go once that is done.

        Raises:
            TrainingStopped: It was asked to stop, also while it waits for room.
            DetexError: As ObjectStore.put; where the store is full, read-only or away, after the job's patience.
        """
        seconds = time.monotonic() - self._started
        if self._should_stop():
            self._keep_state()
            raise TrainingStopped
        hyperparameters, losses = self.spec.hyperparameters, self._meter.losses()
        steps = hyperparameters.steps
        self._reporter.progress(JobProgress(JobPhase.PUBLISHING, steps, steps, losses))
        chosen, candidates = self._selection.choose(steps)
        written = write_concept(self._learner.concept(), hyperparameters)
        training = Training(
            base_model=self._base_model,
            learner=self._learner,
            concept=written.concept,
            name=self.spec.concept_name,
            class_word=self._training_set.record.class_word,
            attributes=self._attributes,
            photo_set=self._photo_set,
            before=self._before,
            chosen=chosen,
            candidates=candidates,
            losses=losses,
            loss_curve=self._curve.points,
            energy_kept=written.energy_kept,
            steps=steps,
            seconds=seconds,
            seed=hyperparameters.seed,
        )
        report, picture = report_on(training)
        record = self._training_set.record
        time_of_publication = datetime.now(UTC)

        def publish_now() -> Manifest:
            return publish(
                self._store, self.spec, record, self._base_model, written, report, picture, time_of_publication
            )

        try:
            manifest = publish_when_possible(
                publish_now, self._should_stop, self._wait, patience_seconds=self.spec.publication_patience_seconds
            )
        except TrainingStopped:
            self._keep_state()
            raise
        self._forget_checkpoints()
        return manifest

    def _wait(self, error: DetexError) -> None:
        """What was trained cannot be published for now."""
        if not self._is_waiting:
            self._is_waiting = True
            self._keep_state()  # if there is room for that, nothing is lost should the worker end meanwhile
        steps = self.spec.hyperparameters.steps
        waiting_for = error.message[:_MESSAGE_CHARACTERS]
        self._reporter.progress(
            JobProgress(JobPhase.PUBLISHING, steps, steps, self._meter.losses(), waiting_for=waiting_for)
        )

    def _keep_state(self) -> None:
        for listener in self.listeners:
            listener.before_stop(self.run)

    def close(self) -> None:
        """Wait for what is still being written."""
        self._checkpointer.close()

    def _forget_checkpoints(self) -> None:
        self.close()
        try:
            CheckpointArchive(self._store, self.spec.tenant, self.spec.job_id).delete()
        except DetexError as error:
            # The concept is published; whoever ends the job deletes what is left of it.
            _log.warning("checkpoints not deleted: %s", error.message)


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
        photos,
        base_model,
        side,
        recipe.versions,
        recipe.augmentation,
        generator,
        with_features=with_features,
        resizes=recipe.resizes,
    )


def _masked(photo: TrainingPhoto, uses_masks: bool, segmenter: Segmenter) -> MaskedPhoto:
    caption = photo.record.caption
    try:
        mask = segmenter.segment(photo.picture) if photo.mask is None else mask_from_image(photo.mask)
    except SubjectNotFoundError as error:
        if uses_masks:
            name = photo_name(photo.record.photo_index, photo.record.file_name)
            raise SubjectNotFoundError(f"Photo {name}: {error.message}") from error
        mask = whole_picture(*photo.picture.size)
    if uses_masks:
        return MaskedPhoto(photo.picture, mask, caption)
    return MaskedPhoto(photo.picture, whole_picture(*photo.picture.size), caption, subject=mask)


def _prior(
    spec: JobSpec, class_word: str, base_model: BaseModel, store: ObjectStore, should_stop: Callable[[], bool]
) -> Tensor | None:
    """Latents of pictures of the class where the job learns them, else None."""
    hyperparameters = spec.hyperparameters
    if not needs_prior_images(hyperparameters):
        return None
    pictures = prior_pictures(store, base_model, class_word, hyperparameters.prior_images, should_stop)
    return prior_latents(base_model, pictures, training_side(base_model, hyperparameters.resolution))


def _check_texts(spec: JobSpec, training_set: TrainingSet, base_model: BaseModel) -> None:
    """A base model that could not be looked at when the job was submitted says only here what it cannot read."""

    def tokens(text: str) -> list[int]:
        return list(base_model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    reader = TextReader(base_model.name, tokens, int(base_model.tokenizer.model_max_length) - 2)
    record = training_set.record
    captions = captions_of(record)
    check_job_texts(reader, record.class_word, captions, spec.method, spec.hyperparameters, spec.attributes)


def _stop_if_asked(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise TrainingStopped
