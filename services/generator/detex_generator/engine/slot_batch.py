"""The images of one UNet and size that are in slots, and one denoising step of all of them together.

Legend: N images, R rows of a UNet pass (one for each image and one more for each guided image), C latent channels,
h and w latent height and width, K columns of a step table.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detex_core.errors import DetexError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.latents import StepNoise, initial_noise
from detex_diffusion.unet import KeyValueUNet
from detex_generator.cache.unet_cache import ConceptUNet
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.device_errors import spoils_device
from detex_generator.compute.finite_checks import FiniteChecks
from detex_generator.compute.plain_steps import LaneSteps, Steps
from detex_generator.compute.row_lanes import RowLanes
from detex_generator.engine.active_request import ImageTask
from detex_generator.engine.failures import NonFiniteLatentsError, drawing_error
from detex_generator.engine.intake.photo_editing import PhotoHold
from detex_generator.engine.scheduling.pace import Size
from detex_generator.request.generation_request import Priority

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepOutcome:
    """What became of one image in one step.

    Attributes:
        task: The image.
        step: Denoising steps done, this one included.
        latents: (C, h, w) float32, where this was the last step.
        clean: (C, h, w) float32, the clean latents as the model guesses them, where a preview is due.
        start_time: When it got its slot (of `time.monotonic`).
        error: Why it leaves its slot unfinished, or None.
    """

    task: ImageTask
    step: int
    latents: Tensor | None = None
    clean: Tensor | None = None
    start_time: float = 0.0
    error: DetexError | None = None


@dataclass(eq=False)
class _Slot:
    """An image in its slot.

    Attributes:
        task: The image.
        latents: (C, h, w) float32.
        previous_clean: (C, h, w) float32, of the step before; zeros at the first.
        step: Denoising steps done.
        start_time: When it got its slot.
        hold: Puts the kept part of a photo back after each step; None for most images.
        noise: Of a solver that adds some; None for most.
    """

    task: ImageTask
    latents: Tensor
    previous_clean: Tensor
    step: int
    start_time: float
    hold: PhotoHold | None = None
    noise: StepNoise | None = None

    @property
    def guided(self) -> bool:
        """Whether the next step is guided."""
        request = self.task.active.request
        return request.guides(request.steps - self.task.steps + self.step)


@dataclass(frozen=True, eq=False)
class _Step:
    """What a step computes for one image.

    Attributes:
        latents: (C, h, w), the next latents.
        clean: (C, h, w), the clean latents as the model guesses them.
        lag: How many steps ago the latents ceased to be numbers; None where they are, as far as is known.
    """

    latents: Tensor
    clean: Tensor
    lag: int | None


class SlotBatch:
    """Slots of one UNet and size; belongs to the thread of the step loop.

    Attributes:
        size: What the time of a pass depends on.
    """

    def __init__(
        self,
        base_model: BaseModel,
        height: int,
        width: int,
        lanes: RowLanes,
        own_unet: ConceptUNet | None = None,
        acceleration: Acceleration | None = None,
    ) -> None:
        """No image is in a slot yet; height and width are in pixels; `own_unet` stands in for the base model's.

        Passes are shared by `lanes` where there is no acceleration.
        """
        self.size: Size = (base_model.name, height, width)
        self._base_model = base_model
        unet = base_model.unet if own_unet is None else own_unet.unet
        reading = KeyValueUNet(unet, base_model.pixels_per_latent)
        if acceleration is None:
            self._steps: Steps = LaneSteps(reading, lanes)
        else:
            self._steps = acceleration.steps(reading, keep=own_unet is None)
        self._shape = base_model.latent_shape(height, width)  # (C, h, w)
        self._slots: list[_Slot] = []
        self._finite_checks = FiniteChecks(late=base_model.device.type == "cuda")

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def members(self) -> list[tuple[str, Priority]]:
        """Tenant and class of each image."""
        return [(slot.task.active.tenant, slot.task.priority) for slot in self._slots]

    @property
    def rows(self) -> int:
        """R, rows of the next UNet pass."""
        return len(self._slots) + sum(slot.guided for slot in self._slots)

    def join(self, task: ImageTask) -> None:
        """Put an image into a slot, at its first denoising step."""
        noise = initial_noise(task.seed, self._shape).to(self._base_model.device)
        table, editing = task.checked.step_table, task.checked.editing
        latents = noise * table.initial_noise_scale if editing is None else editing.begin(table, noise)
        hold = None if editing is None else editing.hold(table, noise)
        added = StepNoise(task.seed, self._shape) if table.adds_noise else None
        self._slots.append(_Slot(task, latents, torch.zeros_like(latents), 0, time.monotonic(), hold, added))

    def drop_finished_requests(self) -> None:
        """Free the slots of images whose request has ended, or whose deadline has passed."""
        kept = []
        for slot in self._slots:
            if slot.task.active.over:
                slot.task.active.expire()
            else:
                kept.append(slot)
        self._keep(kept)

    def advance(self) -> list[StepOutcome]:
        """One denoising step of every image; those that are done or have failed leave their slots.

        Where the pass over all fails, each image is tried alone: a failure costs only the image that has it.

        Raises:
            torch.AcceleratorError: The GPU answers this process no more, which is to be restarted.
        """
        slots = self._slots
        try:
            results: list[_Step | DetexError] = list(self._evaluate(slots))
        except Exception as error:
            if spoils_device(error):
                raise
            _logger.exception("A UNet pass over %d images failed; each is tried by itself", len(slots))
            self._steps.clear()
            self._finite_checks.forget()
            results = [self._evaluate_alone(slot) for slot in slots]
        outcomes = [self._take(slot, result) for slot, result in zip(slots, results, strict=True)]
        self._keep(
            [
                slot
                for slot, outcome in zip(slots, outcomes, strict=True)
                if outcome.error is None and outcome.latents is None
            ]
        )
        return outcomes

    def _keep(self, slots: list[_Slot]) -> None:
        """These are left."""
        if self._slots and not slots:
            self._steps.rest(torch.Size(self._shape))
        self._slots = slots

    def _evaluate(self, slots: Sequence[_Slot]) -> list[_Step]:
        """One step of images; changes nothing."""
        inputs = StepInputs.of(
            torch.stack([slot.task.checked.step_table.rows[slot.step] for slot in slots]),
            torch.stack([slot.latents for slot in slots]),
            torch.stack([slot.previous_clean for slot in slots]),
            [slot.task.active.request.guidance_scale if slot.guided else None for slot in slots],
        )
        results = self._steps(inputs, _prompts(slots))
        is_last = any(slot.step + 1 == slot.task.steps for slot in slots)
        lags = self._finite_checks.of_step(slots, results.finite, at_once=is_last)
        return [_Step(*result) for result in zip(results.latents, results.clean, lags, strict=True)]

    def _evaluate_alone(self, slot: _Slot) -> _Step | DetexError:
        try:
            result = self._evaluate([slot])[0]
            self._finite_checks.forget()
            return result
        except Exception as error:
            if spoils_device(error):
                raise
            return failed_image(slot.task, error)

    def _take(self, slot: _Slot, result: _Step | DetexError) -> StepOutcome:
        task, total = slot.task, slot.task.steps
        slot.step += 1
        if isinstance(result, DetexError):
            return StepOutcome(task, slot.step, error=result)
        slot.latents, slot.previous_clean = result.latents, result.clean
        added = float(task.checked.step_table.added_noise[slot.step - 1])
        if slot.noise is not None and added > 0:
            slot.latents = slot.latents + added * slot.noise.draw().to(slot.latents.device)
        if slot.hold is not None:
            slot.latents = slot.hold.apply(slot.latents, slot.step)
        if result.lag is not None:
            error = NonFiniteLatentsError(task.index, slot.step - result.lag, total)
            return StepOutcome(task, slot.step, error=error)
        done = slot.step == total
        interval = task.active.request.preview_interval_steps
        preview = interval > 0 and slot.step % interval == 0 and not done
        return StepOutcome(
            task,
            slot.step,
            latents=slot.latents.clone() if done else None,
            clean=slot.previous_clean.clone() if preview else None,
            start_time=slot.start_time,
        )


def _prompts(slots: Sequence[_Slot]) -> list[PromptKeyValues]:
    """What R rows read: the prompts of all images, then the negative prompts of those that are guided."""
    read = [(slot, slot.task.conditioning) for slot in slots if slot.task.conditioning is not None]
    negatives = [found.negative_prompt for slot, found in read if slot.guided and found.negative_prompt is not None]
    return [found.prompt for _, found in read] + negatives


def failed_image(task: ImageTask, error: Exception) -> DetexError:
    """What the caller of an image hears of what went wrong with it; the log has the whole of it."""
    if not isinstance(error, DetexError):
        _logger.error("Image %d of request %s failed", task.index, task.active.request_id, exc_info=error)
    return drawing_error(error, task.index)
