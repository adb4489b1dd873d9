"""Steps on texts that are filled up give what steps on a pool give."""

import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.solver import Solver, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.capture import eager
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.graphed_steps import GraphedSteps
from detex_generator.compute.plain_steps import PlainSteps
from detex_generator.ops.choice import KernelChoice
from tests.kernels.random_prompts import placed_prompts

CPU = torch.device("cpu")


def test_they_agree_with_steps_on_a_pool(base_model: BaseModel) -> None:
    choice = KernelChoice("torch", CPU, torch.float32)
    unet = KeyValueUNet(base_model.unet)
    plain, pooled = PlainSteps(unet, choice), GraphedSteps(unet, choice, eager)
    rows = step_table(base_model.noise_schedule, Solver.DDIM, 10).rows
    prompts = placed_prompts(base_model)
    generator = torch.Generator().manual_seed(0)
    for step in (2, 3):
        latents, previous = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
        inputs = StepInputs.of(rows[step].expand(3, -1), latents, previous, [None, 4.0, None])
        with torch.inference_mode():
            one, other = plain(inputs, prompts), pooled(inputs, prompts)
            prompts = prompts[::-1]
            again = plain(inputs, prompts)
        torch.testing.assert_close(one.latents, other.latents, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(one.latents, again.latents)


def test_they_are_taken_where_no_kernel_reads_a_pool(base_model: BaseModel) -> None:
    acceleration = Acceleration(KernelChoice("torch", CPU, torch.float32), CPU, cuda_graphs=True)
    steps = acceleration.steps(KeyValueUNet(base_model.unet), keep=True)
    assert isinstance(steps, PlainSteps)
    assert acceleration.steps(KeyValueUNet(base_model.unet), keep=True) is steps
