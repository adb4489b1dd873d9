"""From latents to PNG with provenance, off the step loop."""

import logging
import time
from collections.abc import Callable
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from detex_core import __version__
from detex_core.errors import DetexError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import decode_latents, to_images
from detex_generator.compute.device_errors import is_out_of_memory
from detex_generator.compute.row_lanes import use_cores
from detex_generator.engine.active_request import ImageTask
from detex_generator.engine.events import FinishedImage, Preview
from detex_generator.engine.failures import drawing_error
from detex_generator.engine.scheduling.small_first import SmallFirst
from detex_generator.metrics import GeneratorMetrics
from detex_generator.request.generation_request import ALL_STEPS
from detex_generator.request.provenance import (
    ConceptProvenance,
    Provenance,
    composition_provenance,
    edit_provenance,
    write_png,
)

_PATIENCE_SECONDS_PER_PIXEL = 1e-5  # about what decoding takes on two cores

_logger = logging.getLogger(__name__)


class Decoding:
    """Threads that decode images one at a time, so that a picture does not depend on what is decoded beside it."""

    def __init__(self, threads: int, cores: int, metrics: GeneratorMetrics, on_done: Callable[[], None]) -> None:
        """Begin.

        Args:
            threads: How many.
            cores: Cores of a CPU that each uses.
            metrics: Receives images, previews and seconds.
            on_done: Called after each finished image, successful or not.
        """
        self._threads = SmallFirst(threads, "decoding", use_cores, (cores,))
        self._metrics = metrics
        self._on_done = on_done
        self._previewing: set[ImageTask] = set()

    def finish(self, task: ImageTask, latents: Tensor) -> None:
        """Decode the final latents (C, h, w) of an image and deliver it."""
        self._threads.submit(_patience_seconds(task), partial(self._finish, task, latents))

    def preview(self, task: ImageTask, step: int, clean: Tensor) -> None:
        """Decode predicted clean latents (C, h, w); left out where an earlier preview of the image is not yet done."""
        if task not in self._previewing:
            self._previewing.add(task)
            self._threads.submit(_patience_seconds(task), partial(self._preview, task, step, clean))

    def close(self) -> None:
        """Drop what has not begun; what runs ends by itself."""
        self._threads.close()

    def _finish(self, task: ImageTask, latents: Tensor) -> None:
        active = task.active
        try:
            if active.over:
                active.expire()
                return
            start = time.monotonic()
            provenance = provenance_of(task)
            drawn = _decoded(task.checked.base_model, latents)
            editing = task.checked.editing
            png = write_png(drawn if editing is None else editing.finish(drawn), provenance)
            self._metrics.end_stage("decode", time.monotonic() - start, active.span, image=task.index)
            self._metrics.images.labels(active.request.base_model).inc()
            active.deliver(FinishedImage(task.index, png, provenance))
        except BaseException as error:
            self._fail(task, error)
        finally:
            self._on_done()

    def _preview(self, task: ImageTask, step: int, clean: Tensor) -> None:
        try:
            if not task.active.over:
                task.active.tell(Preview(task.index, step, write_png(_decoded(task.checked.base_model, clean))))
                self._metrics.previews.inc()
        except Exception:
            # The image itself may still succeed; a preview is a courtesy.
            _logger.exception("A preview of image %d of request %s failed", task.index, task.active.request_id)
        finally:
            self._previewing.discard(task)

    def _fail(self, task: ImageTask, error: BaseException) -> None:
        if not isinstance(error, DetexError):
            _logger.error("Decoding image %d of request %s failed", task.index, task.active.request_id, exc_info=error)
        if is_out_of_memory(error):
            self._metrics.out_of_memory.labels("decode").inc()
        told = drawing_error(error, task.index)
        self._metrics.failed_images.labels(told.reason).inc()
        task.active.fail(told)


def _patience_seconds(task: ImageTask) -> float:
    """By how much smaller images may overtake one that waits to be decoded."""
    request = task.active.request
    return _PATIENCE_SECONDS_PER_PIXEL * request.width * request.height


def provenance_of(task: ImageTask) -> Provenance:
    """Where the image of a task comes from."""
    request, checked = task.active.request, task.checked
    interval = request.guidance_interval if request.guided and request.guidance_interval != ALL_STEPS else None
    return Provenance(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        base_model=request.base_model,
        base_model_fingerprint=checked.base_model.fingerprint,
        concepts=tuple(
            ConceptProvenance(name=name, version=found.manifest.version, manifest_sha256=found.sha256)
            for name, found in checked.concepts.items()
        ),
        seed=task.seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        solver=request.solver.value,
        width=request.width,
        height=request.height,
        generator_version=__version__,
        composition=composition_provenance(request),
        edit=edit_provenance(request),
        guidance_interval=interval,
    )


@torch.inference_mode()
def _decoded(base_model: BaseModel, latents: Tensor) -> Image.Image:
    return to_images(decode_latents(base_model.vae, latents.unsqueeze(0)))[0]
