"""Concepts that are learned in one pass come out as they do alone."""

import math
from collections.abc import Mapping, Sequence

import pytest
import torch

from detex_diffusion.base_model import BaseModel
from detex_trainer.failures import DivergedError
from detex_trainer.hyperparameters import resolve_hyperparameters
from detex_trainer.training.loop import TrainingPack
from detex_trainer.training.run import TrainingRun
from detex_trainer.training_set import TrainingSet
from tests.trainer_method.conftest import make_training_set
from tests.trainer_method.learners import make_learner

TOLERANCE = 1e-4
ATTRIBUTES = {"detex": "pose background"}


class LossRecorder:
    """Keeps the losses of a run."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.stopped_at: int | None = None

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        self.losses.append(dict(losses))

    def before_stop(self, run: TrainingRun) -> None:
        self.stopped_at = run.step


def make_run(
    base_model: BaseModel, training_set: TrainingSet, method: str, *, seed: int, steps: int, **overrides: object
) -> TrainingRun:
    chosen = {"seed": seed, "steps": steps, "prior_loss_weight": 0.0, **overrides}
    learner, photo_set = make_learner(base_model, training_set, method, ATTRIBUTES.get(method, ""), **chosen)
    generator = torch.Generator().manual_seed(seed + 100)
    hyperparameters = resolve_hyperparameters(method, chosen)
    return TrainingRun(learner, photo_set, base_model.noise_schedule, hyperparameters, generator)


def run_all(base_model: BaseModel, runs: Sequence[TrainingRun]) -> list[list[dict[str, float]]]:
    """Train runs in one pack to their ends; the losses of each."""
    pack, recorders = TrainingPack(base_model), [LossRecorder() for _ in runs]
    for run, recorder in zip(runs, recorders, strict=True):
        pack.add(run, [recorder])
    while pack.runs:
        assert pack.advance() == {}
    return [recorder.losses for recorder in recorders]


def assert_close(found: Sequence[Mapping[str, float]], expected: Sequence[Mapping[str, float]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], abs=TOLERANCE, rel=TOLERANCE)


def weights(run: TrainingRun) -> list[torch.Tensor]:
    return [p.detach() for group in run.learner.parameter_groups() for p in group.parameters]


@pytest.mark.parametrize("method", ["detex", "textual_inversion", "custom_diffusion"])
def test_a_packed_job_ends_as_it_does_alone(base_model: BaseModel, training_set: TrainingSet, method: str) -> None:
    sets = [training_set, make_training_set(masks=False), training_set]
    lengths = [6, 3, 6]
    make = [
        lambda i=i: make_run(  # type: ignore[misc]
            base_model, sets[i], method, seed=i, steps=lengths[i], batch_size=2 + i, key_value_learning_rate=0.01
        )
        for i in range(3)
    ]
    packed_runs = [each() for each in make]
    packed = run_all(base_model, packed_runs)
    for i, each in enumerate(make):
        alone_run = each()
        [alone] = run_all(base_model, [alone_run])
        assert len(alone) == lengths[i]
        assert_close(packed[i], alone)
        for one, other in zip(weights(packed_runs[i]), weights(alone_run), strict=True):
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_losses_of_different_concepts_differ(base_model: BaseModel, training_set: TrainingSet) -> None:
    runs = [make_run(base_model, training_set, "detex", seed=seed, steps=2) for seed in (1, 2)]
    first, second = run_all(base_model, runs)
    assert abs(first[0]["total"] - second[0]["total"]) > 10 * TOLERANCE


def test_a_job_that_diverges_leaves_the_others_alone(base_model: BaseModel, training_set: TrainingSet) -> None:
    def make() -> TrainingRun:
        return make_run(base_model, training_set, "detex", seed=1, steps=4)

    [alone] = run_all(base_model, [make()])
    sick, well = make_run(base_model, training_set, "detex", seed=2, steps=4), make()
    with torch.no_grad():
        weights(sick)[0].fill_(math.nan)
    sick.keep_as_good()
    sick.restore(sick.state())  # it has nothing better to go back to
    pack, recorder = TrainingPack(base_model), LossRecorder()
    pack.add(sick, [])
    pack.add(well, [recorder])
    failures: dict[TrainingRun, DivergedError] = {}
    while pack.runs:
        failures |= pack.advance()
    assert failures.keys() == {sick}
    assert "not a finite number" in failures[sick].message
    assert_close(recorder.losses, alone)


def test_a_job_can_leave_a_pack_and_another_join_it(base_model: BaseModel, training_set: TrainingSet) -> None:
    def make(seed: int) -> TrainingRun:
        return make_run(base_model, training_set, "textual_inversion", seed=seed, steps=4)

    alone = [run_all(base_model, [make(seed)])[0] for seed in range(3)]
    pack, recorders = TrainingPack(base_model), [LossRecorder() for _ in range(3)]
    runs = [make(seed) for seed in range(3)]
    pack.add(runs[0], [recorders[0]])
    pack.add(runs[1], [recorders[1]])
    pack.advance()
    pack.leave(runs[0])
    assert recorders[0].stopped_at == 1
    pack.add(runs[2], [recorders[2]])
    while pack.runs:
        assert pack.advance() == {}
    assert_close(recorders[0].losses, alone[0][:1])
    assert_close(recorders[1].losses, alone[1])
    assert_close(recorders[2].losses, alone[2])
