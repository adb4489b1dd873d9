"""What the measurements share: base model, concepts in a folder store, the peer."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.arrivals import Ask, Asks
from benchmarks.serving.peer import Peer
from benchmarks.serving.running_engine import RunningEngine, engine_settings, message_of
from benchmarks.serving.scale import Scale
from detex_core.settings import ObjectStoreSettings
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept


@dataclass(frozen=True)
class Setting:
    """What the measurements share.

    Attributes:
        scale: How large the run is.
        base_model: The embedded base model, on the CPU; the engine loads its own.
        concepts: All published concepts by name.
        store_folder: The folder store that they lie in.
        work_folder: For files of the measurements.
        peer: The peer, with all concepts.
        asks: Where requests come from.
        options: Settings of the engine that differ from its defaults.
        report: Called with a line of progress.
    """

    scale: Scale
    base_model: BaseModel
    concepts: dict[str, Concept]
    store_folder: Path
    work_folder: Path
    peer: Peer
    asks: Asks
    options: dict[str, object]
    report: Callable[[str], None]

    @property
    def concept_bytes(self) -> int:
        """Memory that one concept takes in the cache."""
        return next(iter(self.concepts.values())).size_bytes

    def engine(self, object_store: ObjectStoreSettings | None = None, **changes: object) -> RunningEngine:
        """A generator over the folder store, or another one; to be entered."""
        store = object_store or ObjectStoreSettings(url=f"folder://{self.store_folder}")
        values: dict[str, object] = {"slots": self.scale.slots, "max_waiting_images": 10_000}
        return RunningEngine(engine_settings(store, **(values | self.options | changes)))

    def images_per_second(self, engine: RunningEngine, asks: Sequence[Ask]) -> float:
        """The engine's throughput over requests that are all there at once."""
        _, seconds = engine.draw_all([message_of(ask, self.scale.steps) for ask in asks])
        return len(asks) / seconds

    def fastest_threads(self, most: int) -> int:
        """Threads of a UNet pass that the engine is fastest with here and now, as the peer chooses its own."""
        speeds = {}
        for threads in sorted({1, most}):
            with self.engine(denoising_threads=threads) as engine:
                self.images_per_second(engine, self.asks.uniform(1, self.scale.slots))
                speeds[threads] = self.images_per_second(engine, self.asks.uniform(1, self.scale.slots))
        return max(speeds, key=lambda threads: speeds[threads])

    def warm_up(self, engine: RunningEngine) -> None:
        """Draw as many images as there are slots, so that nothing measured is the first of its kind."""
        self.images_per_second(engine, self.asks.uniform(1, 2 * self.scale.slots))
        self.peer.draw_all(self.asks.uniform(2, 2))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of the values does not exceed; the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Quotients of runs that were taken side by side."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
