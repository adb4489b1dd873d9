"""How much memory a run takes, estimated before its first step, and how many runs fit beside each other."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.learning.methods.learner import Learner
from detex_trainer.learning.photos.dataset import PhotoBatches, PhotoSet
from detex_trainer.learning.training.compiled_unet import uncompiled
from detex_trainer.learning.training.run import draw_noise

# Weights, gradients, two moments of the optimiser, and the copy to go back to with its own moments.
_COPIES_OF_WEIGHTS = 7
# What the backward pass needs beside what the forward pass keeps.
_BACKWARD_SHARE = 0.5
_USABLE_SHARE = 0.8
_CONTROL_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one run, without that of the base model, which is there once.

    Attributes:
        state_bytes: Weights in training, and all that is kept of them.
        activation_bytes: What one step keeps for its backward pass, and that itself.
    """

    state_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.state_bytes + self.activation_bytes


def estimate_memory(learner: Learner, photo_set: PhotoSet, base_model: BaseModel, batch_size: int) -> MemoryEstimate:
    """Look at what the forward half of one step keeps; changes nothing, and draws from a generator of its own."""
    parameters = [parameter for group in learner.parameter_groups() for parameter in group.parameters]
    frozen = [p for module in base_model.modules() for p in module.parameters()]
    with _one_thread(), uncompiled(base_model.unet), _kept_bytes([*frozen, *parameters]) as kept:
        generator = torch.Generator().manual_seed(0)
        batch = next(PhotoBatches(photo_set, batch_size, generator))
        learner.losses(batch, draw_noise(batch.latents, base_model.noise_schedule, generator), generator)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    activations = math.ceil(sum(kept.values()) * (1 + _BACKWARD_SHARE))
    return MemoryEstimate(_COPIES_OF_WEIGHTS * weights, activations)


class MemoryRoom:
    """Free memory that is given away to runs, one after another, before they begin."""

    def __init__(self, estimate: MemoryEstimate, rows: int, free_bytes: int) -> None:
        """Nothing is given away yet.

        Args:
            estimate: Of one run; others are taken for alike but for their rows.
            rows: Of its step, see `packing.rows_per_step`.
            free_bytes: Free memory before the first of them.
        """
        self._estimate = estimate
        self._rows = rows
        self._left_bytes = int(_USABLE_SHARE * free_bytes)
        self._is_empty = True

    def take(self, rows: int) -> bool:
        """Give memory to a run of so many rows per step, unless it does not fit; the first one always does."""
        activation_bytes = math.ceil(self._estimate.activation_bytes * rows / self._rows)
        needed = self._estimate.state_bytes + activation_bytes
        fits = self._is_empty or needed <= self._left_bytes
        if fits:
            self._is_empty = False
            self._left_bytes -= needed
        return fits


def free_memory_bytes(device: torch.device) -> int:
    """Memory that this process may still take on a device: of the GPU, or of the machine or its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _number(Path("/proc/meminfo").read_text(encoding="ascii"), "MemAvailable:") * 1024
    limit, used = _CONTROL_GROUP / "memory.max", _CONTROL_GROUP / "memory.current"
    try:
        allowed = limit.read_text(encoding="ascii").strip()
        if allowed != "max":
            free = min(free, int(allowed) - int(used.read_text(encoding="ascii")))
    except OSError:
        return free
    return max(0, free)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What other threads keep for the backward pass is not seen from this one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _kept_bytes(weights: list[torch.nn.Parameter]) -> Iterator[dict[int, int]]:
    """Bytes of the storages that the autograd graph keeps, by their address; those of weights are left out."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _number(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))
