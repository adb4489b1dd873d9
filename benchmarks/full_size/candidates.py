"""One denoising step with guidance, as detex and as diffusers compute it, on the same weights.

Legend: N images, R = 2 N rows of a UNet pass, C latent channels, s latents along a side, T text tokens, E text width,
P width of the pooled text embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.full_size.architectures import PROMPT_TOKENS, FullSize
from benchmarks.full_size.random_weights import random_model
from detex_diffusion.conditioning import PromptKeyValues, project
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.model_index import SIZE_CONDITIONS
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.attention_order import take_fastest_attention
from detex_generator.compute.capture import CudaCapture, eager
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.graphed_steps import GraphedSteps
from detex_generator.compute.plain_steps import PlainSteps, Steps
from detex_generator.compute.unet_kernels import install_kernels, over_same_weights, use_channels_last
from detex_generator.ops.choice import KernelChoice

DENOISING_STEPS = 25
STEPS_PER_RUN = 2
"""Denoising steps that a run of a candidate takes."""

_GUIDANCE_SCALE = 5.0
_FIRST_STEP = 3

Run = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Workload:
    """What one batch reads.

    Attributes:
        latents: (N, C, s, s) float32.
        hidden: (R, T, E), of the prompts and then of the negative prompts.
        pooled: (R, P), or None.
    """

    latents: Tensor
    hidden: Tensor
    pooled: Tensor | None

    @property
    def images(self) -> int:
        """N."""
        return len(self.latents)


class Bench:
    """A UNet of full size with random weights, and the ways to step it."""

    def __init__(self, architecture: FullSize, device: torch.device, dtype: torch.dtype, kernels: str) -> None:
        """Draw the weights.

        Args:
            architecture: Its shapes.
            device: Where it is.
            dtype: Of its weights.
            kernels: What detex computes by, as `DETEX_KERNELS`.
        """
        take_fastest_attention(device)
        self.architecture, self.device, self.dtype = architecture, device, dtype
        self._generator = torch.Generator(device).manual_seed(0)
        unet = random_model(lambda: UNet2DConditionModel(**architecture.unet), device, dtype, self._generator)
        use_channels_last(unet)
        # Copies of the modules over the same weights: each has attention and kernels of its own.
        self.plain = over_same_weights(unet)
        self._pixels_per_latent = architecture.pixels // architecture.latent_side
        self._schedule = NoiseSchedule.from_config(architecture.scheduler)
        self.choice = KernelChoice(kernels, device, dtype)
        install_kernels(unet, self.choice)
        self.unet = KeyValueUNet(unet, self._pixels_per_latent)
        torch_choice = KernelChoice("torch", device, dtype)
        self.steps: dict[str, Steps] = {
            "keys and values of prompts kept": PlainSteps(
                KeyValueUNet(over_same_weights(self.plain), self._pixels_per_latent), torch_choice
            ),
            "and kernels": GraphedSteps(self.unet, self.choice, eager),
        }
        capture = CudaCapture() if device.type == "cuda" else eager
        self.steps["and CUDA graphs"] = GraphedSteps(self.unet, self.choice, capture)

    def workload(self, images: int, prompts: int) -> Workload:
        """Noise for images, whose prompts go round so many distinct ones."""
        side, rows = self.architecture.latent_side, 2 * images
        latents = self._normal(images, 4, side, side).float()
        hidden = self._normal(rows, PROMPT_TOKENS, self.architecture.text_width)
        pooled = self._normal(rows, self.architecture.pooled_width) if self.architecture.is_xl else None
        places = [index % prompts for index in range(images)] + [images] * images
        return Workload(latents, hidden[places], None if pooled is None else pooled[places])

    def detex(self, steps: Steps, workload: Workload) -> Run:
        """Steps of the engine on prompts whose keys and values are at hand, as they are from the second step on."""
        table = step_table(self._schedule, Solver.EULER, DENOISING_STEPS)
        prompts = self.prompts(workload)
        scales: list[float | None] = [_GUIDANCE_SCALE] * workload.images

        def run() -> Tensor:
            latents, clean = workload.latents, torch.zeros_like(workload.latents)
            for step in range(_FIRST_STEP, _FIRST_STEP + STEPS_PER_RUN):
                inputs = StepInputs.of(table.rows[step].expand(len(latents), -1), latents, clean, scales)
                results = steps(inputs, prompts)
                latents, clean = results.latents, results.clean
            return latents

        return run

    def prompts(self, workload: Workload) -> list[PromptKeyValues]:
        """Keys and values of R rows; images of one prompt share them, as in the engine."""
        stacked = project(self.unet.unet, workload.hidden, pooled_text=workload.pooled)
        prompts = [stacked.row(row) for row in range(stacked.rows)]
        distinct: dict[bytes, PromptKeyValues] = {}
        for row, prompt in enumerate(prompts):
            prompts[row] = distinct.setdefault(workload.hidden[row].cpu().view(torch.uint8).numpy().tobytes(), prompt)
        return prompts

    def diffusers(self, unet: Any, workload: Workload) -> Run:
        """Steps as the loop of diffusers' pipelines has them."""
        scheduler = diffusers.EulerDiscreteScheduler.from_config(dict(self.architecture.scheduler))
        order = torch.arange(2 * workload.images, device=self.device).roll(workload.images)
        hidden = workload.hidden[order]  # negative prompts first
        added = None
        if workload.pooled is not None:
            side = self.architecture.pixels
            sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=self.dtype, device=self.device)
            assert sizes.shape[1] == SIZE_CONDITIONS  # noqa: S101
            added = {"text_embeds": workload.pooled[order], "time_ids": sizes.expand(2 * workload.images, -1)}

        def run() -> Tensor:
            scheduler.set_timesteps(DENOISING_STEPS, device=self.device)
            scheduler.set_begin_index(_FIRST_STEP)
            latents = workload.latents.to(self.dtype)
            for time in scheduler.timesteps[_FIRST_STEP : _FIRST_STEP + STEPS_PER_RUN]:
                read = scheduler.scale_model_input(torch.cat([latents] * 2), time)
                predicted = unet(read, time, encoder_hidden_states=hidden, added_cond_kwargs=added, return_dict=False)[
                    0
                ]
                negative, positive = predicted.chunk(2)
                predicted = negative + _GUIDANCE_SCALE * (positive - negative)
                latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
            return latents

        return run

    def swap(self) -> Run:
        """Put a concept's keys' and values' projections into diffusers' UNet, as its documentation has it for many."""
        modules = list(cross_attention_layers(self.plain).values())
        weights = [getattr(module, name).weight for module in modules for name in ("to_k", "to_v")]
        copies = [weight.clone() for weight in weights]

        def run() -> None:
            for weight, own in zip(weights, copies, strict=True):
                weight.copy_(own)

        return run

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device, dtype=self.dtype)
