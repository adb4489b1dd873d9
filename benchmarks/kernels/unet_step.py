"""A whole denoising step of Stable Diffusion 1.5 with random weights, each kernel put in by itself.

All variants share the weights, run as CUDA graphs and take turns, so that what differs is what one kernel gives.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.kernels.timing import Candidate, measure
from benchmarks.results_file import ResultRow, at_least, median_row
from detex_diffusion.conditioning import PromptKeyValues, project
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.denoising_step import StepInputs, StepResults, denoising_step
from detex_generator.compute.pooled_key_values import PooledKeyValues
from detex_generator.compute.unet_kernels import install_kernels, use_channels_last
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Implementation, Operation

BATCHES = (2, 16)
"""Rows of a UNet pass; half of them are of negative prompts."""

ATTENTION = "self_attention=triton,segmented_attention=triton"
VARIANTS = {
    # Segmented attention by torch gathers pages and reads lengths on the host; a graph needs the kernel.
    "torch": "segmented_attention=triton,guided_solver_step=torch",
    "attention": f"{ATTENTION},guided_solver_step=torch",
    "GEGLU": "segmented_attention=triton,geglu=triton,guided_solver_step=torch",
    "GroupNorm and SiLU": "segmented_attention=triton,group_norm_silu=triton,guided_solver_step=torch",
    "solver step": "segmented_attention=triton,guided_solver_step=triton",
    "all": "triton",
}
SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
SCHEDULE = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def rows_of_unet_step(device: torch.device, dtype: torch.dtype, turns: int) -> Iterator[ResultRow]:
    """Times of all variants, of diffusers as it comes and compiled, and ratios."""
    torch.manual_seed(0)
    with device:
        unet = UNet2DConditionModel(**SD15).eval().requires_grad_(False).to(dtype)
    use_channels_last(unet)
    variants = {name: _variant(unet, text, device, dtype) for name, text in VARIANTS.items()}
    plain = copy.deepcopy(unet, {id(tensor): tensor for tensor in unet.parameters()})
    compiled = torch.compile(plain, mode="max-autotune-no-cudagraphs", dynamic=False)
    for batch in BATCHES:
        with torch.inference_mode():
            yield from _batch_rows(batch, unet, variants, {"diffusers": plain, "diffusers compiled": compiled}, turns)


def _batch_rows(
    batch: int,
    unet: UNet2DConditionModel,
    variants: dict[str, tuple[KeyValueUNet, KernelChoice]],
    peers: dict[str, UNet2DConditionModel],
    turns: int,
) -> Iterator[ResultRow]:
    device, dtype = unet.device, unet.dtype
    images = batch // 2
    table = step_table(NoiseSchedule.from_config(SCHEDULE), Solver.DDIM, 25)
    latents, previous = (torch.randn(images, 4, 64, 64, device=device) for _ in range(2))
    inputs = StepInputs.of(table.rows[3].expand(images, -1).contiguous(), latents, previous, [7.5] * images)
    hidden = torch.randn(batch, 77, SD15["cross_attention_dim"], device=device, dtype=dtype)
    stacked = project(unet, hidden)
    prompts = [PromptKeyValues({n: (k[row], v[row]) for n, (k, v) in stacked.layers.items()}) for row in range(batch)]
    candidates = []
    for name, (step_unet, choice) in variants.items():
        text = PooledKeyValues.of_prompts(prompts, choice)
        by = choice.decisions[Operation.GUIDED_SOLVER_STEP].implementation
        candidates.append(Candidate(name, partial(_step, step_unet, inputs, text, by)))
    read = latents.repeat(2, 1, 1, 1).to(dtype).contiguous(memory_format=torch.channels_last)
    times = torch.full((batch,), 500, device=device)
    for name, peer in peers.items():
        candidates.append(Candidate(name, partial(_prediction, peer, read, times, hidden)))
    timings = measure(candidates, 1, device, turns)
    what = f"denoising step of Stable Diffusion 1.5 at 512 by 512 pixels, {batch} rows"
    for name, seconds in timings.seconds.items():
        yield median_row(f"{what}: {name}", [1000 * second for second in seconds], "ms")
    for name, reason in timings.refusals.items():
        yield ResultRow(what=f"{what}: {name}", value=None, unit="ms", note=reason)
    for name in VARIANTS:
        if name != "torch" and name in timings.seconds and "torch" in timings.seconds:
            reach = at_least(1.01) if name == "attention" else None
            yield median_row(f"{what}: {name} by kernels against torch", timings.ratios("torch", name), reach=reach)
    peer_name = timings.fastest(list(peers))
    if peer_name is not None and "all" in timings.seconds:
        yield median_row(f"{what}: all kernels against the UNet alone in {peer_name}", timings.ratios(peer_name, "all"))


def _step(
    unet: KeyValueUNet, inputs: StepInputs, text: PooledKeyValues, solver_implementation: Implementation, _: int
) -> StepResults:
    return denoising_step(unet, inputs, text, solver_implementation)


def _prediction(unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, hidden: Tensor, _: int) -> Tensor:
    prediction: Tensor = unet(latents, timesteps, encoder_hidden_states=hidden, return_dict=False)[0]
    return prediction


def _variant(
    unet: UNet2DConditionModel, text: str, device: torch.device, dtype: torch.dtype
) -> tuple[KeyValueUNet, KernelChoice]:
    """A UNet that shares the weights of another and computes by its own choice."""
    choice = KernelChoice(text, device, dtype)
    own = copy.deepcopy(unet, {id(tensor): tensor for tensor in unet.parameters()})
    install_kernels(own, choice)
    return KeyValueUNet(own), choice
