"""The gRPC servicer of the trainer."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from detex_core.artifact import ConceptArchive
from detex_core.errors import NotFoundError
from detex_core.tenancy import current_tenant
from detex_core.tenant_threads import TenantThreads
from detex_protos.v1 import trainer_pb2, trainer_pb2_grpc
from detex_trainer.api.change_wait import after_changes
from detex_trainer.api.concept_messages import (
    base_model_message,
    concept_message,
    deletion_message,
    report_message,
)
from detex_trainer.api.decoding_turns import DecodingTurns
from detex_trainer.api.job_messages import job_message, read_job_request, read_states, watch_message
from detex_trainer.api.job_watch import JobWatch
from detex_trainer.api.method_messages import method_descriptions
from detex_trainer.api.request_text import check_texts
from detex_trainer.api.submission import JobSubmission
from detex_trainer.api.training_set_messages import (
    photo_message,
    training_set_message,
    upload_message,
    upload_parts,
)
from detex_trainer.base_models import BaseModelCatalogue
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.intake.curation import TrainingSetCuration
from detex_trainer.intake.intake import TrainingSetIntake
from detex_trainer.jobs import JobRepository
from detex_trainer.jobs.page_token import page_size_of
from detex_trainer.metrics import TrainerMetrics
from detex_trainer.report.concept_report import read_report
from detex_trainer.retention.concept_deletion import ConceptDeletion
from detex_trainer.settings import TrainerSettings
from detex_trainer.supervision import Supervisor

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class TrainerParts:
    """What the servicer translates for."""

    settings: TrainerSettings
    intake: TrainingSetIntake
    curation: TrainingSetCuration
    training_sets: TrainingSetArchive
    submission: JobSubmission
    jobs: JobRepository
    watch: JobWatch
    supervisor: Supervisor
    concepts: ConceptArchive
    concept_deletion: ConceptDeletion
    base_models: BaseModelCatalogue
    metrics: TrainerMetrics
    threads: TenantThreads


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Translates calls; errors of the domain are turned into statuses by the server."""

    def __init__(self, parts: TrainerParts) -> None:
        self._parts = parts
        self._decoding = DecodingTurns()

    async def UploadTrainingSet(  # noqa: N802 - named by the contract
        self, request_iterator: AsyncIterator[trainer_pb2.UploadTrainingSetRequest], context: Context
    ) -> trainer_pb2.UploadTrainingSetResponse:
        """Take the photos of one subject."""
        side, outcome = self._base_model_side(), "kept"
        description = self._parts.base_models.known()
        reader = None if description is None else description.text_reader()
        try:
            record = await self._parts.intake.take(current_tenant(), upload_parts(request_iterator), side, reader)
        except BaseException:
            outcome = "refused"
            raise
        finally:
            self._parts.metrics.uploads.labels(outcome).inc()
        return trainer_pb2.UploadTrainingSetResponse(training_set=training_set_message(record))

    async def GetUpload(  # noqa: N802
        self, request: trainer_pb2.GetUploadRequest, context: Context
    ) -> trainer_pb2.GetUploadResponse:
        """How far an upload has come."""
        check_texts(request)
        tenant = current_tenant()
        record = await self._parts.intake.find(tenant, request.upload_id)
        return upload_message(record, self._parts.intake.received(tenant, request.upload_id))

    async def GetTrainingSet(  # noqa: N802
        self, request: trainer_pb2.GetTrainingSetRequest, context: Context
    ) -> trainer_pb2.GetTrainingSetResponse:
        """One training set."""
        check_texts(request)
        record = await self._parts.threads.run(self._parts.curation.record, current_tenant(), request.training_set_id)
        return trainer_pb2.GetTrainingSetResponse(training_set=training_set_message(record))

    async def GetMask(  # noqa: N802
        self, request: trainer_pb2.GetMaskRequest, context: Context
    ) -> trainer_pb2.GetMaskResponse:
        """The mask of a photo."""
        check_texts(request)
        view = await self._decoding.run(
            self._parts.curation.mask, current_tenant(), request.training_set_id, request.photo_index
        )
        return trainer_pb2.GetMaskResponse(
            mask_png=view.mask_png, preview_png=view.preview_png, photo=photo_message(view.photo)
        )

    async def ReplaceMask(  # noqa: N802
        self, request: trainer_pb2.ReplaceMaskRequest, context: Context
    ) -> trainer_pb2.ReplaceMaskResponse:
        """Put another mask in the place of one."""
        check_texts(request)
        record = await after_changes(
            lambda: self._decoding.run(
                self._parts.curation.replace_mask,
                current_tenant(),
                request.training_set_id,
                request.photo_index,
                request.mask,
                self._base_model_side(),
            )
        )
        return trainer_pb2.ReplaceMaskResponse(training_set=training_set_message(record))

    async def DeleteTrainingSet(  # noqa: N802
        self, request: trainer_pb2.DeleteTrainingSetRequest, context: Context
    ) -> trainer_pb2.DeleteTrainingSetResponse:
        """Delete a training set."""
        check_texts(request)
        deleted = await after_changes(
            lambda: self._parts.threads.run(self._parts.curation.delete, current_tenant(), request.training_set_id)
        )
        return trainer_pb2.DeleteTrainingSetResponse(deleted_keys=deleted)

    async def SubmitJob(  # noqa: N802
        self, request: trainer_pb2.SubmitJobRequest, context: Context
    ) -> trainer_pb2.SubmitJobResponse:
        """Queue a job."""
        check_texts(request)
        wanted, base_model = read_job_request(request), await self._parts.base_models.find(request.base_model)
        job = await after_changes(
            lambda: self._parts.threads.run(
                self._parts.submission.submit,
                current_tenant(),
                wanted,
                idempotency_key=request.idempotency_key,
                base_model=base_model,
            )
        )
        self._parts.supervisor.wake()
        return trainer_pb2.SubmitJobResponse(job=job_message(job))

    async def GetJob(  # noqa: N802
        self, request: trainer_pb2.GetJobRequest, context: Context
    ) -> trainer_pb2.GetJobResponse:
        """One job as it stands."""
        check_texts(request)
        job = await self._parts.threads.run(self._parts.jobs.get, current_tenant(), request.job_id)
        return trainer_pb2.GetJobResponse(job=job_message(job))

    async def ListJobs(  # noqa: N802
        self, request: trainer_pb2.ListJobsRequest, context: Context
    ) -> trainer_pb2.ListJobsResponse:
        """A page of jobs."""
        check_texts(request)
        page = await self._parts.threads.run(
            self._parts.jobs.list,
            current_tenant(),
            page_size=page_size_of(request.page_size),
            page_token=request.page_token,
            states=read_states(request.states),
            concept_name=request.concept_name,
        )
        return trainer_pb2.ListJobsResponse(
            jobs=[job_message(job) for job in page.jobs], next_page_token=page.next_page_token
        )

    async def WatchJob(  # noqa: N802
        self, request: trainer_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.WatchJobResponse]:
        """Follow a job until it ends."""
        check_texts(request)
        async with aclosing(self._parts.watch.watch(current_tenant(), request.job_id)) as news:
            async for each in news:
                yield watch_message(each)

    async def CancelJob(  # noqa: N802
        self, request: trainer_pb2.CancelJobRequest, context: Context
    ) -> trainer_pb2.CancelJobResponse:
        """Ask a job to stop."""
        check_texts(request)
        job = await self._parts.threads.run(self._parts.jobs.request_cancel, current_tenant(), request.job_id)
        self._parts.supervisor.cancel_requested(job.job_id)
        return trainer_pb2.CancelJobResponse(job=job_message(job))

    async def GetConcept(  # noqa: N802
        self, request: trainer_pb2.GetConceptRequest, context: Context
    ) -> trainer_pb2.GetConceptResponse:
        """One concept."""
        check_texts(request)
        reference = request.reference
        with _naming_reference():
            stored = await self._parts.threads.run(
                self._parts.concepts.resolve, current_tenant(), reference.name, reference.version
            )
        return trainer_pb2.GetConceptResponse(concept=concept_message(stored))

    async def GetConceptReport(  # noqa: N802
        self, request: trainer_pb2.GetConceptReportRequest, context: Context
    ) -> trainer_pb2.GetConceptReportResponse:
        """The report of a concept."""
        check_texts(request)
        reference = request.reference
        found = await self._parts.threads.run(
            read_report, self._parts.concepts, current_tenant(), reference.name, reference.version
        )
        return report_message(found)

    async def ListConcepts(  # noqa: N802
        self, request: trainer_pb2.ListConceptsRequest, context: Context
    ) -> trainer_pb2.ListConceptsResponse:
        """A page of concepts."""
        check_texts(request)
        page = await self._parts.threads.run(
            self._parts.concepts.list,
            current_tenant(),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return trainer_pb2.ListConceptsResponse(
            concepts=[concept_message(stored) for stored in page.concepts], next_page_token=page.next_page_token
        )

    async def DeleteConcept(  # noqa: N802
        self, request: trainer_pb2.DeleteConceptRequest, context: Context
    ) -> trainer_pb2.DeleteConceptResponse:
        """Delete one version of a concept, or all of them."""
        check_texts(request)
        reference = request.reference
        with _naming_reference():
            deleted = await self._parts.threads.run(
                self._parts.concept_deletion.delete, current_tenant(), reference.name, reference.version
            )
        return deletion_message(deleted)

    async def ListTrainableBaseModels(  # noqa: N802
        self, request: trainer_pb2.ListTrainableBaseModelsRequest, context: Context
    ) -> trainer_pb2.ListTrainableBaseModelsResponse:
        """The base models to train on."""
        check_texts(request)
        default = self._parts.settings.base_model().name
        return trainer_pb2.ListTrainableBaseModelsResponse(
            base_models=[
                base_model_message(description, is_default=description.name == default)
                for description in await self._parts.base_models.list()
            ]
        )

    async def ListMethods(  # noqa: N802
        self, request: trainer_pb2.ListMethodsRequest, context: Context
    ) -> trainer_pb2.ListMethodsResponse:
        """The methods with their defaults on a base model."""
        check_texts(request)
        description = await self._parts.base_models.describe(request.base_model)
        default = self._parts.settings.base_model().name
        return trainer_pb2.ListMethodsResponse(
            base_model=base_model_message(description, is_default=description.name == default),
            methods=method_descriptions(description.family),
        )

    def _base_model_side(self) -> int | None:
        """Shorter side of the default base model's pictures; None while unknown, for no upload waits to be warned."""
        description = self._parts.base_models.known()
        return None if description is None else min(description.width, description.height)


@contextmanager
def _naming_reference() -> Iterator[None]:
    """What is not there is named by its field of the request."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(f"reference: {error.message}", reason=error.reason) from error
