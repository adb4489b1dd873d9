"""Concepts in memory: from the object store, checked, bounded in bytes, one load for many waiters."""

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from detex_core.artifact import ConceptArchive, StoredManifest
from detex_core.errors import FailedPreconditionError, NotFoundError, ResourceExhaustedError, UnavailableError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.concept_file import FILE_NAME, load_concept
from detex_generator.cache.bounded_cache import BoundedCache
from detex_generator.cache.store_breaker import StoreBreaker
from detex_generator.metrics import GeneratorMetrics

_logger = logging.getLogger(__name__)
_REMEMBERED_RESOLUTIONS = 4096


@dataclass(frozen=True)
class ConceptKey:
    """What a loaded concept is kept under: its identity and the base model it is loaded for.

    The SHA-256 of its manifest is part of it: nothing that was read under another manifest is ever taken for it.
    """

    tenant: str
    name: str
    version: str
    manifest_sha256: str
    base_model: str


@dataclass(frozen=True)
class ResidentConcept:
    """A concept in memory.

    Attributes:
        key: Which.
        size_bytes: Memory of its tensors.
        idle_seconds: Time since its last use.
        pinned: Whether it stays whatever others need.
    """

    key: ConceptKey
    size_bytes: int
    idle_seconds: float
    pinned: bool = False


class _Observer:
    def __init__(self, metrics: GeneratorMetrics, level: str) -> None:
        self._metrics = metrics
        self._level = level

    def hit(self) -> None:
        self._metrics.concept_hits.labels(self._level).inc()

    def miss(self) -> None:
        self._metrics.concept_misses.labels(self._level).inc()

    def evicted(self) -> None:
        self._metrics.concept_evictions.labels(self._level).inc()

    def holds(self, size_bytes: int, entries: int) -> None:
        self._metrics.concept_bytes.labels(self._level).set(size_bytes)
        self._metrics.concepts_resident.labels(self._level).set(entries)


