"""Keys and values of prompts in memory, bounded in bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detex_core.artifact import StoredManifest
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.text import TokenizedPrompt
from detex_generator.cache.bounded_cache import BoundedCache
from detex_generator.metrics import GeneratorMetrics


@dataclass(frozen=True)
class PromptKey:
    """All that keys and values depend on.

    Attributes:
        base_model: Fingerprint of the base model.
        token_ids: Tokens of the prompt.
        words: Which word of which concept stands where.
        owners: Which concept each token belongs to.
        concepts: SHA-256 of the manifests of the prompt's concepts, in their order.
        is_zeroed: Whether the UNet reads zeros in its place.
        unet: Key of the `ConceptUNet` whose projections they come from; empty for the base model's own UNet.
    """

    base_model: str
    token_ids: tuple[int, ...]
    words: tuple[object, ...]
    owners: tuple[int, ...]
    concepts: tuple[str, ...]
    is_zeroed: bool
    unet: str = ""

    @classmethod
    def of(
        cls, base_model: BaseModel, prompt: TokenizedPrompt, stored: Sequence[StoredManifest], unet: str = ""
    ) -> "PromptKey":
        """The key of a tokenised prompt with the manifests of its concepts and the key of the UNet that reads it."""
        return cls(
            base_model=base_model.fingerprint,
            token_ids=tuple(prompt.ids.tolist()),
            words=(prompt.words, tuple(prompt.word_rows.tolist())),
            owners=tuple(prompt.owners.tolist()),
            concepts=tuple(found.sha256 for found in stored),
            is_zeroed=prompt.is_zeroed,
            unet=unet,
        )


class _Observer:
    def __init__(self, metrics: GeneratorMetrics) -> None:
        self._metrics = metrics

    def hit(self) -> None:
        self._metrics.prompt_hits.inc()

    def miss(self) -> None:
        self._metrics.prompt_misses.inc()

    def evicted(self) -> None:
        self._metrics.prompt_evictions.inc()

    def holds(self, size_bytes: int, entries: int) -> None:
        del entries
        self._metrics.prompt_bytes.set(size_bytes)


class PromptCache:
    """Keys and values by prompt; safe to use from several threads.

    What an image in a slot reads is found again even where the cache keeps nothing, so the images of one request always
    share theirs.
    """

    def __init__(self, capacity_bytes: int, metrics: GeneratorMetrics) -> None:
        """Begin empty; keep at most `capacity_bytes`."""
        self._cache: BoundedCache[PromptKey, PromptKeyValues] = BoundedCache(
            capacity_bytes, lambda found: found.size_bytes, _Observer(metrics)
        )

    def get(self, key: PromptKey, load: Callable[[], PromptKeyValues]) -> PromptKeyValues:
        """The keys and values of a prompt; computed by `load`, once for all who ask at the same time."""
        return self._cache.get(key, load)

    def __contains__(self, key: PromptKey) -> bool:
        """Whether the keys and values of a prompt are available now."""
        return key in self._cache

    def clear(self) -> None:
        """Forget what no image is being drawn from."""
        self._cache.clear()
