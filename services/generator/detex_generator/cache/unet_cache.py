"""UNets of concepts that train the UNet itself: the base model's with the concept's deltas, bounded in bytes.

A concept of words, keys and values shares the UNet of its base model with all others. One that moves the UNet's own
parameters (DreamBooth, whole or as low-rank adaptation) cannot: its images are drawn with a UNet of its own, in passes
of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

from detex_core.artifact import StoredManifest
from detex_core.errors import FailedPreconditionError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.unet_delta import unet_with_delta
from detex_generator.cache.bounded_cache import BoundedCache
from detex_generator.metrics import GeneratorMetrics


@dataclass(frozen=True, eq=False)
class ConceptUNet:
    """A UNet of a concept's own.

    Attributes:
        key: SHA-256 of the concept's manifest, which stands for its weights.
        unet: The base model's with the concept's deltas; what these leave alone is the base model's own memory.
        size_bytes: Memory beyond the base model's.
    """

    key: str
    unet: UNet2DConditionModel
    size_bytes: int


class _Observer:
    def __init__(self, metrics: GeneratorMetrics) -> None:
        self._metrics = metrics

    def hit(self) -> None:
        self._metrics.unet_hits.inc()

    def miss(self) -> None:
        self._metrics.unet_misses.inc()

    def evicted(self) -> None:
        self._metrics.unet_evictions.inc()

    def holds(self, size_bytes: int, entries: int) -> None:
        del entries
        self._metrics.unet_bytes.set(size_bytes)


class UNetCache:
    """UNets by concept; safe to use from several threads.

    A UNet that images in slots are being drawn with is found again even where the cache keeps nothing.
    """

    def __init__(self, capacity_bytes: int, metrics: GeneratorMetrics) -> None:
        """Begin empty; keep at most `capacity_bytes`."""
        self._cache: BoundedCache[tuple[str, str], ConceptUNet] = BoundedCache(
            capacity_bytes, lambda unet: unet.size_bytes, _Observer(metrics)
        )

    def get(self, stored: StoredManifest, base_model: BaseModel, load: Callable[[], Concept]) -> ConceptUNet:
        """The UNet of a concept with deltas of its own, made once for all who ask at the same time.

        Args:
            stored: The concept.
            base_model: Whose UNet it changes.
            load: Gives the concept; asked only where its UNet is not available. What it raises is raised.
        """

        def make() -> ConceptUNet:
            concept = load()
            # A plain tensor may be used in any thread and mode; one made under inference_mode may not.
            with torch.inference_mode(False):
                unet, size_bytes = unet_with_delta(base_model.unet, concept.unet_delta)
            return ConceptUNet(stored.sha256, unet, size_bytes)

        return self._cache.get((stored.sha256, base_model.name), make)

    def holds(self, stored: StoredManifest, base_model: BaseModel) -> bool:
        """Whether `get` asks for no concept now."""
        return (stored.sha256, base_model.name) in self._cache

    def clear(self) -> None:
        """Forget those that no image is being drawn with."""
        self._cache.clear()


def unet_owner(concepts: dict[str, StoredManifest]) -> StoredManifest | None:
    """The concept whose UNet draws a request: the one that has a UNet of its own, or None where none has.

    Args:
        concepts: Those that prompt and negative prompt name, by name.

    Raises:
        FailedPreconditionError: Several have; an image is drawn with one UNet.
    """
    owners = [stored for stored in concepts.values() if stored.manifest.unet.form != "none"]
    if len(owners) > 1:
        names = " and ".join(repr(stored.manifest.name) for stored in owners)
        raise FailedPreconditionError(
            f"Concepts {names} each train the UNet ({owners[0].manifest.method}), and an image can have only one such "
            "concept. Use one of them, or train them with METHOD_DETEX, whose concepts share the UNet.",
            reason="SEVERAL_UNETS",
        )
    return owners[0] if owners else None
