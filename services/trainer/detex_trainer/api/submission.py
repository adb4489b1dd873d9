"""From what a caller asks for to a job: every field checked, every default filled in."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_core.prompt import CONCEPT_NAMES
from detex_core.settings import BaseModelSettings
from detex_trainer.base_models import BaseModelDescription
from detex_trainer.domain.attributes import DEFAULT_ATTRIBUTES, parse_attributes
from detex_trainer.domain.base_model_family import BaseModelFamily
from detex_trainer.domain.hyperparameters import Hyperparameters, Method, resolve_hyperparameters
from detex_trainer.domain.job_size import SizeLimits, check_job_size
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set_record import TrainingSetRecord
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.intake.text_limits import captions_of, check_job_texts
from detex_trainer.jobs import Job, JobOrder, JobRepository
from detex_trainer.jobs.repository import Submission
from detex_trainer.settings import TrainerSettings

MAX_PRIORITY = 100


@dataclass(frozen=True)
class JobRequest:
    """What a caller asks for; empty where it left the choice to the trainer.

    Attributes:
        training_set_id: Photos to learn from.
        concept_name: Name of the concept to publish.
        method: How to learn, by name.
        hyperparameters: The hyperparameters that were set, by name.
        attributes: What has a word of its own per photo.
        base_model: Base model by name.
        priority: Higher ones come first among the jobs of a tenant.
        deadline_time: When the job is given up; None for never.
    """

    training_set_id: str
    concept_name: str
    method: str
    hyperparameters: Mapping[str, int | float | str]
    attributes: Sequence[str]
    base_model: str
    priority: int = 0
    deadline_time: datetime | None = None

    def sha256(self) -> str:
        """SHA-256 (hex) over the request, equal for equal requests alone."""
        asked = asdict(self)
        # Left out where they are not given: a request of a client that knows neither stays the request that it was.
        if not self.priority:
            del asked["priority"]
        if self.deadline_time is None:
            del asked["deadline_time"]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


class JobSubmission:
    """Takes requests for jobs; safe to use from several threads."""

    def __init__(self, settings: TrainerSettings, training_sets: TrainingSetArchive, jobs: JobRepository) -> None:
        self._settings = settings
        self._training_sets = training_sets
        self._jobs = jobs

    def submit(
        self,
        tenant: str,
        request: JobRequest,
        *,
        idempotency_key: str = "",
        base_model: BaseModelDescription | None = None,
    ) -> Job:
        """Queue a job.

        Args:
            tenant: Owner.
            request: What is asked for.
            idempotency_key: Chosen by the caller; empty for none.
            base_model: The base model asked for; None where it cannot be had now, then the worker finds out what does
                not fit it.

        Returns:
            The new job; for a known idempotency key and the same request the job of then, as it stands.

        Raises:
            InvalidInputError: A field is wrong.
            NotFoundError: The tenant has no such training set.
            AlreadyExistsError: The idempotency key came with another request before.
            ResourceExhaustedError: Too many jobs of the tenant wait.
        """
        # A repeated request gets its job even where its training set is gone by now or a default has changed.
        found = self._jobs.find_submitted(tenant, idempotency_key, request.sha256())
        if found is not None:
            return found
        _check_schedule(request)
        submission = Submission(
            tenant,
            self._order(tenant, request, base_model),
            request.sha256(),
            idempotency_key,
            priority=request.priority,
            deadline_time=request.deadline_time,
        )
        return self._jobs.submit(submission, max_queued=self._settings.max_queued_jobs_per_tenant)

    def _order(self, tenant: str, request: JobRequest, description: BaseModelDescription | None) -> JobOrder:
        if not CONCEPT_NAMES.is_name(request.concept_name):
            given, accepted = CONCEPT_NAMES.given(request.concept_name), CONCEPT_NAMES.accepted
            raise invalid_input("concept_name", given, f"{accepted}, for example my-mug")
        base_model = self._settings.base_model(request.base_model)
        family = assumed_family(base_model) if description is None else description.family
        hyperparameters = resolve_hyperparameters(request.method, request.hyperparameters, family)
        method = Method(request.method)
        attributes = _attributes(method, request.attributes)
        training_set = self._training_sets.record(tenant, request.training_set_id)
        if method is Method.DETEX and len(training_set.photos) < 2:
            raise invalid_input(
                "training_set_id",
                "1 photo",
                f"a training set of 2 to {self._settings.max_photos} photos for METHOD_DETEX",
                note="it separates the subject from pose and background by what the photos have in common; "
                "METHOD_TEXTUAL_INVERSION takes a single photo",
            )
        self._check_fit(training_set, method, hyperparameters, attributes, description)
        return JobOrder(
            concept_name=request.concept_name,
            training_set_id=training_set.training_set_id,
            method=method,
            hyperparameters=hyperparameters,
            attributes=attributes,
            base_model=base_model.name,
        )

    def _check_fit(
        self,
        training_set: TrainingSetRecord,
        method: Method,
        hyperparameters: Hyperparameters,
        attributes: Sequence[str],
        description: BaseModelDescription | None,
    ) -> None:
        """Whether the job can be trained on its base model, by this trainer."""
        limits = SizeLimits(
            self._settings.job_memory_bytes(),
            self._settings.max_job_megapixels,
            checkpoints_gradients=self._settings.gradient_checkpointing,
        )
        side = hyperparameters.resolution
        if description is None:
            check_job_size(hyperparameters, side, None, limits)
            return
        if side % description.size_multiple:
            raise invalid_input(
                "hyperparameters.resolution",
                side,
                f"0, or a multiple of {description.size_multiple} for base model {description.name}",
            )
        if attributes and not description.has_image_encoder:
            raise FailedPreconditionError(
                f"base_model: {description.name} has no image encoder, which attribute words need; choose another "
                "method or another base model."
            )
        check_job_size(hyperparameters, side or min(description.width, description.height), description.unet, limits)
        reader = description.text_reader()
        captions = captions_of(training_set)
        check_job_texts(reader, training_set.class_word, captions, method, hyperparameters, attributes)


def assumed_family(base_model: BaseModelSettings) -> BaseModelFamily:
    """What a base model is taken for while it cannot be looked at."""
    return BaseModelFamily.EMBEDDED if base_model.source == "embedded" else BaseModelFamily.STABLE_DIFFUSION


def job_spec(job: Job, settings: TrainerSettings, store_identity: Callable[[], str] = lambda: "") -> JobSpec:
    """What the worker of a job is told.

    Args:
        job: The job.
        settings: Of the trainer.
        store_identity: Gives the identity of the object store, so that the worker takes no other for it.

    Raises:
        InvalidInputError: The trainer no longer has the base model of the job.
        UnavailableError: The object store is not there.
    """
    order = job.order
    return JobSpec(
        job_id=job.job_id,
        tenant=job.tenant,
        concept_name=order.concept_name,
        training_set_id=order.training_set_id,
        method=order.method,
        hyperparameters=order.hyperparameters,
        attributes=order.attributes,
        base_model=settings.base_model(order.base_model),
        device=settings.device,
        dtype=settings.dtype,
        allow_downloads=settings.allow_downloads,
        segmenter=settings.segmenter,
        work_folder=settings.work_folder.absolute(),
        object_store=settings.object_store.model_copy(update={"identity": store_identity()}),
        checkpoint_interval_seconds=settings.checkpoint_interval_seconds,
        publication_patience_seconds=settings.publication_patience_seconds,
        gradient_checkpointing=settings.gradient_checkpointing,
        compile_unet=settings.compile_unet,
        cuda_graphs=settings.cuda_graphs,
        attribute_vocabulary=settings.attribute_vocabulary,
        niceness=settings.worker_niceness,
    )


def _check_schedule(request: JobRequest) -> None:
    if abs(request.priority) > MAX_PRIORITY:
        raise invalid_input("priority", request.priority, f"-{MAX_PRIORITY} to {MAX_PRIORITY}")
    if request.deadline_time is not None and request.deadline_time <= datetime.now(UTC):
        raise invalid_input("deadline_time", f"{request.deadline_time:%Y-%m-%d %H:%M:%S} UTC", "in the future")


def _attributes(method: Method, attributes: Sequence[str]) -> tuple[str, ...]:
    if method is not Method.DETEX:
        if attributes:
            raise invalid_input("attributes", ", ".join(attributes), f"empty for the method {method}")
        return ()
    return tuple(attribute.name for attribute in parse_attributes(attributes)) or DEFAULT_ATTRIBUTES
