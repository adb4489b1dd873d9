"""Blocks that are not trained: results and gradients of diffusers' and transformers' own under plain autograd."""

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.cross_attention import KEY_VALUES, RECORDER, AttentionRecorder, install_processors
from detex_trainer.frozen import freeze_layers
from detex_trainer.frozen.resnet import FrozenResidualBlock
from detex_trainer.frozen.text_layer import FrozenTextLayer
from detex_trainer.frozen.transformer import FrozenTransformerBlock

LAYER = "block.attn2"


def differentiated(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a fixed mixture of some outputs."""
    generator = torch.Generator().manual_seed(7)
    total = sum((each.float() * torch.randn(each.shape, generator=generator)).sum() for each in outputs)
    return list(torch.autograd.grad(total, inputs))


def assert_alike(
    call: Callable[[nn.Module, list[Tensor]], list[Tensor]],
    plain: nn.Module,
    frozen: nn.Module,
    inputs: list[Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if dtype is torch.float32 else {"atol": 0.15, "rtol": 0.1}
    found = []
    for module in (plain, frozen):
        given = [each.clone().requires_grad_(True) for each in inputs]
        outputs = call(module, given)
        found.append([*outputs, *differentiated(outputs, given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, **tolerance)


def frozen_copy(module: nn.Module) -> nn.Module:
    copied = nn.ModuleDict({"block": copy.deepcopy(module)})
    freeze_layers(copied)
    return copied["block"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inward", "outward"), [(16, 16), (16, 24)])
def test_residual_blocks(inward: int, outward: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = ResnetBlock2D(in_channels=inward, out_channels=outward, temb_channels=12, groups=4, eps=1e-5)
    plain = plain.eval().requires_grad_(False).to(dtype)
    frozen = frozen_copy(plain)
    assert type(frozen) is FrozenResidualBlock
    time = torch.randn(2, 12).to(dtype)
    inputs = [torch.randn(2, inward, 6, 5).to(dtype)]
    assert_alike(lambda module, given: [module(given[0], time)], plain, frozen, inputs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recorded", [False, True])
def test_transformer_blocks_with_and_without_attention_maps(recorded: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    heads, width, positions, tokens = 2, 16, 12, 5
    holder = nn.ModuleDict({"block": BasicTransformerBlock(heads * width, heads, width, cross_attention_dim=12).eval()})
    holder.requires_grad_(False).to(dtype)
    install_processors(holder)  # type: ignore[arg-type]
    plain = holder["block"]
    frozen = frozen_copy(plain)
    assert type(frozen) is FrozenTransformerBlock

    def call(module: nn.Module, given: list[Tensor]) -> list[Tensor]:
        hidden, key, value = given
        recorder = AttentionRecorder([LAYER], None) if recorded else None
        text = {KEY_VALUES: KeyValueBatch({LAYER: (key, value)}), RECORDER: recorder}
        output = module(hidden, cross_attention_kwargs=text)
        return [output, *recorder.maps.values()] if recorder is not None else [output]

    inputs = [torch.randn(3, positions, heads * width), *(torch.randn(3, heads, tokens, width) for _ in range(2))]
    assert_alike(call, plain, frozen, [each.to(dtype) for each in inputs], dtype)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_encoders(activation: str) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=9,
        hidden_act=activation,
    )
    plain = CLIPTextModel(config).eval().requires_grad_(False)
    frozen = frozen_copy(plain)
    assert sum(type(layer) is FrozenTextLayer for layer in frozen.modules()) == 2
    ids = torch.randint(0, 40, (3, 9))

    def call(module: nn.Module, given: list[Tensor]) -> list[Tensor]:
        table = module.get_input_embeddings()  # type: ignore[operator]
        hook = table.register_forward_hook(lambda _module, _inputs, output: output + given[0])
        try:
            return [module(ids).last_hidden_state]
        finally:
            hook.remove()

    assert_alike(call, plain, frozen, [torch.randn(3, 9, 16)])
    padded = torch.ones_like(ids)
    padded[0, 5:] = 0
    torch.testing.assert_close(
        frozen(ids, attention_mask=padded).last_hidden_state, plain(ids, attention_mask=padded).last_hidden_state
    )


def test_a_block_of_which_a_part_is_trained_after_all_gets_its_gradients(base_model: BaseModel) -> None:
    unet = copy.deepcopy(base_model.unet)
    freeze_layers(unet)
    blocks = [module for module in unet.modules() if isinstance(module, FrozenResidualBlock)]
    weight = blocks[0].conv1.weight
    weight.requires_grad_(True)
    time = torch.randn(1, blocks[0].time_emb_proj.in_features)
    blocks[0](torch.randn(1, blocks[0].in_channels, 4, 4), time).sum().backward()
    assert weight.grad is not None
    assert bool(weight.grad.any())


def test_blocks_of_another_kind_stay_as_they_are() -> None:
    blocks = [
        ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, time_embedding_norm="scale_shift"),
        ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, output_scale_factor=2.0),
        ResnetBlock2D(in_channels=8, temb_channels=4, groups=2, up=True),
        BasicTransformerBlock(8, 2, 4, only_cross_attention=True, cross_attention_dim=8),
        BasicTransformerBlock(8, 2, 4, activation_fn="gelu", cross_attention_dim=8),
        BasicTransformerBlock(8, 2, 4, attention_bias=True, cross_attention_dim=8),
    ]
    kinds = [type(block) for block in blocks]
    freeze_layers(nn.ModuleList(blocks))
    assert [type(block) for block in blocks] == kinds
