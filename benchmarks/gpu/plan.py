"""What the benchmark measures, and where its compilers and its processes keep things."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.full_size.architectures import ARCHITECTURES, FullSize
from benchmarks.full_size.random_folder import DTYPES


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long.

    Attributes:
        model: Name of the shapes that are measured first.
        batches: Images of a batch, in the order in which they are measured.
        second_model: Name of the shapes that come last; empty for none.
        device: Where.
        dtype: Of weights.
        turns: How often each candidate is timed, for one image; larger batches fewer times.
        end_time: Of `time.monotonic`, after which nothing is begun.
        out: Folder of the results; None for the usual one.
        with_unfused: Whether compiled steps whose projections are not fused are timed too.
    """

    model: str
    batches: tuple[int, ...]
    second_model: str
    device: torch.device
    dtype: str
    turns: int
    end_time: float
    out: Path | None
    with_unfused: bool = False

    @property
    def left_seconds(self) -> float:
        """Time that is left."""
        return self.end_time - time.monotonic()

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of weights."""
        return DTYPES[self.dtype]

    def shapes(self, model: str) -> FullSize:
        """The shapes of a name."""
        return ARCHITECTURES[model]

    def path(self, benchmark: str) -> Path | None:
        """Where results of a benchmark go; None for the usual place."""
        return None if self.out is None else self.out / f"{benchmark}.json"


def cache_environment(folder: Path, processes: int = 1) -> dict[str, str]:
    """Variables by which compilers of this process and of so many that it starts share a folder, and the cores."""
    return os.environ | {
        "TORCHINDUCTOR_COMPILE_THREADS": str(max(2, len(os.sched_getaffinity(0)) // processes)),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
