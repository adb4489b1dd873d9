"""Keys and values of all layers at once: results and gradients of the projection layer by layer."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, OwnedTokens, project
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import PROJECTIONS, FullDelta, KeyValueDeltas, LayerDelta, LowRankDelta
from detex_diffusion.key_value_vectors import LayerVectors
from detex_trainer.frozen import freeze_layers
from detex_trainer.frozen.projections import project_together

PROMPTS, TOKENS = 3, 6


def make_deltas(unet: UNet2DConditionModel, seed: int) -> tuple[KeyValueDeltas, list[nn.Parameter]]:
    generator = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = []
    deltas = {}
    for name, module in cross_attention_layers(unet).items():
        shapes = [getattr(module, projection).weight.shape for projection in PROJECTIONS]
        parameters += [nn.Parameter(torch.randn(shape, generator=generator) * 0.1) for shape in shapes]
        deltas[name] = LayerDelta(FullDelta(parameters[-2]), FullDelta(parameters[-1]))
    return deltas, parameters


def gradients(batch: KeyValueBatch, inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(())
    for key, value in batch.layers.values():
        for each in (key, value):
            total = total + (each * torch.randn(each.shape, generator=generator)).sum()
    return list(torch.autograd.grad(total, inputs, allow_unused=True))


@pytest.mark.parametrize("owners", ["none", "all", "some", "two"])
@pytest.mark.parametrize("places", [[0, 1, 2], [2, 0, 0, 1]])
def test_results_and_gradients_are_those_of_single_projections(
    base_model: BaseModel, owners: str, places: list[int]
) -> None:
    unet = copy.deepcopy(base_model.unet)
    freeze_layers(unet)
    hidden = torch.randn(
        PROMPTS, TOKENS, base_model.embedding_width, generator=torch.Generator().manual_seed(0)
    ).requires_grad_(True)
    owned, inputs = [], [hidden]
    for index in range({"none": 0, "all": 1, "some": 1, "two": 2}[owners]):
        deltas, parameters = make_deltas(unet, index)
        tokens = torch.zeros(PROMPTS, TOKENS, dtype=torch.bool)
        tokens[index, 2:4] = True
        owned.append(OwnedTokens(torch.ones_like(tokens) if owners == "all" else tokens, deltas))
        inputs += parameters
    one = project(base_model.unet, hidden, owned).select(places)
    together = project_together(unet, hidden, owned, None, places)
    assert together.rows == len(places)
    for name, pair in one.layers.items():
        torch.testing.assert_close(together.layers[name], pair, atol=1e-5, rtol=1e-4)
    expected, found = gradients(one, inputs), gradients(together, inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("with_deltas", [True, False])
def test_vectors_reach_the_tokens_that_are_named(base_model: BaseModel, with_deltas: bool) -> None:
    unet = copy.deepcopy(base_model.unet)
    freeze_layers(unet)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(PROMPTS, TOKENS, base_model.embedding_width, generator=generator).requires_grad_(True)
    deltas, inputs = make_deltas(unet, 0) if with_deltas else ({}, [])
    vectors = {}
    for name, module in cross_attention_layers(unet).items():
        widths = [getattr(module, projection).weight.shape[0] for projection in PROJECTIONS]
        vectors[name] = LayerVectors(
            *(torch.randn(2, width, generator=generator).requires_grad_(True) for width in widths)
        )
        inputs += [tensor for _, tensor in vectors[name].projections()]
    tokens = torch.zeros(PROMPTS, TOKENS, dtype=torch.bool)
    rows = torch.full((PROMPTS, TOKENS), -1)
    tokens[1, 1:5] = True
    rows[1, 2], rows[1, 3], rows[2, 0] = 1, 0, 1
    part = OwnedTokens(tokens, deltas, rows, vectors)
    places = [2, 1, 1, 0]
    one, bare = (
        project(base_model.unet, hidden, [each]).select(places) for each in (part, OwnedTokens(tokens, deltas))
    )
    together = project_together(unet, hidden, [part], None, places)
    for name, pair in one.layers.items():
        torch.testing.assert_close(together.layers[name], pair, atol=1e-5, rtol=1e-4)
        changed = (pair[0] - bare.layers[name][0]).abs().amax(dim=(1, 3)) > 0  # (B, T)
        assert changed.nonzero().tolist() == [[0, 0], [1, 2], [1, 3], [2, 2], [2, 3]]
    inputs = [hidden, *inputs]
    torch.testing.assert_close(gradients(together, inputs), gradients(one, inputs), atol=1e-4, rtol=1e-4)


def test_deltas_of_another_form_go_layer_by_layer(base_model: BaseModel) -> None:
    unet = copy.deepcopy(base_model.unet)
    freeze_layers(unet)
    [name, module] = next(iter(cross_attention_layers(unet).items()))
    outputs, width = module.to_k.weight.shape  # type: ignore[union-attr,misc]
    deltas = {name: LayerDelta(to_k=LowRankDelta(torch.ones(int(outputs), 1), torch.ones(1, int(width))))}
    hidden = torch.randn(1, TOKENS, int(width))
    part = OwnedTokens(torch.ones(1, TOKENS, dtype=torch.bool), deltas)
    one, together = project(base_model.unet, hidden, [part]), project_together(unet, hidden, [part])
    for layer, pair in one.layers.items():
        torch.testing.assert_close(together.layers[layer], pair, atol=1e-5, rtol=1e-4)
