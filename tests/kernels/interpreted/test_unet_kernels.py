"""A whole denoising step through all kernels, in a UNet of diffusers, against the same step without any."""

import copy
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel

from detex_diffusion.base_model import BaseModel
from detex_diffusion.solver import Solver, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.unet_kernels import KernelGEGLU, KernelGroupNormSiLU
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Implementation, Operation
from tests.kernels.random_prompts import placed_prompts
from tests.tiny_models import unet_config


def test_a_step_by_kernels_alone_gives_what_torch_gives(base_model: BaseModel) -> None:
    # One level, for the interpreter takes its time: it has each kind of layer that a kernel stands for.
    torch.manual_seed(0)
    config = unet_config("sd1") | {
        "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    base_model = replace(base_model, unet=UNet2DConditionModel(**config).eval().requires_grad_(False))
    cpu = torch.device("cpu")
    names = set(base_model.unet.state_dict())
    rows = torch.stack([step_table(base_model.noise_schedule, Solver.DDIM, 10).rows[step] for step in (2, 7)])
    generator = torch.Generator().manual_seed(0)
    latents, previous = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    inputs = StepInputs.of(rows, latents, previous, [None, 5.0])
    plain, joint, _, blended = placed_prompts(base_model)

    results = {}
    for text in ("torch", "triton"):
        choice = KernelChoice(text, cpu, torch.float32)
        unet = copy.deepcopy(base_model.unet)
        steps = Acceleration(choice, cpu, cuda_graphs=False).steps(KeyValueUNet(unet), keep=True)
        assert set(unet.state_dict()) == names
        with torch.inference_mode():
            results[text] = steps(inputs, [plain, joint, blended])
        assert set(choice.taken()) <= {(operation, Implementation(text)) for operation in Operation}
    assert set(choice.taken()) == {(operation, Implementation.TRITON) for operation in Operation}
    torch.testing.assert_close(results["triton"].latents, results["torch"].latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(results["triton"].clean, results["torch"].clean, rtol=1e-3, atol=1e-3)
    # A copy goes by the same choice, as the UNet of a concept of its own does.
    copied = copy.deepcopy(unet)
    parts = [part for part in copied.modules() if isinstance(part, KernelGEGLU | KernelGroupNormSiLU)]
    assert parts
    assert {id(part.choice) for part in parts} == {id(choice)}
