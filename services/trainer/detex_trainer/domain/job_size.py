"""What a job takes of memory and work, estimated when it is submitted, without torch and without the base model.

Legend: h, w of the latents; C channels of a level of the UNet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from detex_core.errors import invalid_input
from detex_trainer.domain.hyperparameters import Hyperparameters
from detex_trainer.domain.packing import rows_per_step

# Tensors (h, w, C) that one residual block, and as many again that a transformer block, keep for the backward pass, as
# measured on the embedded base model and on that of Stable Diffusion 1; rather too few than too many.
_KEPT_TENSORS = 32
_CHANNELS = (320, 640, 1280, 1280)  # where a config names none
_BYTES_PER_NUMBER = 4
_CHECKPOINTED_SHARE = 0.2
_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
_MEGAPIXEL = 1e6
_GIB = 1024**3


class UNetShape(BaseModel):
    """What decides how much a UNet keeps for its backward pass.

    Attributes:
        pixels_per_latent: Side of a latent in pixels.
        channels: C by level, the finest first.
        blocks: Residual blocks of a level, on its way down and up.
        transformer_layers: Transformer blocks behind each of them, by level.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels_per_latent: int = Field(ge=1)
    channels: tuple[int, ...] = Field(min_length=1)
    blocks: int = Field(ge=1)
    transformer_layers: tuple[int, ...]

    def kept_bytes(self, side: int) -> int:
        """What one row of a step keeps for its backward pass, for a picture of so many pixels a side."""
        latents = side / self.pixels_per_latent
        numbers = sum(
            (latents / 2**level) ** 2 * channels * self.blocks * (1 + layers)
            for level, (channels, layers) in enumerate(zip(self.channels, self.transformer_layers, strict=True))
        )
        return int(numbers * _KEPT_TENSORS * _BYTES_PER_NUMBER)


def unet_shape(config: Mapping[str, Any], *, pixels_per_latent: int) -> UNetShape:
    """The shape of a UNet by its config.json."""
    channels = tuple(int(each) for each in config.get("block_out_channels", _CHANNELS))
    levels = len(channels)
    layers = config.get("layers_per_block", 2)
    depths = config.get("transformer_layers_per_block", 1)
    kinds = config.get("down_block_types", ())
    return UNetShape(
        pixels_per_latent=pixels_per_latent,
        channels=channels,
        blocks=2 * (min(layers) if isinstance(layers, Sequence) else int(layers)) + 1,
        transformer_layers=tuple(
            _depth(depths, level) if level < len(kinds) and "CrossAttn" in kinds[level] else 0
            for level in range(levels)
        ),
    )


def _depth(depths: Any, level: int) -> int:
    depth = depths[level] if isinstance(depths, Sequence) else depths
    return int(max(depth) if isinstance(depth, Sequence) else depth)


@dataclass(frozen=True)
class SizeLimits:
    """What a job may take at most.

    Attributes:
        memory_bytes: Of one step, beside the base model; None where nothing is known of the machine that trains.
        megapixels: Pixels of all pictures of all steps, in millions; 0 for no limit.
        checkpoints_gradients: Whether activations are computed a second time in place of being kept.
    """

    memory_bytes: int | None
    megapixels: float
    checkpoints_gradients: bool = False


def check_job_size(hyperparameters: Hyperparameters, side: int, shape: UNetShape | None, limits: SizeLimits) -> None:
    """Whether a job is one that can be done here.

    Args:
        hyperparameters: Of the job.
        side: Of its pictures in pixels.
        shape: Of its base model; None where it is not known.
        limits: What it may take.

    Raises:
        InvalidInputError: It is too large; the field is what it would best take less of.
    """
    rows = rows_per_step(hyperparameters)
    work = rows * hyperparameters.steps * side**2 / _MEGAPIXEL
    if limits.megapixels and work > limits.megapixels:
        raise invalid_input(
            "hyperparameters.steps",
            f"{work:,.0f} ({hyperparameters.steps:,} steps of {rows} pictures of {side} x {side})",
            f"at most {limits.megapixels:,.0f} megapixels of work, the limit set for this trainer",
        )
    if shape is None or limits.memory_bytes is None:
        return
    share = _CHECKPOINTED_SHARE if limits.checkpoints_gradients else 1.0
    needed = share * shape.kept_bytes(side) * rows
    if needed > limits.memory_bytes:
        fitting = int(limits.memory_bytes / (share * shape.kept_bytes(side)) * hyperparameters.batch_size / rows)
        given = f"{rows} pictures of {side} x {side} in a step, about {needed / _GIB:,.1f} GiB"
        memory = f"to fit into {limits.memory_bytes / _GIB:,.1f} GiB"
        if fitting:
            raise invalid_input("hyperparameters.batch_size", given, f"at most {fitting} {memory}")
        raise invalid_input("hyperparameters.resolution", given, f"smaller {memory}")


def machine_memory_bytes() -> int:
    """Memory of this machine, or what its control group may have of it."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = next(int(line.split()[1]) for line in meminfo if line.startswith("MemTotal:")) * 1024
    try:
        allowed = _CONTROL_GROUP.read_text(encoding="ascii").strip()
    except OSError:
        return total
    return total if allowed == "max" else min(total, int(allowed))
