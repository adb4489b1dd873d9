"""Whether steps are compiled, where the compiler keeps what it made, and which sizes it begins with."""

import logging
import os
from pathlib import Path

import torch

from detex_core.errors import invalid_input
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues, project
from detex_diffusion.solver import COLUMNS
from detex_diffusion.text import encode_text, tokenize
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.graphed_steps import GraphedSteps
from detex_generator.compute.plain_steps import Steps
from detex_generator.compute.step_compiler import StepCompiler
from detex_generator.metrics import GeneratorMetrics
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Operation
from detex_generator.settings import GeneratorSettings

CACHE_VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""What tells the compilers where to keep what they made, and the folders for it."""

_logger = logging.getLogger(__name__)


def chosen_compiler(
    settings: GeneratorSettings, choice: KernelChoice, device: torch.device, metrics: GeneratorMetrics
) -> StepCompiler | None:
    """A compiler where steps are to be compiled; says why they are not.

    Raises:
        InvalidInputError: The cache folder cannot be made.
    """
    if settings.compile == "off":
        return None
    pooled = choice.uses(Operation.SEGMENTED_ATTENTION)
    if device.type == "cpu" and settings.compile == "auto":
        return None
    if device.type != "cpu" and not pooled:
        _logger.info(
            "Steps are not compiled: texts of all lengths share them only by the kernel of segmented attention"
        )
        return None
    folder = Path(settings.compile_cache_folder or settings.work_folder / "compiled_steps")
    use_cache_folder(folder)
    _logger.info("Steps are compiled in the background; what comes of it is kept in %s", folder)
    return StepCompiler(device, metrics)


def use_cache_folder(folder: Path) -> None:
    """Let the compilers keep what they make in a folder; variables that are set already win.

    Raises:
        InvalidInputError: It cannot be made.
    """
    for variable, name in CACHE_VARIABLES.items():
        if os.environ.get(variable):
            continue
        place = folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise invalid_input("compile_cache_folder", f"{folder} ({error.strerror})", "a writable folder") from error
        os.environ[variable] = str(place)


@torch.inference_mode()
def expect_usual_sizes(steps: Steps, base_model: BaseModel, slots: int, *, guided: bool) -> None:
    """Have the sizes compiled that come first: one image, and as many as there are slots, of the base model's size.

    Args:
        steps: Of the base model.
        base_model: Which.
        slots: Images that can be denoised at the same time.
        guided: Whether images are guided, where requests say nothing.
    """
    if not isinstance(steps, GraphedSteps) or not steps.compiles:
        return
    prompt = _empty_prompt(base_model)
    for images in sorted({1, slots}):
        latents = torch.zeros(images, *base_model.latent_shape(), device=base_model.device)
        coefficients = torch.zeros(images, len(COLUMNS))
        inputs = StepInputs.of(coefficients, latents, torch.zeros_like(latents), [1.0 if guided else None] * images)
        steps.expect(inputs, [prompt] * len(inputs.sources))


def _empty_prompt(base_model: BaseModel) -> PromptKeyValues:
    tokens = tokenize(parse_prompt(""), {}, base_model.tokenizer)
    text = encode_text(base_model, [tokens])
    return project(base_model.unet, text.hidden, pooled_text=text.pooled).row(0)