class ConceptCache:
    """Resolves names to versions and versions to concepts; all calls block and are safe from several threads.

    Two levels, each bounded in bytes: the host's memory, filled from the object store, and a GPU's, filled from the
    host's. On a CPU the first is all there is.
    """

    def __init__(
        self,
        archive: ConceptArchive,
        *,
        capacity_bytes: int,
        newest_version_seconds: float,
        metrics: GeneratorMetrics,
        device_capacity_bytes: int = 0,
        retry_seconds: float = 0.5,
        retry_longest_seconds: float = 10.0,
    ) -> None:
        """Begin empty.

        Args:
            archive: Where concepts are published.
            capacity_bytes: Most memory of the host to keep concepts in.
            newest_version_seconds: How long an answer of the archive holds; a version published later than that before
                a request is seen by it.
            metrics: Receives hits, misses, loads and evictions.
            device_capacity_bytes: Most memory of a GPU to keep concepts in.
            retry_seconds: After the archive has not answered, it is left alone for so long.
            retry_longest_seconds: Bound of that time, which doubles at each further failure.
        """
        self._archive = archive
        self._capacity_bytes = capacity_bytes
        self._newest_version_seconds = newest_version_seconds
        self._metrics = metrics
        self._cache: BoundedCache[ConceptKey, Concept] = BoundedCache(
            capacity_bytes, lambda concept: concept.size_bytes, _Observer(metrics, "host")
        )
        self._device_cache: BoundedCache[tuple[ConceptKey, str], Concept] = BoundedCache(
            device_capacity_bytes, lambda concept: concept.size_bytes, _Observer(metrics, "device")
        )
        self._breaker = StoreBreaker(retry_seconds, retry_longest_seconds, metrics, probe=archive.check)
        self.look_at_store = self._breaker.look
        self._lock = threading.Lock()
        self._resolutions: OrderedDict[tuple[str, str, str], tuple[float, StoredManifest]] = OrderedDict()
        self._released_keys: OrderedDict[ConceptKey, None] = OrderedDict()

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
            stored = self._breaker.ask(lambda: self._archive.resolve(tenant, name, version))
        except NotFoundError:
            self._forget(tenant, name, version)
            raise
        except UnavailableError:
            if known is None:
                raise
            self._metrics.concept_stale.inc()
            _logger.debug("The object store does not answer; %s stays at version %s", name, known[1].manifest.version)
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

    def on_device(self, stored: StoredManifest, base_model: BaseModel) -> Concept:
        """The words, keys and values of a concept on the base model's device; raises as `get`.

        What a concept adds to the UNet itself stays behind: `UNetCache` has that.
        """
        if base_model.device.type == "cpu":
            return self.get(stored, base_model).without_unet_delta()
        moves = False

        def move() -> Concept:
            nonlocal moves
            moves = True
            concept = self.get(stored, base_model)
            start = time.monotonic()
            moved = concept.without_unet_delta().to(base_model.device)
            self._metrics.concept_loads.labels("device", "loaded").inc()
            self._metrics.concept_load_seconds.labels("device").observe(time.monotonic() - start)
            return moved

        check_base_model(stored, base_model)
        key = _key(stored, base_model)
        concept = self._device_cache.get((key, str(base_model.device)), move)
        if not moves:
            self._cache.touch(key)
        return concept

    def holds(self, stored: StoredManifest, base_model: BaseModel) -> bool:
        """Whether `get` and `on_device` need nothing from the object store now."""
        return _key(stored, base_model) in self._cache

    def holds_words(self, stored: StoredManifest, base_model: BaseModel) -> bool:
        """Whether `on_device` needs nothing from the object store now."""
        key = _key(stored, base_model)
        return key in self._cache or (key, str(base_model.device)) in self._device_cache

    def touch(self, stored: StoredManifest, base_model: BaseModel) -> None:
        """Count a use of a concept by what was computed from it earlier, wherever it is kept.

        Otherwise what is asked for most often, and so is served from caches further on, would seem to be used least.
        """
        key = _key(stored, base_model)
        self._cache.touch(key)
        self._device_cache.touch((key, str(base_model.device)))

    def prefetch(
        self, tenant: str, name: str, version: str, base_model: BaseModel, *, pin: bool | None = None
    ) -> ResidentConcept:
        """Load a concept ahead of its first request; raises as `resolve` and `get`.

        Args:
            tenant: Whose.
            name: Which.
            version: Which version; the newest where empty.
            base_model: The base model to load it for.
            pin: Whether this version is to stay in memory whatever others need; None leaves that as it is.

        Raises:
            ResourceExhaustedError: The concept is larger than the whole cache, which will not keep it, or pins would
                take more than half of the cache.
        """
        try:
            stored = self.resolve(tenant, name, version)
        except NotFoundError:
            # To let go of what has been deleted is no error for whoever asks for it: that has happened by now.
            released = None if pin is not False else self._released(tenant, name, version, base_model)
            if released is None:
                raise
            return released
        key = _key(stored, base_model)
        concept = self.get(stored, base_model)
        if concept.size_bytes > self._capacity_bytes:
            raise ResourceExhaustedError(
                f"Concept {name!r} takes {concept.size_bytes:,} bytes, more than the whole concept cache "
                f"({self._capacity_bytes:,} bytes).",
                reason="CONCEPT_CACHE_TOO_SMALL",
            )
        if pin is not None:
            pinned = self._cache.pin(key, pin)
            self._metrics.concepts_pinned.labels("host").set(self._cache.pinned_bytes)
            if not pinned:
                raise ResourceExhaustedError(
                    f"Concept {name!r} takes {concept.size_bytes:,} bytes; pinned concepts take "
                    f"{self._cache.pinned_bytes:,} bytes, and may take half of the concept cache at most "
                    f"({self._capacity_bytes // 2:,} bytes).",
                    reason="TOO_MANY_PINS",
                )
        resident = next((entry for entry in self._cache.entries() if entry.key == key), None)
        return ResidentConcept(key, concept.size_bytes, 0.0, resident is not None and resident.pinned)

    def free_device_memory(self) -> None:
        """Forget what lies on a GPU; it comes again from the host's memory when it is needed."""
        self._device_cache.clear()

    def residents(self, tenant: str) -> list[ResidentConcept]:
        """Concepts of a tenant that are kept in memory, the one used last first."""
        return [
            ResidentConcept(entry.key, entry.size_bytes, entry.idle_seconds, entry.pinned)
            for entry in self._cache.entries()
            if entry.key.tenant == tenant
        ]

    def _forget(self, tenant: str, name: str, version: str) -> None:
        """Keep nothing of what the archive says is not there: no answers for an outage, no memory, no pins."""

        def is_gone(key: ConceptKey) -> bool:
            return (key.tenant, key.name) == (tenant, name) and version in ("", key.version)

        with self._lock:
            gone = [
                question
                for question, (_, stored) in self._resolutions.items()
                if question[:2] == (tenant, name) and version in ("", question[2], stored.manifest.version)
            ]
            for question in gone:
                del self._resolutions[question]
        self._device_cache.forget(lambda key: is_gone(key[0]))
        with self._lock:
            self._released_keys.update(dict.fromkeys(self._cache.forget(is_gone)))
            while len(self._released_keys) > _REMEMBERED_RESOLUTIONS:
                self._released_keys.popitem(last=False)
        self._metrics.concepts_pinned.labels("host").set(self._cache.pinned_bytes)

    def _released(self, tenant: str, name: str, version: str, base_model: BaseModel) -> ResidentConcept | None:
        """What was kept of a concept until it was found to be deleted; None where nothing was."""
        with self._lock:
            for key in reversed(self._released_keys):
                is_it = (key.tenant, key.name, key.base_model) == (tenant, name, base_model.name)
                if is_it and version in ("", key.version):
                    return ResidentConcept(key, 0, 0.0)
        return None

    def _load(self, stored: StoredManifest, base_model: BaseModel) -> Concept:
        start = time.monotonic()
        try:
            data = self._breaker.ask(lambda: self._archive.read(stored, FILE_NAME))
            concept = load_concept(stored.manifest, data, base_model)
        except BaseException:
            self._metrics.concept_loads.labels("host", "failed").inc()
            raise
        self._metrics.concept_loads.labels("host", "loaded").inc()
        self._metrics.concept_load_seconds.labels("host").observe(time.monotonic() - start)
        return concept


def check_base_model(stored: StoredManifest, base_model: BaseModel, *, field: str = "reference") -> None:
    """Raise FailedPreconditionError where a concept was trained on another base model; `field` is what names it."""
    manifest = stored.manifest
    if manifest.base_model_fingerprint != base_model.fingerprint:
        raise FailedPreconditionError(
            f"{field}: concept {manifest.name!r} version {manifest.version} was trained on base model "
            f"{manifest.base_model!r} ({manifest.base_model_fingerprint[:12]}) and does not fit {base_model.name!r} "
            f"({base_model.fingerprint[:12]}).",
            reason="BASE_MODEL_MISMATCH",
        )


def _key(stored: StoredManifest, base_model: BaseModel) -> ConceptKey:
    manifest = stored.manifest
    return ConceptKey(manifest.tenant, manifest.name, manifest.version, stored.sha256, base_model.name)
