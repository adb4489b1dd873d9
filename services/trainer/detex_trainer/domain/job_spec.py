"""All that a worker needs to know of its jobs, as JSON."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_serializer, model_validator

from detex_core.artifact.manifest import AttributeName, ConceptName, TenantName
from detex_core.settings import BaseModelSettings, Device, Dtype, ObjectStoreSettings
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import MAX_ATTRIBUTES
from detex_trainer.domain.hyperparameters import Hyperparameters, Method
from detex_trainer.domain.training_set_record import TrainingSetId

MOST_PACKED_JOBS = 16

JobId = Annotated[str, StringConstraints(pattern=r"^job-[0-9a-f]{16}$")]
PackId = Annotated[str, StringConstraints(pattern=r"^job-[0-9a-f]{16}(-[0-9]+)?$")]


class JobSpec(BaseModel):
    """A training job, ready to run.

    Attributes:
        job_id: Id of the job.
        tenant: Owner of training set and concept.
        concept_name: Name of the concept to publish.
        training_set_id: Photos to learn from.
        method: How to learn.
        hyperparameters: All hyperparameters, resolved.
        attributes: What has a word of its own per photo; empty for methods without attributes.
        base_model: Base model to train on.
        device: Where to train; `auto` takes a GPU where there is one.
        dtype: Type of the frozen weights; `auto` lets the device decide.
        allow_downloads: Whether the base model may be fetched from a hub.
        segmenter: Who finds the subject in photos without a mask, see `segmenters.open_segmenter`.
        work_folder: Where copies of base models that are not local are kept.
        object_store: Where photos are read from and the concept is published to; its secrets are left out of the JSON
            and come to the worker through its environment.
        checkpoint_interval_seconds: Time between two checkpoints; 0 keeps none but those of ordered stops.
        publication_patience_seconds: For so long a trained concept waits for a store that is full, read-only or away.
        gradient_checkpointing: Whether activations of the UNet are computed a second time in place of being kept.
        compile_unet: Whether torch compiles the UNet, where it can; not with gradient_checkpointing.
        cuda_graphs: Whether passes of a frozen base model are captured on a GPU, unless gradient_checkpointing is on.
        attribute_vocabulary: Plain words that attribute words may begin at; None for the built-in ones.
        niceness: Added to the worker's nice value, 0 to 19.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    job_id: JobId
    tenant: TenantName
    concept_name: ConceptName
    training_set_id: TrainingSetId
    method: Method
    hyperparameters: Hyperparameters
    attributes: tuple[AttributeName, ...] = Field(max_length=MAX_ATTRIBUTES)
    base_model: BaseModelSettings
    device: Device = "auto"
    dtype: Dtype = "auto"
    allow_downloads: bool = False
    segmenter: str = "color_contrast"
    work_folder: Path
    object_store: ObjectStoreSettings
    checkpoint_interval_seconds: float = Field(default=30.0, ge=0, le=86_400)
    publication_patience_seconds: float = Field(default=86_400.0, ge=0, le=30 * 86_400)
    gradient_checkpointing: bool = False
    compile_unet: bool = False
    cuda_graphs: bool = False
    attribute_vocabulary: AttributeVocabulary | None = None
    niceness: int = Field(default=0, ge=0, le=19)

    @property
    def pack_key(self) -> tuple[object, ...]:
        """What jobs that are trained together have in common: base model and where it lies, method, sizes."""
        sizes = (self.hyperparameters.resolution, self.hyperparameters.attention_map_side)
        return (self.base_model, self.method, sizes, self.device, self.dtype)

    @field_serializer("object_store")
    def _leave_out_secrets(self, settings: ObjectStoreSettings) -> dict[str, Any]:
        return settings.model_dump(mode="json", exclude={"access_key", "secret_key"})


class PackSpec(BaseModel):
    """What one worker is to train: a job, or several that share their passes of the base model.

    Attributes:
        pack_id: Names the worker; no two that live at the same time have the same.
        jobs: The jobs, all of one `JobSpec.pack_key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    pack_id: PackId
    jobs: tuple[JobSpec, ...] = Field(min_length=1, max_length=MOST_PACKED_JOBS)

    @model_validator(mode="after")
    def _check_jobs(self) -> Self:
        if len({job.pack_key for job in self.jobs}) > 1:
            raise ValueError("jobs: must be of the same base model, method and size")
        if len({job.job_id for job in self.jobs}) < len(self.jobs):
            raise ValueError("jobs: must be unique")
        return self
