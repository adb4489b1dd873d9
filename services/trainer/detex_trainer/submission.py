"""From what a caller asks for to a job: every field checked, every default filled in."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from detex_core.errors import invalid_input
from detex_core.prompt import CONCEPT_NAME
from detex_trainer.attributes import DEFAULT_ATTRIBUTES, parse_attributes
from detex_trainer.hyperparameters import Method, resolve_hyperparameters
from detex_trainer.job_spec import JobSpec
from detex_trainer.jobs import Job, JobOrder, JobRepository
from detex_trainer.jobs.repository import Submission
from detex_trainer.settings import TrainerSettings
from detex_trainer.training_set.archive import TrainingSetArchive


@dataclass(frozen=True)
class JobRequest:
    """What a caller asks for; empty where it left the choice to the trainer.

    Attributes:
        training_set_id: Photos to learn from.
        concept_name: Name of the concept to publish.
        method: How to learn, by name.
        hyperparameters: The knobs that were set, by name.
        attributes: What has a word of its own per photo.
        base_model: Base model by name.
    """

    training_set_id: str
    concept_name: str
    method: str
    hyperparameters: Mapping[str, int | float | str]
    attributes: Sequence[str]
    base_model: str

    def sha256(self) -> str:
        """SHA-256 (hex) over the request, equal for equal requests alone."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class JobSubmission:
    """Takes requests for jobs; safe to use from several threads."""

    def __init__(self, settings: TrainerSettings, training_sets: TrainingSetArchive, jobs: JobRepository) -> None:
        self._settings = settings
        self._training_sets = training_sets
        self._jobs = jobs

    def submit(self, tenant: str, request: JobRequest, *, idempotency_key: str = "") -> Job:
        """Queue a job.

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
        submission = Submission(tenant, self._order(tenant, request), request.sha256(), idempotency_key)
        return self._jobs.submit(submission, max_queued=self._settings.max_queued_jobs_per_tenant)

    def _order(self, tenant: str, request: JobRequest) -> JobOrder:
        if not CONCEPT_NAME.fullmatch(request.concept_name):
            raise invalid_input(
                "concept_name",
                repr(request.concept_name),
                "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter, for example my-mug",
            )
        hyperparameters = resolve_hyperparameters(request.method, request.hyperparameters)
        method = Method(request.method)
        base_model = self._settings.base_model(request.base_model)
        attributes = _attributes(method, request.attributes)
        training_set = self._training_sets.record(tenant, request.training_set_id)
        if method is Method.DETEX and len(training_set.photos) < 2:
            raise invalid_input(
                "training_set_id",
                "a training set of 1 photo",
                f"2 to {self._settings.max_photos} photos for METHOD_DETEX, which tells the subject from pose and "
                "background by what photos have in common; METHOD_TEXTUAL_INVERSION takes a single photo",
            )
        return JobOrder(
            concept_name=request.concept_name,
            training_set_id=training_set.training_set_id,
            method=method,
            hyperparameters=hyperparameters,
            attributes=attributes,
            base_model=base_model.name,
        )


def job_spec(job: Job, settings: TrainerSettings) -> JobSpec:
    """What the worker of a job is told.

    Raises:
        InvalidInputError: The trainer no longer has the base model of the job.
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
        object_store=settings.object_store,
        niceness=settings.worker_niceness,
    )


def _attributes(method: Method, attributes: Sequence[str]) -> tuple[str, ...]:
    if method is not Method.DETEX:
        if attributes:
            raise invalid_input("attributes", ", ".join(attributes), f"none for the method {method}")
        return ()
    return tuple(attribute.name for attribute in parse_attributes(attributes)) or DEFAULT_ATTRIBUTES
