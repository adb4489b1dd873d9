"""Compiles steps in the background, the size that is used most first, while others serve.

Nothing waits for a compilation, and none that fails costs a request: what is not compiled is run as it was.
"""

import atexit
import logging
import threading
import time
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch

from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.compiled_step import CompiledStep, compiled_step
from detex_generator.compute.denoising_step import StepInputs
from detex_generator.compute.pooled_key_values import PooledKeyValues
from detex_generator.ops.operation import Implementation

LEAST_USES = 50
"""Steps of a size before it is worth a compilation."""

_logger = logging.getLogger(__name__)


class CompilationMetrics(Protocol):
    """Receives compilations."""

    def compiled(self, seconds: float, error: str | None) -> None:
        """One has ended, with an error or well."""


class _NoMetrics:
    def compiled(self, seconds: float, error: str | None) -> None:
        """Nobody asked."""


@dataclass(eq=False)
class _Size:
    """What is known of one size of one UNet.

    Attributes:
        name: For the log.
        step: Compiled when first called.
        inputs: Tensors of that size, read by the first call; None until it is worth one, and again after it.
        text: As `inputs`.
        uses: Steps that were asked for.
        done: Whether it has been compiled.
        error: Why it could not be, or None.
    """

    name: str
    step: CompiledStep
    inputs: StepInputs | None = None
    text: PooledKeyValues | None = None
    uses: int = 0
    done: bool = False
    error: str | None = None


@dataclass(eq=False)
class StepCompiler:
    """A thread that compiles; shared by all UNets of a process.

    Attributes:
        device: Where UNets are.
        metrics: Receives compilations.
        least_uses: Steps of a size before it is compiled.
        device_lock: Held while something is compiled. A CUDA graph must not be captured meanwhile, for the compiler
            times kernels and waits for the device.
    """

    device: torch.device
    metrics: CompilationMetrics = field(default_factory=_NoMetrics)
    least_uses: int = LEAST_USES
    device_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Nothing is known yet; the thread begins with the first size that is worth it."""
        self._changed = threading.Condition()
        self._sizes: dict[Hashable, _Size] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told: set[str] = set()

    def use(
        self,
        unet: KeyValueUNet,
        attention: Implementation,
        key: Hashable,
        inputs: StepInputs,
        text: PooledKeyValues,
        uses: int = 1,
    ) -> CompiledStep | None:
        """Count steps of a size, and give its compiled step where there is one; waits for nothing.

        Args:
            unet: Without kernels of its own.
            attention: By what segmented attention is computed.
            key: Tells the size from others of the UNet.
            inputs: Tensors of that size, whatever they hold; kept from when it is worth a compilation to its end.
            text: As `inputs`.
            uses: How many steps.
        """
        with self._changed:
            place = (id(unet), key)
            size = self._sizes.get(place)
            if size is None:
                name = f"{len(inputs.latents)}_{'x'.join(map(str, inputs.latents.shape[2:]))}_{len(self._sizes)}"
                size = _Size(name, compiled_step(unet, attention, name))
                self._sizes[place] = size
            if size.done:
                return size.step if size.error is None else None
            size.uses += uses
            if size.uses >= self.least_uses and size.inputs is None:
                size.inputs, size.text = inputs, text
                self._begin()
                self._changed.notify_all()
            return None

    def refuse(self, unet: KeyValueUNet, key: Hashable, error: Exception) -> None:
        """Give up a compiled step that turned out not to run."""
        with self._changed:
            self._sizes[id(unet), key].error = self._tell(error)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until nothing that is worth it is left to be compiled; whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next() is None, timeout_seconds)

    @property
    def compiled(self) -> int:
        """Sizes that have a compiled step."""
        with self._changed:
            return sum(size.done and size.error is None for size in self._sizes.values())

    def close(self) -> None:
        """Compile nothing further; what is being compiled is done before the process ends, whose end others bound."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            # An interpreter that ends stops threads amid torch's own code, which aborts the process.
            atexit.register(thread.join)

    def _begin(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="step-compiler", daemon=True)
            self._thread.start()

    def _next(self) -> _Size | None:
        worth = [size for size in self._sizes.values() if not size.done and size.uses >= self.least_uses]
        return max(worth, key=lambda size: size.uses, default=None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                size = self._next()
                if self._closed or size is None:
                    return
            error: Exception | None = None
            begin = time.monotonic()
            try:
                self._compile(size)
            except Exception as caught:
                error = caught
            seconds = time.monotonic() - begin
            with self._changed:
                size.inputs = size.text = None
                size.error = None if error is None else self._tell(error)
                size.done = True
                self._changed.notify_all()
            self.metrics.compiled(seconds, size.error)
            if error is None:
                _logger.info("Compiled the step of size %s in %.1f s", size.name, seconds)

    def _compile(self, size: _Size) -> None:
        if size.inputs is None or size.text is None:
            return
        with self.device_lock, torch.inference_mode(), self._stream():
            size.step(size.inputs, size.text)
            if self.device.type == "cuda":
                torch.cuda.current_stream().synchronize()
                torch.cuda.empty_cache()  # what it took on its own stream is of no use on others

    def _stream(self) -> AbstractContextManager[object]:
        if self.device.type != "cuda":
            return nullcontext()
        torch.cuda.set_device(self.device if self.device.index is not None else 0)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.default_stream())
        return torch.cuda.stream(stream)

    def _tell(self, error: Exception) -> str:
        """Log a reason the first time that it comes; gives it in short."""
        lines = str(error).splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
        if reason not in self._told:
            self._told.add(reason)
            _logger.warning("A step was not compiled and runs as it did: %s", reason, exc_info=error)
        return reason
