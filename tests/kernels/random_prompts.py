"""Keys and values of prompts, random, with and without regions."""

import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.cross_attention import cross_attention_layers, cross_attention_sizes, head_shape
from detex_diffusion.regions import Box, RegionMode, blended_key_values, box_coverage, joint_key_values, log_weight_maps

COVERAGES = [box_coverage(Box(0.0, 0.0, 0.5, 1.0), 16, 16), box_coverage(Box(0.5, 0.2, 1.0, 1.0), 16, 16)]


def random_prompt(base_model: BaseModel, tokens: int, seed: int) -> PromptKeyValues:
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, module in cross_attention_layers(base_model.unet).items():
        heads, head_dim = head_shape(module)
        key, value = (torch.randn(heads, tokens, head_dim, generator=generator) for _ in range(2))
        layers[name] = (key, value)
    return PromptKeyValues(layers)


def placed_prompts(base_model: BaseModel) -> list[PromptKeyValues]:
    """Ragged: plain ones, one with regions in one softmax whose words are mixed, one blended from three prompts."""
    sizes = set(cross_attention_sizes(base_model.unet, 8, 8).values())
    plain = [random_prompt(base_model, tokens, tokens) for tokens in (9, 30)]
    joint, scene, first, second = (random_prompt(base_model, tokens, tokens) for tokens in (12, 20, 7, 8))
    segments = torch.tensor([0, 0, 1, 1, 0, 2, 0, 2, 2, 0, 0, 0])
    placed_joint = joint_key_values(
        joint.layers, segments, log_weight_maps(COVERAGES, [1.0, 3.0], sizes, RegionMode.JOINT)
    )
    blended = blended_key_values(
        scene.layers, [first.layers, second.layers], log_weight_maps(COVERAGES, [1.0, 1.0], sizes, RegionMode.BLEND)
    )
    return [
        plain[0],
        PromptKeyValues(joint.layers, placed_joint),
        plain[1],
        PromptKeyValues(scene.layers, blended),
    ]
