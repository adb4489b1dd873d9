"""The best checkpoint by itself: of a few states of a learner that are kept, the good one that leaks least is taken.

A state is good where its denoising loss on fixed noise is within 2 % of the lowest. More steps hardly lower the loss
any more then, but they may burn pose and surroundings of the photos into the subject word, which the probe sees.
"""

from collections.abc import Mapping

from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.learning.methods.learner import Learner
from detex_trainer.learning.photos.dataset import PhotoSet
from detex_trainer.learning.resumable import PartState
from detex_trainer.learning.training.evaluation import measure
from detex_trainer.learning.training.leakage import LeakageProbe, outside_share
from detex_trainer.learning.training.run import TrainingRun
from detex_trainer.learning.training.state import Weights
from detex_trainer.report.training_report import Candidate

CANDIDATE_SHARES = (0.55, 0.7, 0.85, 1.0)
LOSS_TOLERANCE = 0.02
SHORTEST_COURSE = 50
"""Of fewer steps only the last is looked at."""

LARGEST_STATE_BYTES = 512 * 1024**2
"""Of larger learners no state but the last is kept."""


class CheckpointSelection:
    """Looks at a learner at a few steps, keeps what may be best, and brings it back; a `StepListener`, `Resumable`."""

    def __init__(self, learner: Learner, photo_set: PhotoSet, base_model: BaseModel, probe: LeakageProbe) -> None:
        """Before the first step.

        Args:
            learner: What is trained; brought back to its best state by `choose`.
            photo_set: What it is trained on.
            base_model: The frozen one.
            probe: Draws pictures.
        """
        self._learner = learner
        self._photo_set = photo_set
        self._base_model = base_model
        self._probe = probe
        self._weights = Weights(learner.parameter_groups())
        size_bytes = sum(
            parameter.numel() * parameter.element_size()
            for group in learner.parameter_groups()
            for parameter in group.parameters
        )
        self._keeps_several = size_bytes <= LARGEST_STATE_BYTES
        self._candidates: list[Candidate] = []
        self._kept: dict[int, Mapping[str, Tensor]] = {}

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        """Look at the learner where the step is one to look at."""
        del losses
        if run.step not in candidate_steps(run.steps, several=self._keeps_several):
            return
        candidate = self.look(run.step)
        self._candidates.append(candidate)
        self._kept[run.step] = self._weights.state().tensors
        best = best_candidate(self._candidates)
        lowest = min(each.loss for each in self._candidates)
        # A state can still be chosen later only if no other is as good in both.
        for each in self._candidates:
            worse = each.loss > lowest * (1 + LOSS_TOLERANCE)
            beaten = each is not best and each.loss >= best.loss and each.leakage >= best.leakage
            if worse or beaten:
                self._kept.pop(each.step, None)

    def before_stop(self, run: TrainingRun) -> None:
        """Nothing is to be saved: the state goes with the run's."""

    def look(self, step: int) -> Candidate:
        """Measure the learner as it stands."""
        measures = measure(self._learner, self._photo_set, self._base_model.noise_schedule)
        inside, share = measures.get("subject_attention_on_subject_alone"), measures.get("subject_share")
        return Candidate(
            step=step,
            measures=measures,
            attention_outside=None if inside is None or share is None else outside_share(inside, share),
            background_similarity=self._probe.similarity(self._learner.concept()),
        )

    def choose(self, last_step: int) -> tuple[Candidate, tuple[Candidate, ...]]:
        """Bring the learner to its best state.

        Args:
            last_step: Steps done.

        Returns:
            That state, and all that were looked at.
        """
        if not self._candidates:
            last = self.look(last_step)
            return last, (last,)
        best = best_candidate(self._candidates)
        self._weights.restore(PartState(self._kept[best.step]))
        return best, tuple(self._candidates)

    def state(self) -> PartState:
        """Candidates and the states kept of them."""
        return PartState(
            {f"{step}/{name}": tensor for step, kept in self._kept.items() for name, tensor in kept.items()},
            {"candidates": [candidate.model_dump(mode="json") for candidate in self._candidates]},
        )

    def restore(self, state: PartState) -> None:
        """Go back to a state."""
        self._candidates = [Candidate.model_validate(each) for each in state.values["candidates"]]
        kept: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            step, _, name = key.partition("/")
            kept.setdefault(int(step), {})[name] = tensor
        self._kept = dict(kept)


def candidate_steps(steps: int, *, several: bool = True) -> tuple[int, ...]:
    """The steps after which a learner is looked at, of so many; the last is always among them."""
    if steps < SHORTEST_COURSE or not several:
        return (steps,)
    return tuple(round(share * steps) for share in CANDIDATE_SHARES)


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """The one that leaks least of those whose loss is within 2 % of the lowest; of equals the later one."""
    lowest = min(candidate.loss for candidate in candidates)
    good = [candidate for candidate in candidates if candidate.loss <= lowest * (1 + LOSS_TOLERANCE)]
    return min(good, key=lambda candidate: (candidate.leakage, -candidate.step))
