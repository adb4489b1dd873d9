"""The Python client of the detex services, and the `detex` command.

with TrainerClient("127.0.0.1:50051") as trainer, GeneratorClient("127.0.0.1:50052") as generator:
    concept = trainer.train("photos/", class_word="mug", name="my-mug")
    pictures = generator.generate(f"{concept.word} on a beach", count=4, seed=7)
    pictures[0].save("beach.png")
"""

from detex_client.concept import BaseModel, Concept, ConceptAttribute, ConceptReference, DeletedConcepts
from detex_client.concept_report import ConceptReport
from detex_client.connection import BearerToken, Tls
from detex_client.errors import DetexClientError, Violation
from detex_client.generator_client import GeneratorClient, RequestDone, RequestEvent, RequestFailed, ResidentConcept
from detex_client.hyperparameters import Hyperparameters
from detex_client.job import Job, JobEndedError, JobEvent, JobFailure, JobPage, JobPreview, JobProgress
from detex_client.method_defaults import MethodDefaults, MethodDescription
from detex_client.picture import (
    DenoisingProgress,
    GeneratedPicture,
    GenerationEvent,
    PicturePreview,
    PictureRequest,
    Provenance,
    Queued,
)
from detex_client.picture_content import Box, Edit, EditKind, Region, RegionMode
from detex_client.trainer_client import TrainerClient, TrainingEvent
from detex_client.training_photo import TrainingPhoto, find_training_photos
from detex_client.training_set import MaskView, StoredPhoto, TrainingSet
from detex_client.upload import UploadProgress
from detex_client.wire_enum import (
    AttributeStart,
    DeltaForm,
    JobPhase,
    JobState,
    MaskSource,
    Method,
    Priority,
    PriorPreservation,
    Solver,
    SubjectStart,
    Verdict,
)

__all__ = [
    "AttributeStart",
    "BaseModel",
    "BearerToken",
    "Box",
    "Concept",
    "ConceptAttribute",
    "ConceptReference",
    "ConceptReport",
    "DeletedConcepts",
    "DeltaForm",
    "DenoisingProgress",
    "DetexClientError",
    "Edit",
    "EditKind",
    "GeneratedPicture",
    "GenerationEvent",
    "GeneratorClient",
    "Hyperparameters",
    "Job",
    "JobEndedError",
    "JobEvent",
    "JobFailure",
    "JobPage",
    "JobPhase",
    "JobPreview",
    "JobProgress",
    "JobState",
    "MaskSource",
    "MaskView",
    "Method",
    "MethodDefaults",
    "MethodDescription",
    "PicturePreview",
    "PictureRequest",
    "PriorPreservation",
    "Priority",
    "Provenance",
    "Queued",
    "Region",
    "RegionMode",
    "RequestDone",
    "RequestEvent",
    "RequestFailed",
    "ResidentConcept",
    "Solver",
    "StoredPhoto",
    "SubjectStart",
    "Tls",
    "TrainerClient",
    "TrainingEvent",
    "TrainingPhoto",
    "TrainingSet",
    "UploadProgress",
    "Verdict",
    "Violation",
    "find_training_photos",
]
