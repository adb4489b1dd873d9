"""Time-limited, resumable phases: the clock that counts their working time, learning rates and checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch


class PhaseClock:
    """Counts the seconds that a phase has worked, over all its runs, against its budget."""

    def __init__(self, budget_seconds: float, worked_seconds: float = 0.0) -> None:
        """Start counting at once.

        Raises:
            ValueError: if the budget is not positive.
        """
        if budget_seconds <= 0:
            raise ValueError(f"budget_seconds: got {budget_seconds}, expected more than 0")
        self._budget_seconds = budget_seconds
        self._started = time.monotonic() - worked_seconds

    @property
    def worked_seconds(self) -> float:
        """Seconds worked so far, earlier runs included."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget that is used up, from 0 to 1."""
        return min(self.worked_seconds / self._budget_seconds, 1.0)


def rate_factor(progress: float, step: int, warm_up_steps: int = 150, decay_share: float = 0.4) -> float:
    """Learning-rate factor in [0, 1]: warm-up by steps, a plateau, a linear fall over the last share of the time."""
    warm = min(1.0, (step + 1) / warm_up_steps)
    return warm * min(1.0, max(0.0, (1.0 - progress) / decay_share))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint; `None` where there is none yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
