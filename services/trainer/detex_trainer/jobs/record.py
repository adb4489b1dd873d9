"""A job as the rest of the trainer sees it, apart from how it is stored."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from detex_core.artifact.manifest import AttributeName, ConceptName
from detex_trainer.domain.hyperparameters import Hyperparameters, Method
from detex_trainer.domain.packing import shares_passes
from detex_trainer.domain.progress import JobProgress
from detex_trainer.domain.training_set_record import TrainingSetId
from detex_trainer.jobs.state import ENDED, JobState


class JobOrder(BaseModel):
    """What a job is to do, with every default filled in when it was submitted.

    Attributes:
        concept_name: Name of the concept to publish.
        training_set_id: Photos to learn from.
        method: How to learn.
        hyperparameters: All hyperparameters.
        attributes: What has a word of its own per photo.
        base_model: Base model by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concept_name: ConceptName
    training_set_id: TrainingSetId
    method: Method
    hyperparameters: Hyperparameters
    attributes: tuple[AttributeName, ...]
    base_model: str

    @property
    def pack_key(self) -> str:
        """Equal for jobs that can be trained together, empty for one that cannot.

        A SHA-256 (hex) of base model, method, and sizes of pictures and attention maps.
        """
        if not shares_passes(self.method):
            return ""
        chosen = self.hyperparameters
        common = (self.base_model, self.method.value, chosen.resolution, chosen.attention_map_side)
        return hashlib.sha256(json.dumps(common).encode()).hexdigest()


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed.

    Attributes:
        reason: Stable reason in capitals, for machines.
        message: A sentence for people: what happened and what to do.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class PreviewRecord:
    """A preview picture in the object store.

    Attributes:
        step: Step at which it was drawn.
        prompt: Prompt it was drawn for.
        key: Key of the PNG in the object store.
    """

    step: int
    prompt: str
    key: str


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read.

    Attributes:
        sequence: Grows with each submission; orders jobs by age.
        job_id: Id for callers.
        tenant: Owner.
        order: What it is to do.
        state: Where it stands.
        create_time: When it was submitted.
        queue_time: When it last entered the queue.
        start_time: When a worker first took it; None before.
        end_time: When it ended; None before.
        progress: Latest progress; None before the first.
        failure: Set where the state is failed.
        concept_version: Version that was published; set where the state is succeeded.
        cancel_requested: True once its caller asked it to stop.
        attempts: How often a worker was started for it and not stopped on purpose.
        outages: How often it was put back because something that it needs did not answer.
        priority: Higher ones come first among the jobs of a tenant.
        deadline_time: When it is given up; None for never.
        interruption: Why the last attempt that is to be repeated ended; None where there was none.
        run_seconds: How long workers have had it, in attempts that are over.
    """

    sequence: int
    job_id: str
    tenant: str
    order: JobOrder
    state: JobState
    create_time: datetime
    queue_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    progress: JobProgress | None
    failure: JobFailure | None
    concept_version: str | None
    cancel_requested: bool
    attempts: int
    outages: int = 0
    priority: int = 0
    deadline_time: datetime | None = None
    interruption: JobFailure | None = None
    run_seconds: float = 0.0

    @property
    def has_ended(self) -> bool:
        """True where nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class JobPage:
    """A page of jobs.

    Attributes:
        jobs: The newest first.
        next_page_token: Where the next page begins; empty on the last page.
    """

    jobs: tuple[Job, ...]
    next_page_token: str
