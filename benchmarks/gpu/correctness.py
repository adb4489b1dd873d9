"""Whether compiled and captured steps give what the same steps give that are neither.

The reference is the UNet in float64 on texts that are filled up and masked. Errors are root mean squares of clean
latents, as shares of the root mean square of the reference.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.full_size.candidates import DENOISING_STEPS
from benchmarks.gpu.candidates import LONGEST_COMPILATION_SECONDS, CompiledBench
from benchmarks.results_file import ResultRow, at_least, at_most
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.solver import Solver, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.capture import eager
from detex_generator.compute.denoising_step import StepInputs, StepResults
from detex_generator.compute.graphed_steps import GraphedSteps
from detex_generator.compute.plain_steps import PlainSteps, Steps
from detex_generator.ops.choice import KernelChoice

MOST_ERROR_RATIO = 1.2
LEAST_CHANGE = 10.0
LEAST_DECIBELS = 30.0
_FIRST_TOKENS, _OTHER_TOKENS = 77, 70
"""Texts of both lengths have the same size of a graph."""


@torch.inference_mode()
def rows_of_correctness(bench: CompiledBench, images: int) -> Iterator[ResultRow]:
    """Compare; the size of `images` has been compiled before, or is compiled now.

    Args:
        bench: Of one UNet.
        images: Of the batch.
    """
    what = f"{bench.architecture.name}, batch of {images}"
    texts = [_texts(bench, images, tokens) for tokens in (_FIRST_TOKENS, _OTHER_TOKENS)]
    inputs = _inputs(bench, images)
    bench.compiled_steps(inputs, texts[0])
    bench.compiler.wait(LONGEST_COMPILATION_SECONDS)
    if not bench.compiler.compiled:
        raise RuntimeError("the step was not compiled; the log says why")
    double = copy.deepcopy(bench.plain).double()
    reference = PlainSteps(KeyValueUNet(double), KernelChoice("torch", bench.device, torch.float64))
    plain = GraphedSteps(bench.unet, bench.choice, eager)
    wanted = [_clean(reference, inputs, [text.to(dtype=torch.float64) for text in found]) for found in texts]
    given = [_clean(bench.compiled_steps, inputs, found) for found in texts]
    uncompiled = [_clean(plain, inputs, found) for found in texts]
    again = _clean(bench.compiled_steps, inputs, texts[0])
    del reference, double
    errors = [_distance(one, other) for one, other in zip(given, wanted, strict=True)]
    peers = [_distance(one, other) for one, other in zip(uncompiled, wanted, strict=True)]
    for name, error, peer in zip(("77 tokens", "70 tokens, other concepts"), errors, peers, strict=True):
        yield ResultRow(what=f"{what}, {name}: error of a compiled step against float64", value=error, peer=peer)
        yield ResultRow(
            what=f"{what}, {name}: error of a compiled step as a multiple of that of one that is not",
            value=error / peer,
            reach=at_most(MOST_ERROR_RATIO),
        )
    change = _distance(wanted[0], wanted[1])
    yield ResultRow(
        what=f"{what}: change by other concepts and text lengths in one graph, as a multiple of the error",
        value=change / max(errors),
        reach=at_least(LEAST_CHANGE),
        note="one graph replayed on other texts gives what those texts give",
    )
    yield ResultRow(
        what=f"{what}: the same inputs replayed again, after others: largest difference",
        value=float((again - given[0]).abs().max()),
        reach=at_most(0.0),
    )
    compiled = bench.compiled_steps.compiled
    decibels = _whole_run(bench, plain, inputs, texts[0])
    yield ResultRow(
        what=f"{what}: latents after {DENOISING_STEPS} steps, compiled against not compiled",
        value=decibels,
        unit="dB",
        reach=at_least(LEAST_DECIBELS),
        note=f"peak is the range of the latents; random weights; {compiled} of {bench.compiled_steps.captured} graphs "
        "are compiled",
    )


def _texts(bench: CompiledBench, images: int, tokens: int) -> list[PromptKeyValues]:
    """Prompts of their own concepts and lengths: every row has some tokens fewer than the one before."""
    stacked = bench.prompts(bench.workload(images, images))
    lengths = [max(1, tokens - row % 8) for row in range(len(stacked))]
    return [
        replace(
            prompt, layers={name: (key[:, :length], value[:, :length]) for name, (key, value) in prompt.layers.items()}
        )
        for prompt, length in zip(stacked, lengths, strict=True)
    ]


def _inputs(bench: CompiledBench, images: int) -> StepInputs:
    table = step_table(NoiseSchedule.from_config(bench.architecture.scheduler), Solver.DDIM, DENOISING_STEPS)
    latents = bench.workload(images, 1).latents
    rows = torch.stack([table.rows[(3 + index) % DENOISING_STEPS] for index in range(images)])
    return StepInputs.of(rows, latents, torch.zeros_like(latents), [5.0] * images)


def _clean(steps: Steps, inputs: StepInputs, texts: Sequence[PromptKeyValues]) -> Tensor:
    results: StepResults = steps(inputs, texts)
    steps.rest(inputs.latents.shape[1:])
    return results.clean.double()


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


def _whole_run(bench: CompiledBench, plain: Steps, inputs: StepInputs, texts: Sequence[PromptKeyValues]) -> float:
    """Peak signal to noise of final latents in dB."""
    table = step_table(NoiseSchedule.from_config(bench.architecture.scheduler), Solver.DDIM, DENOISING_STEPS)
    images = len(inputs.latents)
    found = []
    for steps in (bench.compiled_steps, plain):
        latents, clean = inputs.latents * table.initial_noise_scale, torch.zeros_like(inputs.latents)
        for row in table.rows:
            results = steps(StepInputs.of(row.expand(images, -1), latents, clean, [5.0] * images), texts)
            latents, clean = results.latents, results.clean
        found.append(latents.double())
    noise = (found[0] - found[1]).square().mean()
    peak = found[1].max() - found[1].min()
    return float(10 * torch.log10(peak.square() / noise.clamp(min=1e-30)))
