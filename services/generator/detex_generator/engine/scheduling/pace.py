"""How fast the engine is, as measured: for retry delays and for deadlines that cannot be met."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

Size = tuple[str, int, int]
"""Base model, height and width in pixels: what the time of a pass depends on beside the number of its images."""

_MEMORY = 0.8
_REMEMBERED_SIZES = 256
_VALID_SECONDS = 60.0


@dataclass
class _Measured:
    seconds: float
    passes: int
    time: float


class Pace:
    """Running means of the time of UNet passes; safe to use from several threads.

    The first pass of a kind does not count, for it pays for what is made once; and nothing counts for longer than a
    minute, so that a machine that was slow for a while is not held to be slow forever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps_per_second: float | None = None
        self._passes: OrderedDict[tuple[Size, int], _Measured] = OrderedDict()  # by size and power of two of images

    def report(self, size: Size, images: int, seconds: float) -> None:
        """Tell how long one pass over so many images took."""
        if images < 1 or seconds <= 0:
            return
        key, now = (size, images.bit_length()), time.monotonic()
        with self._lock:
            self._steps_per_second = _mean(self._steps_per_second, images / seconds)
            known = self._passes.pop(key, None)
            mean = seconds if known is None or known.passes == 1 else _mean(known.seconds, seconds)
            self._passes[key] = _Measured(mean, 1 if known is None else known.passes + 1, now)
            if len(self._passes) > _REMEMBERED_SIZES:
                self._passes.popitem(last=False)

    @property
    def steps_per_second(self) -> float | None:
        """Denoising steps in a second, summed over images; None before the first pass."""
        return self._steps_per_second

    def pass_seconds(self, size: Size, images: int) -> float | None:
        """Time of a pass over so many images, or of the largest smaller one that was seen; None where none was."""
        oldest = time.monotonic() - _VALID_SECONDS
        with self._lock:
            for power in range(images.bit_length(), 0, -1):
                known = self._passes.get((size, power))
                if known is not None and known.passes > 1 and known.time >= oldest:
                    return known.seconds
        return None

    def least_seconds(self, size: Size, *, steps: int, images: int, slots: int) -> float:
        """The shortest time that images of so many steps each can take, even with all slots to themselves.

        0 where nothing of that size has been measured.
        """
        together = min(images, slots)
        seconds = self.pass_seconds(size, together)
        return 0.0 if seconds is None else -(-images // slots) * steps * seconds


def _mean(known: float | None, value: float) -> float:
    return value if known is None else _MEMORY * known + (1 - _MEMORY) * value
