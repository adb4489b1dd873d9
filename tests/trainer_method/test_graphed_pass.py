"""Passes that are replayed: results and gradients of passes as they are, whatever they are filled up to."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods import graphed_pass
from detex_trainer.learning.methods.graphed_pass import Capture, GraphedPasses, Pass, Tensors, graph_passes, passes_of
from detex_trainer.learning.photos.dataset import PhotoBatches
from detex_trainer.learning.training.run import draw_noise
from tests.trainer_method.learners import make_word_learner

STEPS = 8


class HeldCapture:
    """As a CUDA graph does it: reads its own tensors, into which the given ones are copied, and keeps its shapes."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, run: Pass, arguments: Tensors) -> Pass:
        def replay(*given: Tensor) -> Tensors:
            self.replays += 1
            for held, each in zip(arguments, given, strict=True):
                assert (held.shape, held.dtype, held.requires_grad) == (each.shape, each.dtype, each.requires_grad)
            return run(*(each.contiguous() for each in given))

        return replay


def steps_of(base_model: BaseModel, training_set: TrainingSet) -> list[tuple[float, list[Tensor]]]:
    """Total loss and gradients of some steps."""
    learner, photo_set = make_word_learner(
        base_model, training_set, "pose background", subject_key_value_learning_rate=0.04, subject_tokens=2
    )
    with torch.no_grad():
        for parameter in learner.words.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(0)
    batches = PhotoBatches(photo_set, 3, generator)
    found = []
    for _ in range(STEPS):
        batch = next(batches)
        noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
        total = learner.losses(batch, noise, generator)["total"]
        parameters = [p for group in learner.parameter_groups() for p in group.parameters]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
        found.append((float(total), list(gradients)))
    return found


@contextmanager
def graphed(base_model: BaseModel, capture: Capture) -> Iterator[GraphedPasses]:
    """The base model is shared by all tests: leave it as it was."""
    yield graph_passes(base_model, capture)
    graphed_pass._PASSES.pop(base_model.unet)


def test_steps_are_those_of_passes_as_they_are(base_model: BaseModel, training_set: TrainingSet) -> None:
    expected = steps_of(base_model, training_set)
    capture = HeldCapture()
    with graphed(base_model, capture) as passes:
        found = steps_of(base_model, training_set)
    assert passes.captured >= 2  # text encoder and UNet
    assert capture.replays >= STEPS
    for (loss, gradients), (wanted_loss, wanted) in zip(found, expected, strict=True):
        assert loss == pytest.approx(wanted_loss, rel=1e-5)
        for gradient, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-3)


def test_what_cannot_be_captured_is_run_as_it_is(
    base_model: BaseModel, training_set: TrainingSet, caplog: pytest.LogCaptureFixture
) -> None:
    expected = steps_of(base_model, training_set)

    def refuse(run: Pass, arguments: Tensors) -> Pass:
        raise torch.OutOfMemoryError("no memory for a graph")

    with graphed(base_model, refuse) as passes:
        found = steps_of(base_model, training_set)
    assert passes.captured == 0
    assert [record.message for record in caplog.records].count(
        "steps of training run without CUDA graphs from here on: no memory for a graph"
    ) == 1
    assert [loss for loss, _ in found] == [loss for loss, _ in expected]


def test_base_models_that_nobody_asked_for_have_none(base_model: BaseModel) -> None:
    assert passes_of(base_model.unet) is None
