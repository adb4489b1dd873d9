"""Training as the page sees it: three qualities, news of jobs, an estimate of the time."""

import base64
from enum import StrEnum
from threading import Lock, Thread
from typing import Any

from detex_client import DetexClientError, Job, JobPreview, JobProgress, JobState, TrainerClient
from detex_studio.broadcast import Broadcast
from detex_studio.errors import as_document
from detex_studio.settings import StudioSettings

_JOBS_FOR_PACE = 10


class Quality(StrEnum):
    """How long a product is learned."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


def steps_of(quality: Quality, trainer: TrainerClient, settings: StudioSettings) -> int:
    """Training steps of a quality, from the trainer's default on the base model."""
    default = int(trainer.methods(settings.base_model).methods[0].defaults["steps"])
    shares = {
        Quality.FAST: settings.fast_share,
        Quality.BALANCED: settings.balanced_share,
        Quality.BEST: settings.best_share,
    }
    return min(20_000, max(1, round(default * shares[quality])))


def seconds_per_step(trainer: TrainerClient) -> float | None:
    """How long a step took in the latest jobs, setting up and writing included; None where there were none."""
    page = trainer.job_page(page_size=_JOBS_FOR_PACE, states=[JobState.SUCCEEDED])
    paces = []
    for job in page.jobs:
        if job.start_time is not None and job.end_time is not None:
            steps = int(job.hyperparameters.get("steps") or 1)
            paces.append((job.end_time - job.start_time).total_seconds() / steps)
    return sorted(paces)[len(paces) // 2] if paces else None


def job_document(job: Job) -> dict[str, Any]:
    """A job for the page."""
    return {
        "job_id": job.job_id,
        "state": job.state.value,
        "concept": job.concept_name,
        "training_set_id": job.training_set_id,
        "steps": job.hyperparameters.get("steps"),
        "failure": None if job.failure is None else {"reason": job.failure.reason, "message": job.failure.message},
        "progress": None if job.progress is None else _progress(job.progress),
    }


def _progress(progress: JobProgress) -> dict[str, Any]:
    return {
        "phase": progress.phase.value,
        "step": progress.step,
        "total_steps": progress.total_steps,
        "time_left_seconds": progress.time_left_seconds,
        "waiting_for": progress.waiting_for,
    }


class JobNews:
    """Follows jobs, each once, however many pages look.

    Args:
        trainer: Where they run.
    """

    def __init__(self, trainer: TrainerClient) -> None:
        self._trainer = trainer
        self._lock = Lock()
        self._followed: dict[str, Broadcast] = {}

    def of(self, job_id: str) -> Broadcast:
        """News of a job; begins to follow it where nobody does. Raises DetexClientError where there is none."""
        with self._lock:
            known = self._followed.get(job_id)
            if known is not None and not known.has_ended:
                return known
        self._trainer.job(job_id)
        with self._lock:
            known = self._followed.get(job_id)
            if known is not None and not known.has_ended:
                return known
            news = self._followed[job_id] = Broadcast()
        Thread(target=self._follow, args=(job_id, news), name="detex job news", daemon=True).start()
        return news

    def _follow(self, job_id: str, news: Broadcast) -> None:
        try:
            for event in self._trainer.watch(job_id):
                match event:
                    case Job():
                        news.publish("job", {"event": "job", **job_document(event)})
                    case JobProgress():
                        news.publish("progress", {"event": "progress", **_progress(event)})
                    case JobPreview():
                        png = base64.b64encode(event.png).decode()
                        news.publish(f"preview {event.step}", {"event": "preview", "step": event.step, "png": png})
        except DetexClientError as error:
            news.publish("error", {"event": "error", **as_document(error)})
        finally:
            news.end()
            with self._lock:
                if self._followed.get(job_id) is news:
                    del self._followed[job_id]
