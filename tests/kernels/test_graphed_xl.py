"""Steps on kept tensors for Stable Diffusion XL: the pooled text of each row comes along with other prompts."""

import pytest
import torch

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues, project
from detex_diffusion.solver import Solver, guide, scale_input, solver_step, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.capture import eager
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.graphed_steps import GraphedSteps
from detex_generator.compute.plain_steps import PlainSteps, Steps
from detex_generator.ops.choice import KernelChoice
from tests.tiny_models import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = write_tiny_model(tmp_path_factory.mktemp("kernels") / "xl", "sdxl")
    return load_base_model(BaseModelSettings(name="xl", source=str(folder)))


def prompts_of(xl: BaseModel, seed: int) -> list[PromptKeyValues]:
    """Five rows: three images, two of them guided."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(5, 77, xl.embedding_width, generator=generator)
    pooled = 5 * torch.randn(5, xl.text.pooled_width, generator=generator)
    batch = project(xl.unet, hidden, pooled_text=pooled)
    return [batch.row(row) for row in range(5)]


@pytest.mark.parametrize("kind", ["graphed", "plain"])
def test_rows_read_their_own_pooled_text(xl: BaseModel, kind: str) -> None:
    unet = KeyValueUNet(xl.unet, xl.pixels_per_latent)
    choice = KernelChoice("torch", CPU, torch.float32)
    steps: Steps = GraphedSteps(unet, choice, eager) if kind == "graphed" else PlainSteps(unet, choice)
    rows = step_table(xl.noise_schedule, Solver.EULER, 10).rows[[2, 3, 7]]
    latents, previous = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    inputs = StepInputs.of(rows, latents, previous, [4.0, None, 6.0])
    seen = []
    for seed in (1, 2, 1):
        prompts = prompts_of(xl, seed)
        with torch.inference_mode():
            got = steps(inputs, prompts).latents
            read = scale_input(rows, latents)
            times = rows[:, 0]
            output = unet(
                torch.cat([read, read[[0, 2]]]), torch.cat([times, times[[0, 2]]]), KeyValueBatch.stack(prompts)
            )
            predicted = output[:3].clone()
            predicted[[0, 2]] = guide(output[3:], predicted[[0, 2]], torch.tensor([4.0, 6.0]))
            wanted, _ = solver_step(rows, latents, predicted, previous)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
        seen.append(got)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)
    # The pooled text alone makes a difference.
    swapped = prompts_of(xl, 1)
    swapped[0] = PromptKeyValues(swapped[0].layers, pooled_text=-swapped[1].pooled_text)
    with torch.inference_mode():
        other = steps(inputs, swapped).latents
    assert not torch.allclose(other[0], seen[0][0], atol=1e-3)
    assert torch.allclose(other[1:], seen[0][1:], atol=1e-4)
