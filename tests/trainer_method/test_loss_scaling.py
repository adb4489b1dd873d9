"""Losses scaled against underflow in float16: the same updates, none after an overflow, all of it resumable."""

import json

import pytest
import torch
from torch import nn

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods.learner import ParameterGroup
from detex_trainer.learning.resumable import PartState
from detex_trainer.learning.training.loop import train
from detex_trainer.learning.training.optimizer import ConceptOptimizer
from detex_trainer.learning.training.run import TrainingRun
from tests.trainer_method.learners import make_learner
from tests.trainer_method.test_packing import LossRecorder, assert_close

STEPS = 10


def make_optimizer(values: torch.Tensor, *, scales_losses: bool) -> tuple[nn.Parameter, ConceptOptimizer]:
    parameter = nn.Parameter(values.clone())
    group = ParameterGroup("subject", [parameter], 0.1)
    return parameter, ConceptOptimizer([group], STEPS, scales_losses=scales_losses)


def advance(parameter: nn.Parameter, optimizer: ConceptOptimizer, factor: float = 1.0) -> None:
    optimizer.zero_grad()
    optimizer.scaled((parameter.square() * factor).sum()).backward()
    optimizer.update()


def scale_of(optimizer: ConceptOptimizer) -> float:
    return float(optimizer.scaled(torch.ones(())))


def test_updates_are_those_without_a_scale() -> None:
    found = []
    for scales_losses in (False, True):
        parameter, optimizer = make_optimizer(torch.tensor([1.0, -2.0, 3.0]), scales_losses=scales_losses)
        for _ in range(STEPS):
            advance(parameter, optimizer)
        found.append(parameter.detach())
    torch.testing.assert_close(found[1], found[0])


def test_a_loss_is_itself_where_nothing_is_scaled() -> None:
    _, optimizer = make_optimizer(torch.ones(1), scales_losses=False)
    loss = torch.tensor(3.0)
    assert optimizer.scaled(loss) is loss


def test_the_update_of_a_step_that_overflows_is_left_out_and_the_scale_halved() -> None:
    parameter, optimizer = make_optimizer(torch.ones(2), scales_losses=True)
    advance(parameter, optimizer)
    before, scale = parameter.detach().clone(), scale_of(optimizer)
    advance(parameter, optimizer, factor=1e36)
    assert torch.equal(parameter.detach(), before)
    assert scale_of(optimizer) == scale / 2
    advance(parameter, optimizer)
    assert not torch.equal(parameter.detach(), before)


def test_a_step_without_gradients_changes_nothing() -> None:
    parameter, optimizer = make_optimizer(torch.ones(2), scales_losses=True)
    optimizer.zero_grad()
    optimizer.update()
    assert torch.equal(parameter.detach(), torch.ones(2))


def test_the_scale_goes_with_the_state() -> None:
    parameter, optimizer = make_optimizer(torch.ones(2), scales_losses=True)
    advance(parameter, optimizer)
    advance(parameter, optimizer, factor=1e36)
    state = optimizer.state()
    values = json.loads(json.dumps(dict(state.values)))
    other, resumed = make_optimizer(parameter.detach(), scales_losses=True)
    resumed.restore(PartState(state.tensors, values))
    assert scale_of(resumed) == scale_of(optimizer)
    advance(parameter, optimizer)
    advance(other, resumed)
    assert torch.equal(parameter, other)


@pytest.mark.parametrize("method", ["detex", "custom_diffusion"])
def test_a_concept_is_learned_alike_with_scaled_losses(
    base_model: BaseModel, training_set: TrainingSet, method: str
) -> None:
    recorders = []
    for scales_losses in (False, True):
        learner, photo_set = make_learner(base_model, training_set, method, steps=4, prior_loss_weight=0.0)
        hyperparameters = resolve_hyperparameters(method, {"steps": 4})
        generator = torch.Generator().manual_seed(5)
        run = TrainingRun(
            learner,
            photo_set,
            base_model.noise_schedule,
            hyperparameters,
            generator,
            scales_losses=scales_losses,
        )
        recorders.append(LossRecorder())
        train(run, [recorders[-1]], lambda: False)
    assert_close(recorders[1].losses, recorders[0].losses)
