"""Python client of the trainer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Unpack
from uuid import uuid4

from detex_client import hyperparameters as hyperparameter_values
from detex_client.background_call import BackgroundStream
from detex_client.concept import BaseModel, Concept, ConceptReference, DeletedConcepts, check_concept_name
from detex_client.concept_report import ConceptReport
from detex_client.connection import DEFAULT_TIMEOUT_SECONDS, BearerToken, Tls
from detex_client.job import Job, JobEvent, JobPage, JobPreview, JobProgress
from detex_client.job_watch import JobWatch
from detex_client.method_defaults import MethodDefaults
from detex_client.training_photo import find_training_photos
from detex_client.training_set import TrainingSet
from detex_client.training_set_calls import TrainingSetCalls
from detex_client.upload import UploadProgress
from detex_client.wire_enum import JobState, Method
from detex_client.wire_message import wire_message
from detex_core.tenancy import DEFAULT_TENANT
from detex_protos.v1 import trainer_pb2, trainer_pb2_grpc

DEFAULT_ADDRESS = "127.0.0.1:50051"
WATCH_TIMEOUT_SECONDS = 900.0

TrainingEvent = UploadProgress | TrainingSet | JobEvent


class TrainerClient(TrainingSetCalls):
    """Trains concepts and looks after them. Safe to use from several threads.

    All methods raise DetexClientError with the trainer's own words: INVALID_ARGUMENT with the fields to correct,
    NOT_FOUND, UNAVAILABLE when no trainer answers, DEADLINE_EXCEEDED when it answers too slowly.

    Args:
        address: `host:port`.
        tenant: Whose concepts and jobs they are.
        tls: None speaks plain text, which is meant for loopback and for inside a cluster.
        timeout_seconds: Deadline of calls that answer at once.
        token: Tells the service who calls; None where it does not ask.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        tenant: str = DEFAULT_TENANT,
        *,
        tls: Tls | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        token: BearerToken | None = None,
    ) -> None:
        super().__init__(
            service="trainer",
            contract="detex.v1.TrainerService",
            safe_to_repeat=(
                "GetUpload",
                "GetTrainingSet",
                "GetMask",
                "SubmitJob",
                "GetJob",
                "ListJobs",
                "WatchJob",
                "CancelJob",
                "GetConcept",
                "GetConceptReport",
                "ListConcepts",
                "ListTrainableBaseModels",
                "ListMethods",
            ),
            address=address,
            tenant=tenant,
            tls=tls,
            timeout_seconds=timeout_seconds,
            token=token,
        )
        self._stub = trainer_pb2_grpc.TrainerServiceStub(self.channel)

    def train(
        self,
        photos: str | Path | Iterable[str | Path],
        *,
        class_word: str,
        name: str,
        masks: Sequence[str | Path | None] | None = None,
        captions: Sequence[str] | None = None,
        method: Method = Method.DETEX,
        attributes: Sequence[str] = (),
        base_model: str = "",
        keep_photos: bool = False,
        on_progress: Callable[[TrainingEvent], None] = lambda _: None,
        **hyperparameters: Unpack[hyperparameter_values.Hyperparameters],
    ) -> ConceptReference:
        """Learn a concept from photos and wait for it. A KeyboardInterrupt cancels the job and is raised again.

        Args:
            photos: Files of one subject, or folders of them; order and masks as `find_training_photos` says.
            class_word: What the subject is in one or two plain words, for example `mug`.
            name: Name of the concept to publish.
            masks: Masks in the order of the photos; None looks for them beside the photos.
            captions: What each photo shows, in their order.
            method: How to learn.
            attributes: What has a word of its own per photo; empty means pose and background.
            base_model: Base model by name; empty means the trainer's default.
            keep_photos: Whether the trainer keeps the photos when the job has ended.
            on_progress: Called with all news from upload to end, the upload's from another thread.
            hyperparameters: Knobs; those left out take the default of the method on its base model.

        Raises:
            JobEndedError: The job failed, or someone else cancelled it.
        """
        check_concept_name(name)
        sources = [photos] if isinstance(photos, str | Path) else photos
        training_set = self.upload(
            find_training_photos(sources, masks=masks, captions=captions),
            class_word=class_word,
            keep_photos=keep_photos,
            on_progress=on_progress,
        )
        on_progress(training_set)
        job = self.submit(
            training_set.training_set_id,
            name=name,
            method=method,
            attributes=attributes,
            base_model=base_model,
            **hyperparameters,
        )
        try:
            for event in self.watch(job.job_id):
                on_progress(event)
                if isinstance(event, Job):
                    job = event
        except KeyboardInterrupt:
            self.cancel(job.job_id)
            self.wait(job.job_id)
            raise
        return job.published()

    def submit(
        self,
        training_set_id: str,
        *,
        name: str,
        method: Method = Method.DETEX,
        attributes: Sequence[str] = (),
        base_model: str = "",
        idempotency_key: str | None = None,
        priority: int = 0,
        deadline_time: datetime | None = None,
        **hyperparameters: Unpack[hyperparameter_values.Hyperparameters],
    ) -> Job:
        """Queue a training job on what `upload` returned; arguments as of `train`.

        The same `idempotency_key` never gives two jobs; None takes a new random one, which guards the client's own
        repeated tries. Of the jobs of a tenant that wait, those of higher `priority` (-100 to 100) come first; a job
        that has not ended by `deadline_time`, a time with its zone, is given up.
        """
        request = wire_message(
            trainer_pb2.SubmitJobRequest,
            training_set_id=training_set_id,
            concept_name=name,
            method=method.number(),
            hyperparameters=hyperparameter_values.to_wire(hyperparameters),
            attributes=attributes,
            base_model=base_model,
            idempotency_key=idempotency_key or uuid4().hex,
            priority=priority,
        )
        if deadline_time is not None:
            request.deadline_time.FromDatetime(deadline_time)
        answer = self.unary(self._stub.SubmitJob, request)
        return Job.from_wire(answer.job)

    def job(self, job_id: str) -> Job:
        """One job as it stands."""
        answer = self.unary(self._stub.GetJob, wire_message(trainer_pb2.GetJobRequest, job_id=job_id))
        return Job.from_wire(answer.job)

    def jobs(self, *, states: Iterable[JobState] = (), concept_name: str = "") -> Iterator[Job]:
        """All jobs of these states (none means all) and this concept (empty means all), the newest first."""
        token = ""
        while True:
            page = self.job_page(page_token=token, states=states, concept_name=concept_name)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    def job_page(
        self, *, page_size: int = 0, page_token: str = "", states: Iterable[JobState] = (), concept_name: str = ""
    ) -> JobPage:
        """One page of jobs; `page_size` 0 leaves it to the trainer."""
        request = wire_message(
            trainer_pb2.ListJobsRequest,
            page_size=page_size,
            page_token=page_token,
            states=[state.number() for state in states],
            concept_name=concept_name,
        )
        answer = self.unary(self._stub.ListJobs, request)
        return JobPage(tuple(Job.from_wire(job) for job in answer.jobs), answer.next_page_token)

    def watch(self, job_id: str) -> Iterator[JobEvent]:
        """Follow a job until it ends; the last event is the job in its final state, whatever that is.

        Goes on after the trainer was unavailable for a while, restarted for example; gives up after several tries in a
        row.
        """
        return JobWatch(lambda: self._watch_once(job_id)).events()

    def _watch_once(self, job_id: str) -> Iterator[JobEvent]:
        request = wire_message(trainer_pb2.WatchJobRequest, job_id=job_id)
        with self.errors():
            for response in BackgroundStream(
                lambda: self._stub.WatchJob(request, timeout=WATCH_TIMEOUT_SECONDS, metadata=self.metadata)
            ):
                match response.WhichOneof("event"):
                    case "job":
                        yield Job.from_wire(response.job)
                    case "progress":
                        yield JobProgress.from_wire(response.progress)
                    case "preview":
                        yield JobPreview.from_wire(response.preview)

    def wait(self, job_id: str) -> Job:
        """Wait for the end of a job and return it in its final state."""
        job = None
        for event in self.watch(job_id):
            if isinstance(event, Job):
                job = event
        if job is None:
            raise AssertionError("a watch ends with the job")
        return job

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; returns it as it stands, which may still be running. `wait` waits for its end."""
        answer = self.unary(self._stub.CancelJob, wire_message(trainer_pb2.CancelJobRequest, job_id=job_id))
        return Job.from_wire(answer.job)

    def concept(self, name: str, version: str = "") -> Concept:
        """One concept; without a version the newest."""
        request = trainer_pb2.GetConceptRequest(reference=ConceptReference(name, version).to_wire())
        answer = self.unary(self._stub.GetConcept, request)
        return Concept.from_wire(answer.concept)

    def concept_report(self, name: str, version: str = "") -> ConceptReport:
        """Whether a concept is fit for use, and what was measured; without a version the newest.

        Raises:
            DetexClientError: NOT_FOUND with the reason REPORT_NOT_FOUND where it was published without a report.
        """
        request = trainer_pb2.GetConceptReportRequest(reference=ConceptReference(name, version).to_wire())
        return ConceptReport.from_wire(self.unary(self._stub.GetConceptReport, request))

    def concepts(self, *, page_size: int = 0) -> Iterator[Concept]:
        """All concepts by name, each with its newest version first."""
        token = ""
        while True:
            request = wire_message(trainer_pb2.ListConceptsRequest, page_size=page_size, page_token=token)
            with self.errors():
                answer = self._stub.ListConcepts(request, timeout=self.timeout_seconds, metadata=self.metadata)
            yield from map(Concept.from_wire, answer.concepts)
            token = answer.next_page_token
            if not token:
                return

    def delete_concept(self, name: str, version: str = "") -> DeletedConcepts:
        """Delete one version of a concept, or all of them where none is named."""
        request = trainer_pb2.DeleteConceptRequest(reference=ConceptReference(name, version).to_wire())
        answer = self.unary(self._stub.DeleteConcept, request)
        return DeletedConcepts(tuple(map(ConceptReference.from_wire, answer.deleted)), tuple(answer.deleted_keys))

    def base_models(self) -> tuple[BaseModel, ...]:
        """The base models to train on, by name."""
        request = trainer_pb2.ListTrainableBaseModelsRequest()
        answer = self.unary(self._stub.ListTrainableBaseModels, request)
        return tuple(map(BaseModel.from_wire, answer.base_models))

    def methods(self, base_model: str = "") -> MethodDefaults:
        """The methods to train by, with the defaults that they have on a base model.

        Args:
            base_model: By name; empty for the trainer's default.
        """
        answer = self.unary(self._stub.ListMethods, trainer_pb2.ListMethodsRequest(base_model=base_model))
        return MethodDefaults.from_wire(answer)
