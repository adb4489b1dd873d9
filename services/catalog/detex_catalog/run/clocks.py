"""How long a run has drawn and trained, by which the next ones are estimated."""

import time
from collections.abc import Collection
from typing import Any


class Clocks:
    """Time in which something was drawn, and in which something was trained; what both gave.

    Attributes:
        pictures: Pictures that came, redrawn ones too.
        trained: Concepts that were published.
    """

    def __init__(self) -> None:
        self.pictures = 0
        self.trained = 0
        self.drawing_seconds = 0.0
        self.training_seconds = 0.0
        self._last = time.monotonic()

    def tick(self, *, drawing: bool, training: Collection[str]) -> None:
        """Count the time since the last tick to what went on in it."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        if drawing:
            self.drawing_seconds += passed
        if training:
            self.training_seconds += passed

    def values(self) -> dict[str, Any]:
        """As an event holds them."""
        return {
            "pictures": self.pictures,
            "drawing_seconds": round(self.drawing_seconds, 3),
            "trained": self.trained,
            "training_seconds": round(self.training_seconds, 3),
        }
