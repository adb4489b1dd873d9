"""Learning a concept with the trainer's own code, and drawing pictures with it."""

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.quality.picture_plan import CONCEPT_NAME
from benchmarks.quality.variants import Variant
from benchmarks.showroom.renderer import Photo
from detex_core.artifact import ConceptArchive, Manifest
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings, ObjectStoreSettings
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.concept_file import FILE_NAME, load_concept
from detex_diffusion.solver import Solver
from detex_diffusion.unet_delta import ParameterDelta, unet_with_delta
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import JobPreview, JobProgress
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord, TrainingSetRecord
from detex_trainer.learning.methods import method_recipe
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.pictures import draw_pictures

ATTRIBUTES: Final = ("pose", "background")
_TENANT: Final = "benchmark"
_BATCH: Final = 32


@dataclass(frozen=True)
class LearnedConcept:
    """A concept and what it took.

    Attributes:
        concept: As the generator would load it.
        manifest: As published.
        seconds: Wall time of the whole job: preparing, training, publishing.
        cpu_seconds: Processor time of it.
    """

    concept: Concept
    manifest: Manifest
    seconds: float
    cpu_seconds: float


class _SilentReporter:
    def progress(self, progress: JobProgress) -> None:
        pass

    def preview(self, preview: JobPreview) -> None:
        pass

    def checkpoint(self, step: int, seconds: float) -> None:
        pass


def learn_concept(
    photos: Sequence[Photo],
    variant: Variant,
    settings: BaseModelSettings,
    base_model: BaseModel,
    folder: Path,
    key: str,
    vocabulary: AttributeVocabulary | None = None,
) -> LearnedConcept:
    """Train on photos with their exact masks, publish, and load what was published.

    Args:
        photos: Of one subject.
        variant: How to learn.
        settings: Of the base model, as the trainer would read them.
        base_model: The same, to load the concept for.
        folder: Of the object store; what other jobs left there, such as prior images of the class, is used again.
        key: Hexadecimal digits, 16 or more, that tell this job from all others.
        vocabulary: As of `JobSpec`.

    Raises:
        DetexError: As `train_concept`.
    """
    training_set = as_training_set(photos)
    recipe = method_recipe(variant.method)
    spec = JobSpec(
        job_id=f"job-{key[:16]}",
        tenant=_TENANT,
        concept_name=f"{CONCEPT_NAME}-{key}",
        training_set_id=training_set.record.training_set_id,
        method=variant.method,
        hyperparameters=variant.hyperparameters,
        attributes=ATTRIBUTES if recipe.learns_attributes else (),
        base_model=settings,
        device="cpu" if base_model.device.type == "cpu" else "cuda",
        work_folder=folder,
        object_store=ObjectStoreSettings(url=f"folder://{folder.resolve()}"),
        attribute_vocabulary=vocabulary,
    )
    store = FolderStore(folder)
    started, cpu_started = time.monotonic(), time.process_time()
    manifest = train_concept(spec, training_set, store, _SilentReporter(), lambda: False)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    return LearnedConcept(published_concept(manifest, store, base_model), manifest, seconds, cpu_seconds)


def published_concept(manifest: Manifest, store: FolderStore, base_model: BaseModel) -> Concept:
    """A published concept on the base model's device; raises as reading and loading it do."""
    archive = ConceptArchive(store)
    stored = archive.resolve(manifest.tenant, manifest.name, manifest.version)
    concept = load_concept(stored.manifest, archive.read(stored, FILE_NAME), base_model)
    return concept.to(device=base_model.device, dtype=base_model.dtype)


def as_training_set(photos: Sequence[Photo]) -> TrainingSet:
    """Photos of one subject with their masks, as the trainer takes them from an upload."""
    training_photos = []
    for index, photo in enumerate(photos):
        height, width = photo.mask.shape
        picture, mask = Image.fromarray(photo.image), Image.fromarray(photo.mask)
        digest, mask_digest = (hashlib.sha256(_png(each)).hexdigest() for each in (picture, mask))
        record = PhotoRecord(
            photo_index=index,
            width=width,
            height=height,
            sha256=digest,
            picture_sha256=digest,
            mask_sha256=mask_digest,
            mask_source=MaskSource.UPLOADED,
            mask_share=float(photo.mask.mean() / 255),
            caption="",
        )
        training_photos.append(TrainingPhoto(record, picture, mask))
    digests = "".join(f"{each.record.picture_sha256}{each.record.mask_sha256}" for each in training_photos)
    digest = hashlib.sha256(digests.encode()).hexdigest()
    record_of_set = TrainingSetRecord(
        training_set_id=f"ts-{digest[:16]}",
        tenant=_TENANT,
        digest=digest,
        class_word=photos[0].labels.subject.class_word,
        photos=tuple(each.record for each in training_photos),
        warnings=(),
        create_time=datetime.now(UTC),
    )
    return TrainingSet(record_of_set, tuple(training_photos))


def draw(
    base_model: BaseModel,
    prompts: Sequence[str],
    concept: Concept | None,
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float,
    solver: Solver = Solver.DPM_SOLVER_PP_2M,
) -> list[Image.Image]:
    """Draw a picture for each prompt, many at once.

    Args:
        base_model: What draws.
        prompts: In the prompt language.
        concept: What they call `subject`, or None.
        seeds: One for each prompt.
        steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        solver: How the reverse diffusion is solved.
    """
    pictures: list[Image.Image] = []
    concepts = {} if concept is None else {CONCEPT_NAME: concept}
    for start in range(0, len(prompts), _BATCH):
        part = slice(start, start + _BATCH)
        pictures += draw_pictures(
            base_model,
            prompts[part],
            concepts,
            seeds=seeds[part],
            steps=steps,
            guidance_scale=guidance_scale,
            solver=solver,
        )
    return pictures


def changes_the_base_model(concept: Concept) -> bool:
    """Whether, as in the method's paper, the weights of the base model are other ones after learning."""
    return bool(concept.unet_delta) or (bool(concept.key_value) and concept.scope == "prompt")


def merged(base_model: BaseModel, concept: Concept) -> BaseModel:
    """The base model with what a concept changes in it, as the method's paper leaves it: for every prompt."""
    deltas: dict[str, ParameterDelta] = dict(concept.unet_delta)
    for layer, layer_delta in concept.key_value.items():
        for projection, delta in layer_delta.projections():
            deltas[f"{layer}.{projection}.weight"] = delta.materialized()
    return replace(base_model, unet=unet_with_delta(base_model.unet, deltas)[0])


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
