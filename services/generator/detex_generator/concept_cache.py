"""Concepts in memory: from the object store, checked, bounded in bytes, one load for many waiters."""

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from detex_core.artifact import ConceptArchive, StoredManifest
from detex_core.errors import FailedPreconditionError, ResourceExhaustedError, UnavailableError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.concept_file import load_concept
from detex_generator.bounded_cache import BoundedCache
from detex_generator.metrics import GeneratorMetrics

_logger = logging.getLogger(__name__)
_REMEMBERED_RESOLUTIONS = 4096


@dataclass(frozen=True)
class ConceptKey:
    """What a loaded concept is kept under: its identity and the base model it is loaded for."""

    tenant: str
    name: str
    version: str
    base_model: str


@dataclass(frozen=True)
class ResidentConcept:
    """A concept in memory.

    Attributes:
        key: Which.
        size_bytes: Memory of its tensors.
        idle_seconds: Time since its last use.
    """

    key: ConceptKey
    size_bytes: int
    idle_seconds: float


class _Observer:
    def __init__(self, metrics: GeneratorMetrics) -> None:
        self._metrics = metrics

    def hit(self) -> None:
        self._metrics.concept_hits.inc()

    def miss(self) -> None:
        self._metrics.concept_misses.inc()

    def evicted(self) -> None:
        self._metrics.concept_evictions.inc()

    def holds(self, size_bytes: int, entries: int) -> None:
        self._metrics.concept_bytes.set(size_bytes)
        self._metrics.concepts_resident.set(entries)


class ConceptCache:
    """Resolves names to versions and versions to concepts; all calls block and are safe from several threads."""

    def __init__(
        self,
        archive: ConceptArchive,
        *,
        capacity_bytes: int,
        newest_version_seconds: float,
        metrics: GeneratorMetrics,
    ) -> None:
        """Begin empty.

        Args:
            archive: Where concepts are published.
            capacity_bytes: Most memory to keep concepts in.
            newest_version_seconds: How long an answer of the archive holds; a version published later than that before
                a request is seen by it.
            metrics: Hears of hits, misses, loads and evictions.
        """
        self._archive = archive
        self._capacity_bytes = capacity_bytes
        self._newest_version_seconds = newest_version_seconds
        self._metrics = metrics
        self._cache: BoundedCache[ConceptKey, Concept] = BoundedCache(
            capacity_bytes, lambda concept: concept.size_bytes, _Observer(metrics)
        )
        self._lock = threading.Lock()
        self._resolutions: OrderedDict[tuple[str, str, str], tuple[float, StoredManifest]] = OrderedDict()

    def resolve(self, tenant: str, name: str, version: str = "") -> StoredManifest:
        """The manifest of a version, or of the newest one where `version` is empty.

        While the object store does not answer, the last answer for the same question stands in; a concept that was
        never asked for is then unavailable.

        Raises:
            NotFoundError: There is no such concept or version.
            DataLossError: Its manifest is broken.
            UnavailableError: The object store does not answer.
        """
        question = (tenant, name, version)
        now = time.monotonic()
        with self._lock:
            known = self._resolutions.get(question)
        if known is not None and now < known[0]:
            return known[1]
        try:
            stored = self._archive.resolve(tenant, name, version)
        except UnavailableError:
            if known is None:
                raise
            self._metrics.concept_stale.inc()
            _logger.warning("The object store does not answer; %s stays at version %s", name, known[1].manifest.version)
            return known[1]
        with self._lock:
            self._resolutions[question] = (now + self._newest_version_seconds, stored)
            self._resolutions.move_to_end(question)
            if len(self._resolutions) > _REMEMBERED_RESOLUTIONS:
                self._resolutions.popitem(last=False)
        return stored

    def get(self, stored: StoredManifest, base_model: BaseModel) -> Concept:
        """The concept of a manifest, loaded for a base model.

        Raises:
            FailedPreconditionError: It was trained on another base model.
            DataLossError: A file of it is missing, has another hash, or does not hold what the manifest says.
            UnavailableError: The object store does not answer.
        """
        check_base_model(stored, base_model)
        return self._cache.get(_key(stored, base_model), lambda: self._load(stored, base_model))

    def prefetch(self, tenant: str, name: str, version: str, base_model: BaseModel) -> ResidentConcept:
        """Load a concept ahead of its first request; raises as `resolve` and `get`.

        Raises:
            ResourceExhaustedError: The concept is larger than the whole cache, which will not keep it.
        """
        stored = self.resolve(tenant, name, version)
        concept = self.get(stored, base_model)
        if concept.size_bytes > self._capacity_bytes:
            raise ResourceExhaustedError(
                f"Concept {name!r} takes {concept.size_bytes:,} bytes, more than the whole concept cache "
                f"({self._capacity_bytes:,} bytes).",
                reason="CONCEPT_CACHE_TOO_SMALL",
            )
        return ResidentConcept(_key(stored, base_model), concept.size_bytes, idle_seconds=0.0)

    def residents(self, tenant: str) -> list[ResidentConcept]:
        """Concepts of a tenant that are kept in memory, the one used last first."""
        return [
            ResidentConcept(entry.key, entry.size_bytes, entry.idle_seconds)
            for entry in self._cache.entries()
            if entry.key.tenant == tenant
        ]

    def _load(self, stored: StoredManifest, base_model: BaseModel) -> Concept:
        start = time.monotonic()
        try:
            data = self._archive.read(stored, "concept.safetensors")
            concept = load_concept(stored.manifest, data, base_model)
        except BaseException:
            self._metrics.concept_loads.labels("failed").inc()
            raise
        self._metrics.concept_loads.labels("loaded").inc()
        self._metrics.concept_load_seconds.observe(time.monotonic() - start)
        return concept


def check_base_model(stored: StoredManifest, base_model: BaseModel) -> None:
    """Raise FailedPreconditionError where a concept was trained on another base model."""
    manifest = stored.manifest
    if manifest.base_model_fingerprint != base_model.fingerprint:
        raise FailedPreconditionError(
            f"Concept {manifest.name!r} version {manifest.version} was trained on base model {manifest.base_model!r} "
            f"({manifest.base_model_fingerprint[:12]}) and does not fit {base_model.name!r} "
            f"({base_model.fingerprint[:12]}).",
            reason="BASE_MODEL_MISMATCH",
        )


def _key(stored: StoredManifest, base_model: BaseModel) -> ConceptKey:
    manifest = stored.manifest
    return ConceptKey(manifest.tenant, manifest.name, manifest.version, base_model.name)
