import copy
import logging
import threading

import pytest
import torch
from diffusers import UNet2DConditionModel

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, project
from detex_diffusion.cross_attention import cross_attention_layers, cross_attention_sizes
from detex_diffusion.unet import KeyValueUNet

ROWS = 3


def inputs(
    base_model: BaseModel, height: int = 8, width: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(ROWS, 4, height, width, generator=generator)
    hidden = torch.randn(ROWS, 11, base_model.embedding_width, generator=generator)
    return latents, torch.tensor([3.0, 981.0, 500.5]), hidden


def plain_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    other = UNet2DConditionModel.from_config(unet.config)
    other.load_state_dict(unet.state_dict())
    return other.eval().requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 14), (7, 9)])
def test_rows_of_any_timestep_are_those_of_diffusers(base_model: BaseModel, height: int, width: int) -> None:
    latents, timesteps, hidden = inputs(base_model, height, width)
    got = KeyValueUNet(base_model.unet)(latents, timesteps, project(base_model.unet, hidden))
    plain = plain_copy(base_model.unet)
    for i in range(ROWS):
        one = slice(i, i + 1)
        wanted = plain(latents[one], timesteps[i], hidden[one]).sample
        torch.testing.assert_close(got[one], wanted, rtol=1e-5, atol=1e-5)


def test_the_wrapped_unet_stays_a_plain_one(base_model: BaseModel, caplog: pytest.LogCaptureFixture) -> None:
    latents, timesteps, hidden = inputs(base_model)
    wanted = plain_copy(base_model.unet)(latents, timesteps, hidden).sample
    wrapped = copy.deepcopy(base_model.unet)
    with caplog.at_level(logging.WARNING):
        first, second = KeyValueUNet(wrapped), KeyValueUNet(wrapped)
        key_values = project(wrapped, hidden)
        assert torch.equal(first(latents, timesteps, key_values), second(latents, timesteps, key_values))
    assert torch.equal(wrapped(latents, timesteps, hidden).sample, wanted)
    assert not caplog.records


def test_a_row_does_not_see_what_a_shorter_prompt_is_filled_up_with(base_model: BaseModel) -> None:
    latents, timesteps, hidden = inputs(base_model)
    lengths = [11, 4, 7]
    prompts = [project(base_model.unet, hidden[i : i + 1, :length]).row(0) for i, length in enumerate(lengths)]
    unet = KeyValueUNet(base_model.unet)
    together = unet(latents, timesteps, KeyValueBatch.stack(prompts))
    for i, prompt in enumerate(prompts):
        one = slice(i, i + 1)
        alone = unet(latents[one], timesteps[one], KeyValueBatch.stack([prompt]))
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 14), (7, 9)])
def test_attention_maps(base_model: BaseModel, height: int, width: int) -> None:
    latents, timesteps, hidden = inputs(base_model, height, width)
    unet = KeyValueUNet(base_model.unet)
    key_values = project(base_model.unet, hidden)
    sizes = cross_attention_sizes(base_model.unet, height, width)
    assert set(sizes.values()) == {(height, width), (-(-height // 2), -(-width // 2))}
    prediction, maps = unet.with_attention(latents, timesteps, key_values, sizes)
    torch.testing.assert_close(prediction, unet(latents, timesteps, key_values), rtol=1e-5, atol=1e-5)
    assert {name: tuple(attention.shape) for name, attention in maps.items()} == {
        name: (ROWS, 11, *size) for name, size in sizes.items()
    }
    for attention in maps.values():
        torch.testing.assert_close(attention.sum(dim=1), torch.ones_like(attention[:, 0]))
    chosen = torch.tensor([[2, 5], [0, 0], [10, 1]])
    layer = next(iter(sizes))
    _, few = unet.with_attention(latents, timesteps, key_values, [layer], chosen)
    assert list(few) == [layer]
    torch.testing.assert_close(few[layer], torch.stack([maps[layer][i, chosen[i]] for i in range(ROWS)]))


def test_attention_maps_are_softmax_of_queries_and_keys(base_model: BaseModel) -> None:
    latents, timesteps, hidden = inputs(base_model)
    name, module = next(iter(cross_attention_layers(base_model.unet).items()))
    seen = {}
    handle = module.to_q.register_forward_hook(lambda _module, _inputs, output: seen.update(query=output))
    _, maps = KeyValueUNet(base_model.unet).with_attention(latents, timesteps, project(base_model.unet, hidden), [name])
    handle.remove()
    query = seen["query"].view(ROWS, 64, module.heads, -1)
    key = module.to_k(hidden).view(ROWS, 11, module.heads, -1)
    scores = torch.einsum("bnhd,bthd->bhnt", query, key) / query.shape[-1] ** 0.5
    wanted = scores.softmax(dim=-1).mean(dim=1).transpose(1, 2).view(ROWS, 11, 8, 8)
    torch.testing.assert_close(maps[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_prediction_and_maps(base_model: BaseModel, checkpointing: bool) -> None:
    """Against finite differences, in double precision, also where activations are recomputed."""
    unet = copy.deepcopy(base_model.unet).double().train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    latents, timesteps, hidden = (tensor.double() for tensor in inputs(base_model))
    layers = list(cross_attention_layers(unet))[1:3]
    wrapped = KeyValueUNet(unet)

    def loss(states: torch.Tensor) -> torch.Tensor:
        prediction, maps = wrapped.with_attention(
            latents, timesteps, project(unet, states), layers, torch.tensor([[1], [2], [3]])
        )
        return prediction.square().mean() + sum(m[..., :2].mean() for m in maps.values())

    states = hidden.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(states), states)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    step = 1e-5 * direction
    with torch.no_grad():
        wanted = (loss(hidden + step) - loss(hidden - step)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), wanted, rtol=1e-6, atol=1e-9)


def test_threads_do_not_touch_each_other(base_model: BaseModel) -> None:
    unet = copy.deepcopy(base_model.unet)
    cases = [inputs(base_model, seed=seed) for seed in range(4)]
    batches = [project(unet, hidden) for _, _, hidden in cases]
    layer = next(iter(cross_attention_layers(unet)))
    wanted = [KeyValueUNet(unet).with_attention(c[0], c[1], b, [layer]) for c, b in zip(cases, batches, strict=True)]
    got: list[list[tuple[torch.Tensor, dict[str, torch.Tensor]]]] = [[] for _ in cases]
    start = threading.Barrier(len(cases))

    def work(i: int) -> None:
        own = KeyValueUNet(unet)
        start.wait(timeout=30)
        for _ in range(10):
            got[i].append(own.with_attention(cases[i][0], cases[i][1], batches[i], [layer]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for i, (prediction, maps) in enumerate(wanted):
        assert len(got[i]) == 10
        assert all(torch.equal(p, prediction) and torch.equal(m[layer], maps[layer]) for p, m in got[i])


def test_rows_must_agree(base_model: BaseModel) -> None:
    latents, timesteps, hidden = inputs(base_model)
    with pytest.raises(ValueError, match="3 rows of latents came with keys and values of 2 rows"):
        KeyValueUNet(base_model.unet)(latents, timesteps, project(base_model.unet, hidden[:2]))
