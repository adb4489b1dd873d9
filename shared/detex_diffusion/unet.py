"""The UNet that knows no concept: it reads keys and values computed beforehand, each row with its own timestep.

Legend: B rows, C latent channels, h and w latent height and width, T text positions, M chosen text positions.
"""

from collections.abc import Collection
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.cross_attention import (
    KEY_VALUES,
    RECORDER,
    AttendedText,
    AttentionRecorder,
    cross_attention_sizes,
    install_processors,
)
from detex_diffusion.model_index import SIZE_CONDITIONS


class KeyValueUNet:
    """Runs a diffusers UNet on keys and values.

    The UNet's attention processors are replaced once by stateless ones that fall back to diffusers' where no keys and
    values are given; all that belongs to a call travels through its arguments. So several instances over one UNet, and
    several threads, do not touch each other, gradient checkpointing recomputes what it computed, and the UNet stays
    usable as a plain diffusers UNet.
    """

    def __init__(self, unet: UNet2DConditionModel, pixels_per_latent: int = 8) -> None:
        """Wrap a UNet of Stable Diffusion 1.x, 2.x or XL.

        Args:
            unet: Which.
            pixels_per_latent: The VAE's; XL's UNet is told the size of pictures in pixels.
        """
        install_processors(unet)
        self.unet = unet
        self._pixels_per_latent = pixels_per_latent
        self._takes_added_conditions = unet.config.addition_embed_type == "text_time"

    def over(self, unet: UNet2DConditionModel) -> "KeyValueUNet":
        """The same for another UNet of the same kind."""
        return KeyValueUNet(unet, self._pixels_per_latent)

    def __call__(self, latents: Tensor, timesteps: Tensor, key_values: AttendedText) -> Tensor:
        """What the UNet predicts.

        Args:
            latents: (B, C, h, w), after `solver.scale_input`, of the UNet's type.
            timesteps: (B,), integers or fractions, each row its own.
            key_values: Of B rows.

        Returns:
            (B, C, h, w).
        """
        return self._predict(latents, timesteps, key_values, None)

    def with_attention(
        self,
        latents: Tensor,
        timesteps: Tensor,
        key_values: KeyValueBatch,
        layers: Collection[str],
        positions: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the UNet predicts, and what it attends to.

        Args:
            latents: As in a call.
            timesteps: As in a call.
            key_values: As in a call.
            layers: Names of cross-attention layers, see `cross_attention.cross_attention_sizes` for those of a size.
            positions: (B, M) int64, text positions of interest in each row; None for all T.

        Returns:
            The prediction (B, C, h, w), and by layer the attention maps (B, M, map height, map width): probabilities
            over text positions, averaged over heads, differentiable, in float32 or wider.

        Raises:
            ValueError: A row has regions, whose text positions are not those of the others.
        """
        if key_values.regional is not None:
            raise ValueError("attention maps are of rows without regions")
        recorder = AttentionRecorder(layers, positions)
        prediction = self._predict(latents, timesteps, key_values, recorder)
        sizes = cross_attention_sizes(self.unet, latents.shape[-2], latents.shape[-1])
        return prediction, {layer: maps.view(*maps.shape[:2], *sizes[layer]) for layer, maps in recorder.maps.items()}

    def _predict(
        self, latents: Tensor, timesteps: Tensor, key_values: AttendedText, recorder: AttentionRecorder | None
    ) -> Tensor:
        if key_values.rows != latents.shape[0]:
            raise ValueError(f"{latents.shape[0]} rows of latents came with keys and values of {key_values.rows} rows")
        prediction: Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=None,
            added_cond_kwargs=self._added_conditions(latents, key_values) if self._takes_added_conditions else None,
            cross_attention_kwargs={KEY_VALUES: key_values, RECORDER: recorder},
            return_dict=False,
        )[0]
        return prediction

    def _added_conditions(self, latents: Tensor, key_values: AttendedText) -> dict[str, Any]:
        """What Stable Diffusion XL adds to the embedding of the timestep: pooled text, and the size of the picture.

        The size stands for the original size and the target size, with a crop from the corner: a picture as it is.
        """
        if key_values.pooled_text is None:
            raise ValueError("the UNet takes a pooled text embedding, and the rows have none")
        height, width = (side * self._pixels_per_latent for side in latents.shape[-2:])
        # Made of fills, which a CUDA graph can capture; copies from the host it cannot.
        sizes = torch.zeros(latents.shape[0], SIZE_CONDITIONS, device=latents.device)
        sizes[:, 0::4] = height
        sizes[:, 1::4] = width
        return {"text_embeds": key_values.pooled_text, "time_ids": sizes}
