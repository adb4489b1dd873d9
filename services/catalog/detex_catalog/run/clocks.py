"""How long a run has drawn and trained, by which the next ones are estimated."""

import time
from typing import Any


class Clocks:
    """Time in which something was drawn, and in which something was trained; what both gave.

    Attributes:
        pictures: Pictures that came, redrawn ones too.
        trained: Concepts that were published.
        drawing_seconds: Time in which pictures were on their way.
        training_seconds: Time in which concepts were.
    """

    def __init__(self) -> None:
        self.pictures = 0
        self.trained = 0
        self.drawing_seconds = 0.0
        self.training_seconds = 0.0
        self._last = time.monotonic()
        self._taken = (0, 0.0, 0, 0.0)

    def tick(self, *, drawing: bool, training: bool) -> None:
        """Count the time since the last tick to what went on in it."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        if drawing:
            self.drawing_seconds += passed
        if training:
            self.training_seconds += passed

    def take(self) -> dict[str, Any]:
        """What came since the last time, as an event holds it; empty where nothing did."""
        now = (self.pictures, self.drawing_seconds, self.trained, self.training_seconds)
        pictures, drawing, trained, training = (new - old for new, old in zip(now, self._taken, strict=True))
        if not (pictures or trained):
            return {}
        self._taken = now
        return {
            "pictures": pictures,
            "drawing_seconds": round(drawing, 3),
            "trained": trained,
            "training_seconds": round(training, 3),
        }
