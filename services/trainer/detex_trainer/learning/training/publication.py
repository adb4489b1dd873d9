"""Publishing what was learned: compression, report, manifest."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import torch

from detex_core import __version__
from detex_core.artifact import Attribute, ConceptDraft, Manifest, publish_concept
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, compress, key_value_form, unet_form
from detex_diffusion.concept_file import FILE_NAME, save_concept
from detex_trainer.domain.failures import DivergedError
from detex_trainer.domain.hyperparameters import DeltaForm, Hyperparameters
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set_record import TrainingSetRecord
from detex_trainer.report.concept_report import PICTURE_FILE, REPORT_FILE
from detex_trainer.report.training_report import Report

_DTYPES: dict[DeltaForm, torch.dtype] = {DeltaForm.FULL: torch.float32, DeltaForm.LOW_RANK: torch.float16}


@dataclass(frozen=True)
class WrittenConcept:
    """A concept as it will be stored.

    Attributes:
        concept: With its deltas in the form asked for.
        data: Contents of concept.safetensors: float32 for the full form, which is exact, float16 for the low-rank one.
        energy_kept: Share of the deltas' energy that the form keeps.
    """

    concept: Concept
    data: bytes
    energy_kept: float


def write_concept(concept: Concept, hyperparameters: Hyperparameters) -> WrittenConcept:
    """Bring a concept into the form asked for; raises DivergedError where a number is too large for its type."""
    energy_kept = 1.0
    if hyperparameters.delta_form is DeltaForm.LOW_RANK and (concept.key_value or concept.unet_delta):
        concept, energy_kept = compress(concept, hyperparameters.low_rank_energy)
    dtype = _DTYPES[hyperparameters.delta_form]
    largest = max(float(tensor.abs().max()) for tensor in concept.tensors().values())
    if not largest <= torch.finfo(dtype).max:
        raise DivergedError(
            f"The trained weights have grown to {largest:.3g}, beyond the range of {dtype}; lower the learning rates "
            "and submit the job again."
        )
    return WrittenConcept(concept, save_concept(concept, dtype), energy_kept)


def publish(
    store: ObjectStore,
    spec: JobSpec,
    training_set: TrainingSetRecord,
    base_model: BaseModel,
    written: WrittenConcept,
    report: Report,
    picture: Callable[[str], bytes],
    create_time: datetime | None = None,
) -> Manifest:
    """Publish a concept with its report, once for each job; `picture` draws the report of a version.

    With the same `create_time`, a second try writes the same version.

    Raises as `publish_concept`.
    """
    concept, hyperparameters = written.concept, spec.hyperparameters
    metrics = {
        **{f"loss_{name}": loss for name, loss in report.losses.items()},
        **{f"{name}_before": value for name, value in report.before.items()},
        **{f"{name}_after": value for name, value in report.after.items()},
        "delta_share": report.delta_share,
        "chosen_step": report.chosen_step,
        "training_seconds": report.seconds,
    }
    draft = ConceptDraft(
        name=spec.concept_name,
        tenant=spec.tenant,
        method=spec.method.value,
        base_model=base_model.name,
        base_model_fingerprint=base_model.fingerprint,
        class_word=training_set.class_word,
        subject_tokens=concept.subject_tokens,
        embedding_width=base_model.embedding_width,
        attributes=tuple(Attribute(name=name, count=count) for name, count in concept.attribute_counts.items()),
        key_value=key_value_form(concept, written.energy_kept),
        unet=unet_form(concept, written.energy_kept),
        dtype="float32" if hyperparameters.delta_form is DeltaForm.FULL else "float16",
        training_set_digest=training_set.digest,
        hyperparameters=hyperparameters.model_dump(mode="json"),
        metrics=metrics,
        trainer_version=__version__,
    )
    files = {FILE_NAME: written.data, REPORT_FILE: report.model_dump_json(indent=2).encode()}
    key = outcome_key(spec.tenant, spec.job_id)
    labelled = {PICTURE_FILE: picture}
    return publish_concept(store, draft, files, create_time=create_time, outcome_key=key, labelled=labelled).manifest
