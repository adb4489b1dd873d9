"""Stable Diffusion 1.5, 2.1 and XL in their full shapes; weights without storage, so nothing is computed."""

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.full_size.architectures import SD15, SD21, SDXL, FullSize
from detex_diffusion.conditioning import project
from detex_diffusion.cross_attention import cross_attention_layers, cross_attention_sizes, unsupported_attention
from detex_diffusion.unet import KeyValueUNet

META = torch.device("meta")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class Published:
    """What the published models have: parameters by part, and cross-attention layers by (heads, head dim)."""

    unet: int
    text: tuple[int, ...]
    layers: dict[tuple[int, int], int]
    key_value_bytes: int


VAE_PARAMETERS = 83_653_863
PUBLISHED = {
    SD15.name: Published(859_520_964, (123_060_480,), {(8, 40): 5, (8, 80): 5, (8, 160): 6}, 3_843_840),
    SD21.name: Published(865_910_724, (340_387_840,), {(5, 64): 5, (10, 64): 5, (20, 64): 6}, 3_843_840),
    SDXL.name: Published(2_567_463_684, (123_060_480, 694_659_840), {(10, 64): 10, (20, 64): 60}, 25_625_600),
}


@pytest.mark.parametrize("architecture", [SD15, SD21, SDXL], ids=lambda each: each.name)
def test_parts_have_the_published_sizes(architecture: FullSize) -> None:
    published = PUBLISHED[architecture.name]
    with META:
        encoders = [
            model_class(config)
            for model_class, config in zip(
                (CLIPTextModel, CLIPTextModelWithProjection), architecture.text_configs(), strict=False
            )
        ]
        vae = AutoencoderKL(**architecture.vae_config)
    assert tuple(parameters(encoder) for encoder in encoders) == published.text
    assert sum(encoder.config.hidden_size for encoder in encoders) == architecture.text_width
    assert parameters(vae) == VAE_PARAMETERS


@pytest.mark.parametrize(
    ("architecture", "height", "width"), [(SD15, 64, 64), (SD15, 96, 56), (SD21, 96, 96), (SDXL, 128, 128)]
)
def test_a_pass_of_the_unet(architecture: FullSize, height: int, width: int) -> None:
    published = PUBLISHED[architecture.name]
    with META:
        unet = UNet2DConditionModel(**architecture.unet).eval().requires_grad_(False).to(torch.float16)
        hidden = torch.zeros(3, 77, architecture.text_width, dtype=torch.float16)
        pooled = torch.zeros(3, architecture.pooled_width, dtype=torch.float16) if architecture.is_xl else None
        latents, timesteps = torch.zeros(3, 4, height, width, dtype=torch.float16), torch.zeros(3)
    assert parameters(unet) == published.unet
    assert unsupported_attention(unet) is None
    key_values = project(unet, hidden, pooled_text=pooled)
    assert Counter((key.shape[1], key.shape[3]) for key, _ in key_values.layers.values()) == published.layers
    assert {key.shape[2] for key, _ in key_values.layers.values()} == {77}
    row_bytes = key_values.row(0).size_bytes - (0 if pooled is None else 2 * architecture.pooled_width)
    assert row_bytes == published.key_value_bytes
    sizes = cross_attention_sizes(unet, height, width)
    levels = {height // 2, height // 4} if architecture.is_xl else {height // side for side in (1, 2, 4, 8)}
    assert {size[0] for size in sizes.values()} == levels
    positions = torch.zeros(3, 2, dtype=torch.int64, device=META)
    prediction, maps = KeyValueUNet(unet).with_attention(latents, timesteps, key_values, sizes, positions)
    assert prediction.shape == latents.shape
    assert {name: tuple(m.shape) for name, m in maps.items()} == {name: (3, 2, *size) for name, size in sizes.items()}
    assert list(sizes) == list(cross_attention_layers(unet))
