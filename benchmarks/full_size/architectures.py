"""The published shapes of Stable Diffusion 1.5, 2.1 and XL, and small ones for dry runs.

From the config files of their diffusers folders. Weights are random: speed and memory do not depend on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from transformers import CLIPTextConfig

CLIP_VOCABULARY = 49_408
PROMPT_TOKENS = 77
_SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class FullSize:
    """A base model by its shapes.

    Attributes:
        name: For results.
        pixels: Side of the pictures it was made for.
        unet: Arguments of UNet2DConditionModel.
        text: Arguments of CLIPTextConfig for each text encoder.
        vae: Arguments of AutoencoderKL, beyond those that all share.
        scheduler: Contents of `scheduler_config.json`.
    """

    name: str
    pixels: int
    unet: Mapping[str, Any]
    text: tuple[Mapping[str, Any], ...]
    vae: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_xl(self) -> bool:
        """Whether it has two text encoders and added conditions."""
        return len(self.text) > 1

    @property
    def text_width(self) -> int:
        """Width of hidden states that cross-attention reads."""
        return int(self.unet["cross_attention_dim"])

    @property
    def pooled_width(self) -> int:
        """Width of the pooled text embedding; 0 where there is none."""
        return int(self.text[-1]["projection_dim"]) if self.is_xl else 0

    @property
    def latent_side(self) -> int:
        """Latents along a side of a picture."""
        levels = len(self.vae_config["block_out_channels"])
        return self.pixels >> (levels - 1)

    @property
    def vae_config(self) -> dict[str, Any]:
        """Arguments of AutoencoderKL."""
        shared: dict[str, Any] = {
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
        }
        values = shared | dict(self.vae)
        levels = len(values["block_out_channels"])
        blocks = {
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
        }
        return {**values, **blocks, "sample_size": self.pixels}

    def text_configs(self) -> list[CLIPTextConfig]:
        """The configs of its text encoders."""
        return [
            CLIPTextConfig(**{"vocab_size": CLIP_VOCABULARY, "max_position_embeddings": PROMPT_TOKENS, **values})
            for values in self.text
        ]


_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
_OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_OPEN_CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}

SD15 = FullSize(
    name="Stable Diffusion 1.5",
    pixels=512,
    unet={"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64},
    text=(_CLIP_L,),
    scheduler={**_SCHEDULER, "_class_name": "PNDMScheduler", "skip_prk_steps": True},
)
SD21 = FullSize(
    name="Stable Diffusion 2.1",
    pixels=768,
    unet={
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "upcast_attention": True,
        "sample_size": 96,
    },
    text=(_OPEN_CLIP_H,),
    scheduler={**_SCHEDULER, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
)
_XL_CONDITIONS = {"addition_embed_type": "text_time", "use_linear_projection": True}
_XL_SCHEDULER = {**_SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
SDXL = FullSize(
    name="Stable Diffusion XL",
    pixels=1024,
    unet={
        **_XL_CONDITIONS,
        "addition_time_embed_dim": 256,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
        "sample_size": 128,
        "transformer_layers_per_block": (1, 2, 10),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
    text=(_CLIP_L, _OPEN_CLIP_BIG_G),
    vae={"scaling_factor": 0.13025},
    scheduler=_XL_SCHEDULER,
)
_SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_XL = FullSize(
    name="small XL",
    pixels=64,
    unet={
        **_XL_CONDITIONS,
        "addition_time_embed_dim": 8,
        "attention_head_dim": (1, 2),
        "block_out_channels": (32, 64),
        "cross_attention_dim": 64,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
        "sample_size": 8,
        "transformer_layers_per_block": (1, 2),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    text=({**_SMALL_TEXT, "projection_dim": 32}, {**_SMALL_TEXT, "projection_dim": 24}),
    vae={"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "scaling_factor": 0.13025},
    scheduler=_XL_SCHEDULER,
)
TINY = FullSize(
    name="tiny",
    pixels=64,
    unet={
        "attention_head_dim": 2,
        "block_out_channels": (16,),
        "cross_attention_dim": 32,
        "down_block_types": ("CrossAttnDownBlock2D",),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 8,
        "up_block_types": ("CrossAttnUpBlock2D",),
    },
    text=({**_SMALL_TEXT, "projection_dim": 32},),
    vae={"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
    scheduler={**_SCHEDULER, "_class_name": "PNDMScheduler", "skip_prk_steps": True},
)
ARCHITECTURES: Mapping[str, FullSize] = MappingProxyType(
    {"sd15": SD15, "sd21": SD21, "sdxl": SDXL, "small-xl": SMALL_XL, "tiny": TINY}
)
