"""Tells the reporter of the steps of a job, and draws its previews."""

import dataclasses
import time
from collections.abc import Mapping

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import JobPreview, ProgressReporter
from detex_trainer.learning.methods.learner import Learner
from detex_trainer.learning.training.pictures import draw_pictures, to_png
from detex_trainer.learning.training.progress_meter import ProgressMeter
from detex_trainer.learning.training.run import TrainingRun

_REPORT_INTERVAL_SECONDS = 0.5


class StepObserver:
    """A `StepListener` between a run and the reporter of its job."""

    def __init__(
        self, spec: JobSpec, base_model: BaseModel, learner: Learner, reporter: ProgressReporter, meter: ProgressMeter
    ) -> None:
        """Counts the steps by a meter, which is part of the run's state."""
        self._spec = spec
        self._base_model = base_model
        self._learner = learner
        self._reporter = reporter
        self._meter = meter
        self._reported = -1.0

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        """Count the step; report it where the last report is some time ago."""
        self._meter.add(losses)
        now = time.monotonic()
        if now - self._reported >= _REPORT_INTERVAL_SECONDS or run.is_finished:
            self._reported = now
            progress = self._meter.progress()
            self._reporter.progress(
                dataclasses.replace(progress, gradient_norm=run.gradient_norm(), returns=run.returns)
            )
        interval = self._spec.hyperparameters.preview_interval_steps
        if interval and run.step % interval == 0:
            self._draw_preview(run.step)

    def before_stop(self, run: TrainingRun) -> None:
        """Nobody needs to be told."""

    def _draw_preview(self, step: int) -> None:
        name = self._spec.concept_name
        prompt = f"a photo of a [{name}]"
        concept = self._learner.concept().to(dtype=self._base_model.dtype)
        picture = draw_pictures(self._base_model, [prompt], {name: concept}, seeds=[self._spec.hyperparameters.seed])
        self._reporter.preview(JobPreview(step, prompt, to_png(picture[0])))
