"""Low-rank adaptation of a UNet: what it computes, and what it does not."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode

from detex_diffusion.unet_delta import unet_with_delta
from detex_trainer.frozen import freeze_layers
from detex_trainer.learning.methods.trained_unet import TrainedUNet
from tests.tiny_models import unet_config


class Shapes(TorchDispatchMode):
    """Shapes of all that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen.append((str(func), result.shape))
        return result


@pytest.fixture(params=[False, True], ids=["plain", "frozen"])
def base(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**unet_config("sd2")).eval().requires_grad_(False)
    if request.param:
        freeze_layers(unet)
    return unet


def predicted(unet: UNet2DConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 24, generator=generator)
    return unet(latents, torch.tensor([3, 500]), encoder_hidden_states=text).sample


def trained(base: UNet2DConditionModel) -> TrainedUNet:
    found = TrainedUNet(base, 3, torch.Generator().manual_seed(2))
    with torch.no_grad():
        for number, parameter in enumerate(found.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.05)
    return found


def test_it_begins_at_the_base_model(base: UNet2DConditionModel) -> None:
    found = TrainedUNet(base, 3, torch.Generator().manual_seed(2))
    torch.testing.assert_close(predicted(found.unet), predicted(base))
    assert found.delta() == {}


def test_it_computes_what_its_delta_says(base: UNet2DConditionModel) -> None:
    found = trained(base)
    plain = copy.deepcopy(base)
    with_delta, _ = unet_with_delta(plain, found.delta())
    wanted = predicted(with_delta)
    assert not torch.allclose(predicted(base), wanted, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(predicted(found.unet), wanted, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_sum_of_weights(base: UNet2DConditionModel) -> None:
    found = trained(base)
    predicted(found.unet).square().sum().backward()
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    layer = found.unet.get_submodule(name)
    plain = copy.deepcopy(base).requires_grad_(False)
    with_delta, _ = unet_with_delta(plain, found.delta())
    weight = with_delta.get_submodule(name).weight.requires_grad_(True)
    predicted(with_delta).square().sum().backward()
    torch.testing.assert_close(layer.up.grad, weight.grad @ layer.down.detach().T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.down.grad, layer.up.detach().T @ weight.grad, rtol=1e-3, atol=1e-4)


def test_no_weight_is_formed(base: UNet2DConditionModel) -> None:
    found = trained(base)
    predicted(found.unet).sum().backward()  # lays weights out
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    shape = found.unet.get_submodule(name).weight.shape
    assert shape == (16, 24)
    with Shapes() as shapes:
        predicted(found.unet).sum().backward()
    formed = [
        operation for operation, seen in shapes.seen if seen == shape and operation.startswith(("aten.mm", "aten.add"))
    ]
    assert formed == []
    assert all(parameter.grad is not None for parameter in found.parameters())
