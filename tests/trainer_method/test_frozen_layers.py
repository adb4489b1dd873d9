"""Layers that are not trained: results and gradients of torch's own, and none for their weights."""

import copy

import pytest
import torch
from torch import nn

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.frozen import FrozenConvolution, FrozenLinear, freeze_base_model, freeze_layers
from detex_trainer.learning.training.loop import train
from detex_trainer.learning.training.run import TrainingRun
from tests.trainer_method.test_packing import LossRecorder, assert_close, make_run


def pair(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A layer as it is, and frozen."""
    layer.requires_grad_(False)
    frozen = nn.Sequential(copy.deepcopy(layer))
    freeze_layers(frozen)
    return layer, frozen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 123), (3, 7, 5)),
        (nn.Linear(24, 8, bias=False), (11, 24)),
        (nn.Conv2d(6, 10, 3, padding=1), (2, 6, 9, 7)),
        (nn.Conv2d(6, 10, 3), (3, 6, 5, 5)),
        (nn.Conv2d(16, 4, 1, bias=False), (1, 16, 4, 4)),
        (nn.Conv2d(3, 5, 5, padding=2), (2, 3, 8, 8)),
        (nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 8, 8)),
    ],
)
def test_results_and_gradients_are_those_of_torch(layer: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain, frozen = pair(copy.deepcopy(layer).to(dtype))
    inputs = [torch.randn(shape).to(dtype).requires_grad_(True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    outputs = [module(each) for module, each in zip((plain, frozen), inputs, strict=True)]
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype is torch.float32 else {"atol": 0.05, "rtol": 0.05}
    torch.testing.assert_close(outputs[1], outputs[0], **tolerance)
    weights = torch.randn(outputs[0].shape).to(dtype)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, **tolerance)
    assert all(parameter.grad is None for parameter in frozen.parameters())
    smaller = inputs[0].detach()[:1]
    torch.testing.assert_close(frozen(smaller), plain(smaller), **tolerance)


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear(4, 3), (2, 4)), (nn.Conv2d(4, 3, 3, padding=1), (1, 4, 6, 6))])
def test_a_layer_that_is_trained_after_all_gets_gradients_and_is_read_anew(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    _, frozen = pair(layer)
    values = torch.randn(shape)
    before = frozen(values)
    trained = copy.deepcopy(frozen)
    trained.requires_grad_(True)
    trained(values).sum().backward()
    weight = next(trained.parameters())
    assert weight.grad is not None
    with torch.no_grad():
        weight.add_(1.0)
    trained.requires_grad_(False)
    assert not torch.allclose(trained(values), before, atol=0.1)
    assert torch.equal(frozen(values), before)


def test_memory_that_is_scarce_keeps_layers_as_they_are(model_settings: BaseModelSettings) -> None:
    base_model = load_base_model(model_settings)
    freeze_base_model(base_model, free_bytes=1000)
    assert not any(isinstance(m, FrozenLinear | FrozenConvolution) for m in base_model.unet.modules())


def test_a_concept_is_learned_alike_on_frozen_layers(
    base_model: BaseModel, model_settings: BaseModelSettings, training_set: TrainingSet
) -> None:
    frozen_model = load_base_model(model_settings)
    freeze_base_model(frozen_model, free_bytes=10**12)
    assert any(isinstance(m, FrozenConvolution) for m in frozen_model.unet.modules())
    assert any(isinstance(m, FrozenLinear) for m in frozen_model.text_encoder.modules())
    recorders = []
    for model in (base_model, frozen_model):
        run: TrainingRun = make_run(model, training_set, "detex", seed=3, steps=4)
        recorders.append(LossRecorder())
        train(run, [recorders[-1]], lambda: False)
    assert_close(recorders[1].losses, recorders[0].losses)
