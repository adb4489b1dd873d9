"""Stable Diffusion 1.5 and 2.1 in their full shapes; weights without storage, so nothing is computed."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from detex_diffusion.conditioning import project
from detex_diffusion.cross_attention import cross_attention_layers, cross_attention_sizes, unsupported_attention
from detex_diffusion.unet import KeyValueUNet

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
SD21 = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
    "upcast_attention": True,
    "sample_size": 96,
}


@pytest.mark.parametrize(("config", "height", "width"), [(SD15, 64, 64), (SD15, 96, 56), (SD21, 96, 96)])
def test_shapes_of_stable_diffusion(config: dict, height: int, width: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval().requires_grad_(False)
        hidden = torch.zeros(3, 77, config["cross_attention_dim"])
        latents, timesteps = torch.zeros(3, 4, height, width), torch.zeros(3)
    assert unsupported_attention(unet) is None
    key_values = project(unet, hidden)
    assert len(key_values.layers) == 16
    head_dims = {name: tuple(key.shape[1:]) for name, (key, _) in key_values.layers.items()}
    mid = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert head_dims[mid] == ((8, 77, 160) if config is SD15 else (20, 77, 64))
    sizes = cross_attention_sizes(unet, height, width)
    assert {size[0] for size in sizes.values()} == {height, height // 2, height // 4, height // 8}
    positions = torch.zeros(3, 2, dtype=torch.int64, device="meta")
    prediction, maps = KeyValueUNet(unet).with_attention(latents, timesteps, key_values, sizes, positions)
    assert prediction.shape == latents.shape
    assert {name: tuple(m.shape) for name, m in maps.items()} == {name: (3, 2, *size) for name, size in sizes.items()}
    assert list(sizes) == list(cross_attention_layers(unet))
