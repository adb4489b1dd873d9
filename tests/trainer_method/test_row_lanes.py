"""Passes that several threads share by their rows: predictions, maps and gradients of one thread."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.cross_attention import cross_attention_layers, head_shape
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods import row_lanes
from detex_trainer.learning.training.loop import train
from tests.trainer_method.test_packing import LossRecorder, assert_close, make_run

ROWS, TOKENS = 13, 4  # three lanes of at least four rows


@pytest.fixture
def threads() -> Iterator[None]:
    """Three threads for a test."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def make_text(base_model: BaseModel) -> tuple[KeyValueBatch, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    layers, leaves = {}, []
    for name, module in cross_attention_layers(base_model.unet).items():
        shape = (ROWS, head_shape(module)[0], TOKENS, head_shape(module)[1])
        pair = [torch.randn(shape, generator=generator).requires_grad_(True) for _ in range(2)]
        layers[name] = (pair[0], pair[1])
        leaves += pair
    return KeyValueBatch(layers), leaves


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("maps", [False, True])
def test_predictions_maps_and_gradients_are_those_of_one_thread(base_model: BaseModel, maps: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(ROWS, *base_model.latent_shape(), generator=generator)
    timesteps = torch.tensor([3, 500, 20, 999, 0, 7, 640, 81, 998, 1, 333, 2, 750])
    unet = KeyValueUNet(base_model.unet)
    layers = list(cross_attention_layers(base_model.unet))[:2] if maps else []
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        text, leaves = make_text(base_model)
        prediction, attention = row_lanes.predict(unet, latents, timesteps, text, layers)
        assert list(attention) == layers
        outputs = [prediction, *attention.values()]
        # That of one map is left out: what nothing depends on gets no gradient, but the others do.
        total = torch.stack([each.square().sum() for each in outputs[: max(1, len(outputs) - 1)]]).sum()
        found.append([*outputs, *torch.autograd.grad(total, leaves)])
        assert torch.get_num_threads() == count
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("threads")
def test_without_gradients_nothing_is_kept(base_model: BaseModel) -> None:
    text, _ = make_text(base_model)
    latents = torch.randn(ROWS, *base_model.latent_shape(), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        prediction, _ = row_lanes.predict(KeyValueUNet(base_model.unet), latents, torch.arange(ROWS), text, [])
    assert not prediction.requires_grad


@pytest.mark.usefixtures("threads")
def test_the_failure_of_one_lane_is_that_of_the_pass(base_model: BaseModel) -> None:
    text, _ = make_text(base_model)
    latents = torch.randn(ROWS, *base_model.latent_shape())
    with pytest.raises(RuntimeError):
        row_lanes.predict(KeyValueUNet(base_model.unet), latents[:, :1], torch.arange(ROWS), text, [])
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_a_concept_is_learned_alike_by_any_number_of_threads_and_the_same_twice(
    base_model: BaseModel, training_set: TrainingSet
) -> None:
    recorders = []
    for count in (1, 3, 3):
        torch.set_num_threads(count)
        run = make_run(base_model, training_set, "detex", seed=3, steps=3, batch_size=12)
        recorders.append(LossRecorder())
        train(run, [recorders[-1]], lambda: False)
    assert_close(recorders[1].losses, recorders[0].losses)
    assert recorders[2].losses == recorders[1].losses
