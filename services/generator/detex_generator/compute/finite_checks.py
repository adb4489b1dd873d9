"""Whether latents are numbers, known one step later where asking at once would wait for the GPU.

A GPU works through what it was asked in order. Whoever reads a result after each step waits for the step, and the
GPU then waits for the next one to be prepared: milliseconds of every step of a small batch. Numbers that are not finite
stay so, hence the result of a step can be read while the next one runs, and at once only where an image is done.

Legend: N images.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class FiniteChecks:
    """The checks of one batch; belongs to the thread of the step loop."""

    def __init__(self, *, late: bool) -> None:
        """`late`: whether results may be read one step later."""
        self._late = late
        self._unread: tuple[list[Hashable], Tensor, torch.cuda.Event | None] | None = None

    def of_step(self, images: Sequence[Hashable], finite: Tensor, *, at_once: bool) -> list[int | None]:
        """For each image, how many steps ago its latents ceased to be finite, 0 or 1; None where they are, or may be.

        Args:
            images: N, the same objects from step to step.
            finite: (N,) bool, of the step that was just asked for; on any device.
            at_once: Whether this step's own result is wanted now.
        """
        before = self._unread
        self._unread = None
        if self._late and not at_once:
            self._unread = self._copied(images, finite)
        failed_before = self._failed(before)
        lags: list[int | None] = [1 if image in failed_before else None for image in images]
        if self._unread is None:
            for place, is_finite in enumerate(finite.tolist()):
                if not is_finite and lags[place] is None:
                    lags[place] = 0
        return lags

    def forget(self) -> None:
        """Read nothing further of steps that were asked for: they are to be repeated."""
        self._unread = None

    def _copied(
        self, images: Sequence[Hashable], finite: Tensor
    ) -> tuple[list[Hashable], Tensor, torch.cuda.Event | None]:
        if finite.device.type != "cuda":
            return list(images), finite.clone(), None
        held = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
        held.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return list(images), held, event

    def _failed(self, unread: tuple[list[Hashable], Tensor, torch.cuda.Event | None] | None) -> set[Hashable]:
        if unread is None:
            return set()
        images, finite, event = unread
        if event is not None:
            event.synchronize()
        return {image for image, is_finite in zip(images, finite.tolist(), strict=True) if not is_finite}
