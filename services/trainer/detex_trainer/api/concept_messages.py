"""Messages of concepts."""

from detex_core.artifact import ConceptReference, DeletedConcepts, StoredManifest
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.api.job_messages import timestamp
from detex_trainer.api.method_messages import method_message
from detex_trainer.base_models import BaseModelDescription
from detex_trainer.report.concept_report import ConceptReport
from detex_trainer.report.training_report import Verdict

_VERDICTS = {
    Verdict.FIT: trainer_pb2.VERDICT_FIT,
    Verdict.DOUBTFUL: trainer_pb2.VERDICT_DOUBTFUL,
    Verdict.UNFIT: trainer_pb2.VERDICT_UNFIT,
}


def concept_message(stored: StoredManifest) -> trainer_pb2.Concept:
    """A concept as callers see it."""
    manifest = stored.manifest
    return trainer_pb2.Concept(
        reference=_reference_message(stored.reference),
        method=method_message(manifest.method),
        class_word=manifest.class_word,
        attributes=[
            trainer_pb2.ConceptAttribute(name=attribute.name, count=attribute.count)
            for attribute in manifest.attributes
        ],
        base_model=manifest.base_model,
        base_model_fingerprint=manifest.base_model_fingerprint,
        create_time=timestamp(manifest.create_time),
        size_bytes=stored.size_bytes,
        manifest_sha256=stored.sha256,
    )


def report_message(found: ConceptReport) -> trainer_pb2.GetConceptReportResponse:
    """A report as callers see it."""
    return trainer_pb2.GetConceptReportResponse(
        reference=_reference_message(found.stored.reference),
        verdict=_VERDICTS[found.report.verdict],
        summary=found.report.summary,
        findings=found.report.findings,
        choice=found.choice,
        report_json=found.report_json,
        report_png=found.picture_png,
    )


def deletion_message(deleted: DeletedConcepts) -> trainer_pb2.DeleteConceptResponse:
    """What was deleted, as callers see it."""
    return trainer_pb2.DeleteConceptResponse(
        deleted=[_reference_message(reference) for reference in deleted.references],
        deleted_keys=deleted.deleted_keys,
    )


def base_model_message(description: BaseModelDescription, *, is_default: bool) -> common_pb2.BaseModel:
    """A base model as callers see it."""
    return common_pb2.BaseModel(
        name=description.name,
        fingerprint=description.fingerprint,
        width=description.width,
        height=description.height,
        prediction_type=description.prediction_type,
        is_default=is_default,
        family=description.family,
    )


def _reference_message(reference: ConceptReference) -> common_pb2.ConceptReference:
    return common_pb2.ConceptReference(name=reference.name, version=reference.version)
