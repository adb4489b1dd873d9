"""Jobs of the benchmark: one method on one subject, learned, drawn and kept, so that a run that was cut goes on.

A job's key holds all that its outcome depends on, but for the code: the base model's fingerprint, the photos, the
hyperparameters, and for the pictures the prompts, seeds, steps and guidance.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.quality import concepts
from benchmarks.quality.picture_plan import SUBJECT_TASKS, WORD_TASKS, PictureRequest, Task
from benchmarks.quality.variants import Variant
from benchmarks.showroom.renderer import Photo
from detex_core.artifact import ConceptArchive, Manifest
from detex_core.errors import DetexError
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.concept import Concept
from detex_diffusion.solver import Solver
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.report.concept_report import REPORT_FILE
from detex_trainer.report.training_report import Report


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn."""

    steps: int
    guidance_scale: float
    solver: Solver = Solver.DPM_SOLVER_PP_2M


@dataclass(frozen=True)
class Job:
    """One method on one subject; `variant` is None for the base model itself.

    Attributes:
        label: Of the variant.
        subject: Name of the subject, for people.
        photos: To learn from.
        requests: All pictures of the subject.
        variant: How to learn.
        base_model: Its settings.
        fingerprint: Of the base model.
        drawing: How to draw.
        folder: Work folder of all jobs.
        vocabulary: As of `JobSpec`.
    """

    label: str
    subject: str
    photos: tuple[Photo, ...]
    requests: tuple[PictureRequest, ...]
    variant: Variant | None
    base_model: BaseModelSettings
    fingerprint: str
    drawing: Drawing
    folder: Path
    vocabulary: AttributeVocabulary | None = None

    @property
    def learning_key(self) -> str:
        """Tells what is learned, and from what."""
        variant = self.variant
        knobs = None if variant is None else [variant.method.value, variant.hyperparameters.model_dump(mode="json")]
        photos = [hashlib.sha256(photo.image.tobytes() + photo.mask.tobytes()).hexdigest() for photo in self.photos]
        words = [] if self.vocabulary is None else [self.vocabulary.model_dump(mode="json")]
        return _key([self.fingerprint, knobs, photos, *words])

    @property
    def pictures_path(self) -> Path:
        """Where the pictures are kept."""
        content = [self.learning_key, asdict(self.drawing), [asdict(request) for request in self.requests]]
        return self.folder / "pictures" / f"{_key(content)}.npz"


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job.

    Attributes:
        requests: Those that this method can be asked.
        pictures: One for each, (n, height, width, 3) uint8.
        job_seconds: Wall time of learning; 0 for the base model.
        job_cpu_seconds: Processor time of learning.
        drawing_cpu_seconds: Processor time of drawing all pictures.
        artifact_bytes: Size of the published concept.
    """

    requests: tuple[PictureRequest, ...]
    pictures: NDArray[np.uint8]
    job_seconds: float
    job_cpu_seconds: float
    drawing_cpu_seconds: float
    artifact_bytes: int

    def images(self) -> list[Image.Image]:
        """The pictures as pictures."""
        return [Image.fromarray(picture) for picture in self.pictures]


def run_jobs(jobs: Sequence[Job], processes: int, threads: int) -> Iterator[Job | tuple[Job, str]]:
    """Run what is not there yet; yields each job that is done, or with the reason why it failed.

    Args:
        jobs: In the order in which to begin.
        processes: How many at a time.
        threads: Of torch in each process.
    """
    missing = [job for job in jobs if not job.pictures_path.exists()]
    yield from (job for job in jobs if job.pictures_path.exists())
    if processes == 1:
        for job in missing:
            reason = run_job(job, threads)
            yield job if reason is None else (job, reason)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, threads): job for job in missing}
        for future in as_completed(futures):
            reason = future.result()
            yield futures[future] if reason is None else (futures[future], reason)


def run_job(job: Job, threads: int) -> str | None:
    """Learn and draw; gives the reason where the trainer refused or gave up, and keeps nothing then."""
    torch.set_num_threads(threads)
    base_model = _base_model(job.base_model.model_dump_json())
    try:
        concept, learned = _learned(job, base_model)
    except DetexError as error:
        return str(error)
    requests = [request for request in job.requests if request.task in _tasks(concept)]
    started = time.process_time()
    pictures: dict[PictureRequest, Image.Image] = {}
    subject = [request for request in requests if request.task is not Task.CLASS]
    prompts = [request.plain_prompt if concept is None else request.prompt for request in subject]
    pictures |= zip(subject, _draw(job, base_model, prompts, concept, subject), strict=True)
    plain = [request for request in requests if request.task is Task.CLASS]
    if plain:
        drawer = base_model if concept is None else concepts.merged(base_model, concept)
        prompts = [request.plain_prompt for request in plain]
        pictures |= zip(plain, _draw(job, drawer, prompts, None, plain), strict=True)
    facts = learned | {"drawing_cpu_seconds": time.process_time() - started}
    _keep(job.pictures_path, np.stack([np.asarray(pictures[request]) for request in requests]), facts)
    return None


def outcome(job: Job) -> JobOutcome:
    """What came of a job that is done."""
    with np.load(job.pictures_path) as arrays:
        pictures, facts = arrays["pictures"], json.loads(str(arrays["facts"]))
    tasks = {Task(task) for task in facts.pop("tasks")}
    return JobOutcome(tuple(request for request in job.requests if request.task in tasks), pictures, **facts)


def report_of(job: Job) -> Report:
    """What the trainer itself says of a concept that was learned.

    Raises:
        FileNotFoundError: It was not.
    """
    manifest = Manifest.model_validate_json(json.dumps(_kept(job)["manifest"]))
    archive = ConceptArchive(FolderStore(job.folder / "store"))
    stored = archive.resolve(manifest.tenant, manifest.name, manifest.version)
    return Report.model_validate_json(archive.read(stored, REPORT_FILE))


def _learned(job: Job, base_model: BaseModel) -> tuple[Concept | None, dict[str, Any]]:
    """The concept and what it took, learned now or before."""
    if job.variant is None:
        nothing = {"job_seconds": 0.0, "job_cpu_seconds": 0.0, "artifact_bytes": 0}
        return None, nothing | {"tasks": [task.value for task in _tasks(None)]}
    path, store = _learned_path(job), job.folder / "store"
    if not path.exists():
        learned = concepts.learn_concept(
            job.photos, job.variant, job.base_model, base_model, store, job.learning_key, job.vocabulary
        )
        facts = {
            "job_seconds": learned.seconds,
            "job_cpu_seconds": learned.cpu_seconds,
            "artifact_bytes": sum(file.size_bytes for file in learned.manifest.files.values()),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"facts": facts, "manifest": learned.manifest.model_dump(mode="json")}), encoding="utf-8"
        )
        partial.replace(path)
    content = _kept(job)
    manifest = Manifest.model_validate_json(json.dumps(content["manifest"]))
    concept = concepts.published_concept(manifest, FolderStore(store), base_model)
    return concept, content["facts"] | {"tasks": [task.value for task in _tasks(concept)]}


def _learned_path(job: Job) -> Path:
    return job.folder / "learned" / f"{job.learning_key}.json"


def _kept(job: Job) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_learned_path(job).read_text(encoding="utf-8"))
    return content


def _tasks(concept: Concept | None) -> tuple[Task, ...]:
    """What the base model (None) or a concept can be asked."""
    if concept is None:
        return tuple(Task)
    words = WORD_TASKS if set(concepts.ATTRIBUTES) <= set(concept.attributes) else ()
    return (*SUBJECT_TASKS, *words, *((Task.CLASS,) if concepts.changes_the_base_model(concept) else ()))


def _draw(
    job: Job,
    base_model: BaseModel,
    prompts: Sequence[str],
    concept: Concept | None,
    requests: Sequence[PictureRequest],
) -> list[Image.Image]:
    seeds = [request.seed for request in requests]
    drawing = job.drawing
    return concepts.draw(
        base_model, prompts, concept, seeds, drawing.steps, drawing.guidance_scale, solver=drawing.solver
    )


@lru_cache(maxsize=1)
def _base_model(settings: str) -> BaseModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_base_model(BaseModelSettings.model_validate_json(settings), device)


def _keep(path: Path, pictures: NDArray[np.uint8], facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, pictures=pictures, facts=np.array(json.dumps(facts)))
    partial.replace(path)


def _key(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
