"""Concepts from a real store into memory: versions, loads, bounds and refusals."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from detex_core.artifact import ConceptArchive
from detex_core.errors import (
    DataLossError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_generator.cache.concept_cache import ConceptCache
from detex_generator.metrics import GeneratorMetrics
from detex_protos.v1.generator_pb2 import ListResidentConceptsRequest, PrefetchConceptRequest
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import RunningGenerator, generator_settings, pixels, running
from tests.generator.test_bad_requests import flip_a_bit

HOST = {"level": "host"}


class CountingStore(FolderStore):
    """A folder store that counts reads of tensors, and can be cut off."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tensor_reads: list[str] = []
        self.cut_off = False

    def get(self, key: str, *, expected_sha256: str | None = None) -> bytes:
        self._answer()
        if key.endswith(".safetensors"):
            self.tensor_reads.append(key)
        return super().get(key, expected_sha256=expected_sha256)

    def list(self, prefix: str = "") -> Iterator[Any]:
        self._answer()
        return super().list(prefix)

    def check(self) -> None:
        self._answer()
        super().check()

    def _answer(self) -> None:
        if self.cut_off:
            raise UnavailableError("The object store does not answer, says the test.")


@pytest.fixture
def own_store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


MakeCache = Callable[..., tuple[ConceptCache, CollectorRegistry]]


@pytest.fixture
def make_cache(own_store: CountingStore) -> MakeCache:
    def make(
        capacity_bytes: int = 10**9, newest_version_seconds: float = 0.0, device_capacity_bytes: int = 0
    ) -> tuple[ConceptCache, CollectorRegistry]:
        registry = CollectorRegistry()
        cache = ConceptCache(
            ConceptArchive(own_store),
            capacity_bytes=capacity_bytes,
            newest_version_seconds=newest_version_seconds,
            metrics=GeneratorMetrics(registry),
            device_capacity_bytes=device_capacity_bytes,
            retry_seconds=1e-6,
        )
        return cache, registry

    return make


def test_a_concept_comes_as_it_was_published(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    published = random_concept(base_model, 1)
    publish(own_store, base_model, "mug", published)
    cache, _ = make_cache()
    concept = cache.get(cache.resolve("default", "mug"), base_model)
    expected = published.tensors()
    assert concept.tensors().keys() == expected.keys()
    for name, tensor in concept.tensors().items():
        assert torch.equal(tensor, expected[name])


def test_threads_that_want_a_concept_at_once_share_one_load(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    names = ["mug", "bowl", "lamp"]
    for seed, name in enumerate(names):
        publish(own_store, base_model, name, random_concept(base_model, seed))
    cache, registry = make_cache()
    threads = 24
    barrier = Barrier(threads)

    def get(number: int) -> object:
        stored = cache.resolve("default", names[number % 3])
        barrier.wait(30)
        return cache.get(stored, base_model)

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(get, range(threads)))
    assert len(own_store.tensor_reads) == 3
    assert len({id(concept) for concept in found}) == 3
    assert registry.get_sample_value("detex_generator_concept_cache_hits_total", HOST) == threads - 3
    assert registry.get_sample_value("detex_generator_concept_cache_misses_total", HOST) == 3
    assert registry.get_sample_value("detex_generator_concept_cache_loads_total", HOST | {"outcome": "loaded"}) == 3


def test_memory_is_bounded_and_the_least_recently_used_goes(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    size_bytes = random_concept(base_model, 0).size_bytes
    for seed in range(4):
        publish(own_store, base_model, f"c{seed}", random_concept(base_model, seed))
    cache, registry = make_cache(capacity_bytes=2 * size_bytes)

    def use(name: str) -> None:
        cache.get(cache.resolve("default", name), base_model)

    for name in ("c0", "c1", "c0", "c2"):
        use(name)
    assert [resident.key.name for resident in cache.residents("default")] == ["c2", "c0"]
    assert registry.get_sample_value("detex_generator_concept_cache_bytes", HOST) == 2 * size_bytes
    assert registry.get_sample_value("detex_generator_concept_cache_evictions_total", HOST) == 1
    use("c1")
    assert len(own_store.tensor_reads) == 4
    assert cache.residents("acme") == []


def test_a_concept_larger_than_the_cache_serves_but_is_not_prefetched(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    publish(own_store, base_model, "mug", random_concept(base_model, 0))
    cache, _ = make_cache(capacity_bytes=100)
    assert cache.get(cache.resolve("default", "mug"), base_model).class_word == "mug"
    with pytest.raises(ResourceExhaustedError, match="more than the whole concept cache \\(100 bytes\\)"):
        cache.prefetch("default", "mug", "", base_model)
    assert cache.residents("default") == []


def test_a_flipped_bit_is_refused_and_never_cached(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel, tmp_path: Path
) -> None:
    flip_a_bit(tmp_path / "store", publish(own_store, base_model, "mug", random_concept(base_model, 0)))
    cache, registry = make_cache()
    for _ in range(2):
        with pytest.raises(DataLossError):
            cache.get(cache.resolve("default", "mug"), base_model)
    assert cache.residents("default") == []
    assert registry.get_sample_value("detex_generator_concept_cache_loads_total", HOST | {"outcome": "failed"}) == 2
    publish(own_store, base_model, "mug", random_concept(base_model, 1))
    assert cache.get(cache.resolve("default", "mug"), base_model).class_word == "mug"


def test_an_artifact_replaced_while_it_loads_is_refused_and_others_load(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    """The file that its manifest names is swapped after the manifest has been read."""
    for seed, name in enumerate(("mug", "bowl")):
        publish(own_store, base_model, name, random_concept(base_model, seed))
    cache, registry = make_cache()
    mug, bowl = (cache.resolve("default", name) for name in ("mug", "bowl"))
    keys = {
        name: f"concepts/default/{name}/{stored.manifest.version}/concept.safetensors"
        for name, stored in (("mug", mug), ("bowl", bowl))
    }
    true_content = own_store.get(keys["mug"])
    own_store.put(keys["mug"], own_store.get(keys["bowl"]))
    with ThreadPoolExecutor(2) as pool:
        of_mug, of_bowl = (pool.submit(cache.get, stored, base_model) for stored in (mug, bowl))
        with pytest.raises(DataLossError):
            of_mug.result(30)
        assert of_bowl.result(30).class_word == "mug"
    assert [resident.key.name for resident in cache.residents("default")] == ["bowl"]
    assert registry.get_sample_value("detex_generator_concept_cache_loads_total", HOST | {"outcome": "failed"}) == 1
    own_store.put(keys["mug"], true_content)
    expected = random_concept(base_model, 0).tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in cache.get(mug, base_model).tensors().items())


def test_a_concept_of_another_base_model_is_refused_before_it_is_read(
    make_cache: MakeCache, own_store: CountingStore, base_models: dict[str, BaseModel]
) -> None:
    publish(own_store, base_models["other"], "mug", random_concept(base_models["other"], 0))
    cache, _ = make_cache()
    with pytest.raises(FailedPreconditionError, match=r"trained on base model 'other' .* does not fit 'tiny'"):
        cache.get(cache.resolve("default", "mug"), base_models["tiny"])
    assert own_store.tensor_reads == []


def test_an_answer_of_the_store_holds_for_its_time_only(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    first = publish(own_store, base_model, "mug", random_concept(base_model, 0))
    patient, _ = make_cache(newest_version_seconds=60)
    strict, _ = make_cache(newest_version_seconds=0)
    assert patient.resolve("default", "mug") == strict.resolve("default", "mug") == first
    second = publish(own_store, base_model, "mug", random_concept(base_model, 1))
    assert patient.resolve("default", "mug") == first
    assert strict.resolve("default", "mug") == second
    assert strict.resolve("default", "mug", first.manifest.version) == first
    ConceptArchive(own_store).delete("default", "mug")
    with pytest.raises(NotFoundError):
        strict.resolve("default", "mug")
    with pytest.raises(NotFoundError):
        strict.resolve("default", "mug", first.manifest.version)


def test_what_is_in_memory_outlives_the_store(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    for name in ("mug", "bowl"):
        publish(own_store, base_model, name, random_concept(base_model, 0))
    cache, registry = make_cache()
    cache.get(cache.resolve("default", "mug"), base_model)
    own_store.cut_off = True
    assert cache.get(cache.resolve("default", "mug"), base_model).class_word == "mug"
    assert registry.get_sample_value("detex_generator_concept_cache_stale_resolutions_total") == 1
    with pytest.raises(UnavailableError):
        cache.resolve("default", "bowl")
    own_store.cut_off = False
    assert cache.get(cache.resolve("default", "bowl"), base_model).class_word == "mug"


@pytest.fixture
def own_generator(
    model_folders: dict[str, Path], tmp_path: Path, own_store: CountingStore
) -> Iterator[RunningGenerator]:
    # With its store there from the beginning: a store that is not is left alone for a moment.
    with running(generator_settings(model_folders, tmp_path / "store", newest_version_seconds=0)) as generator:
        yield generator


def test_a_new_version_is_seen_by_the_next_request(
    own_generator: RunningGenerator, own_store: CountingStore, base_model: BaseModel
) -> None:
    drawn = []
    for seed in range(2):
        stored = publish(own_store, base_model, "mug", random_concept(base_model, seed))
        (image,) = own_generator.draw(prompt="[mug] on a table", seed=1, steps=3)
        assert image.provenance.concepts[0].reference.version == stored.manifest.version
        assert image.provenance.concepts[0].manifest_sha256 == stored.sha256
        drawn.append((stored, pixels(image.png)))
    first, picture = drawn[0]
    assert (picture != drawn[1][1]).any()
    (again,) = own_generator.draw(
        prompt="[mug] on a table", seed=1, steps=3, concept_versions={"mug": first.manifest.version}
    )
    assert (pixels(again.png) == picture).all()


def test_a_prefetched_concept_is_resident(
    own_generator: RunningGenerator, own_store: CountingStore, base_model: BaseModel
) -> None:
    stored = publish(own_store, base_model, "mug", random_concept(base_model, 0))
    request = PrefetchConceptRequest()
    request.reference.name = "mug"
    prefetched = own_generator.stub.PrefetchConcept(request).concept
    (resident,) = own_generator.stub.ListResidentConcepts(ListResidentConceptsRequest()).concepts
    for concept in (prefetched, resident):
        assert (concept.reference.name, concept.reference.version) == ("mug", stored.manifest.version)
        assert (concept.base_model, concept.size_bytes) == ("tiny", random_concept(base_model, 0).size_bytes)
    own_generator.draw(prompt="[mug]", steps=1)
    assert own_generator.metric("concept_cache_loads_total", level="host", outcome="loaded") == 1


def test_a_prompt_that_is_drawn_again_uses_its_concepts(
    own_generator: RunningGenerator, own_store: CountingStore, base_model: BaseModel
) -> None:
    def resident() -> list[str]:
        concepts = own_generator.stub.ListResidentConcepts(ListResidentConceptsRequest()).concepts
        return [concept.reference.name for concept in concepts]

    for seed, name in enumerate(("mug", "cup")):
        publish(own_store, base_model, name, random_concept(base_model, seed))
        own_generator.draw(prompt=f"[{name}]", steps=1)
    assert resident() == ["cup", "mug"]
    hits = own_generator.metric("prompt_cache_hits_total")
    own_generator.draw(prompt="[mug]", steps=1)
    assert (own_generator.metric("prompt_cache_hits_total") or 0) > (hits or 0)
    assert resident() == ["mug", "cup"]


def test_a_deleted_concept_is_served_in_no_outage(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    publish(own_store, base_model, "mug", random_concept(base_model, 1))
    cache, _ = make_cache()
    stored = cache.resolve("default", "mug")
    version = stored.manifest.version
    cache.resolve("default", "mug", version)
    cache.get(stored, base_model)
    ConceptArchive(own_store).delete("default", "mug")
    with pytest.raises(NotFoundError):
        cache.resolve("default", "mug")
    own_store.cut_off = True
    for asked in ("", version):
        with pytest.raises(UnavailableError):
            cache.resolve("default", "mug", asked)
    assert cache.residents("default") == []


def test_a_deleted_concept_is_pinned_no_longer(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    size_bytes = random_concept(base_model, 1).size_bytes
    for name in ("mug", "bowl"):
        publish(own_store, base_model, name, random_concept(base_model, 1))
    cache, _ = make_cache(capacity_bytes=3 * size_bytes)
    cache.prefetch("default", "mug", "", base_model, pin=True)
    with pytest.raises(ResourceExhaustedError):
        cache.prefetch("default", "bowl", "", base_model, pin=True)
    ConceptArchive(own_store).delete("default", "mug")
    assert not cache.prefetch("default", "mug", "", base_model, pin=False).pinned
    assert not cache.prefetch("default", "mug", "", base_model, pin=False).pinned  # and again
    assert [resident.key.name for resident in cache.residents("default")] == ["bowl"]
    assert cache.prefetch("default", "bowl", "", base_model, pin=True).pinned
    for pin in (True, None):
        with pytest.raises(NotFoundError):
            cache.prefetch("default", "mug", "", base_model, pin=pin)
    with pytest.raises(NotFoundError):
        cache.prefetch("default", "never-there", "", base_model, pin=False)


def test_an_object_that_cannot_be_read_costs_only_those_who_want_it(
    own_store: CountingStore, base_model: BaseModel
) -> None:
    for name in ("mug", "bowl"):
        publish(own_store, base_model, name, random_concept(base_model, 1))

    class OneUnreadable(type(own_store)):  # type: ignore[misc]
        def get(self, key: str, **options: Any) -> bytes:
            if "/mug/" in key and key.endswith(".safetensors"):
                raise UnavailableError("Input/output error, says the test.")
            return super().get(key, **options)

    own_store.__class__ = OneUnreadable
    registry = CollectorRegistry()
    cache = ConceptCache(
        ConceptArchive(own_store),
        capacity_bytes=10**9,
        newest_version_seconds=0.0,
        metrics=GeneratorMetrics(registry),
        retry_seconds=3_600.0,
    )
    for _ in range(3):
        with pytest.raises(UnavailableError, match="Input/output error"):
            cache.get(cache.resolve("default", "mug"), base_model)
        cache.get(cache.resolve("default", "bowl"), base_model)
    assert registry.get_sample_value("detex_generator_object_store_up") == 1


class OnDevice:
    """A base model that seems to be on a device with memory of its own."""

    def __init__(self, base_model: BaseModel) -> None:
        self._base_model = base_model

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base_model, name)


@pytest.mark.parametrize("served_from", ["the device", "prompts that were computed earlier"])
def test_what_is_served_from_further_on_stays_in_memory(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel, served_from: str
) -> None:
    device: Any = OnDevice(base_model)
    size = random_concept(base_model, 0).size_bytes
    stored = [publish(own_store, base_model, f"mug{seed}", random_concept(base_model, seed)) for seed in range(12)]
    cache, _ = make_cache(capacity_bytes=2 * size, device_capacity_bytes=2 * size)
    hot = stored[0]
    for cold in stored[1:]:
        for each in (hot, cold):
            if each is hot and cold is not stored[1] and served_from != "the device":
                cache.touch(hot, device)
            else:
                cache.on_device(each, device)
    assert cache.holds(hot, device)
    assert cache.holds_words(hot, device)
    assert sum(hot.manifest.name + "/" in key for key in own_store.tensor_reads) == 1


def test_what_is_on_the_device_needs_nothing_from_the_store(
    make_cache: MakeCache, own_store: CountingStore, base_model: BaseModel
) -> None:
    device: Any = OnDevice(base_model)
    size = random_concept(base_model, 0).size_bytes
    stored = [publish(own_store, base_model, f"mug{seed}", random_concept(base_model, seed)) for seed in range(2)]
    cache, _ = make_cache(capacity_bytes=size, device_capacity_bytes=2 * size)
    for each in stored:
        cache.on_device(each, device)
    assert [cache.holds(each, device) for each in stored] == [False, True]
    assert [cache.holds_words(each, device) for each in stored] == [True, True]
    own_store.cut_off = True
    for each in stored:
        cache.on_device(each, device)


class TwoLevels(RuleBasedStateMachine):
    """Uses, touches and pins of concepts on a host and a device that hold three and two of eight."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = CountingStore(Path(self.folder.name))
        base_model = SHARED["base_model"]
        self.device: Any = OnDevice(base_model)
        concept = random_concept(base_model, 0)
        self.stored = [publish(self.store, base_model, f"mug{i}", concept) for i in range(8)]
        self.size = concept.size_bytes
        self.registry = CollectorRegistry()
        self.cache = ConceptCache(
            ConceptArchive(self.store),
            capacity_bytes=3 * self.size,
            newest_version_seconds=0.0,
            metrics=GeneratorMetrics(self.registry),
            device_capacity_bytes=2 * self.size,
            retry_seconds=1e-6,
        )
        self.pinned: set[int] = set()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(index=st.integers(0, 7))
    def use(self, index: int) -> None:
        stored = self.stored[index]
        needs = not self.cache.holds_words(stored, self.device)
        before = len(self.store.tensor_reads)
        self.cache.on_device(stored, self.device)
        assert (len(self.store.tensor_reads) > before) == needs
        assert self.cache.holds_words(stored, self.device)

    @rule(index=st.integers(0, 7))
    def touch(self, index: int) -> None:
        before = [self.cache.holds(stored, self.device) for stored in self.stored]
        self.cache.touch(self.stored[index], self.device)
        assert [self.cache.holds(stored, self.device) for stored in self.stored] == before
        if before[index]:
            assert self.cache.residents("default")[0].key.name == f"mug{index}"

    @rule(index=st.integers(0, 7), pin=st.booleans())
    def pin(self, index: int, pin: bool) -> None:
        try:
            self.cache.prefetch("default", f"mug{index}", "", self.device, pin=pin)
        except ResourceExhaustedError:
            assert self.pinned
            return
        self.pinned = self.pinned | {index} if pin else self.pinned - {index}

    @rule()
    def free(self) -> None:
        self.cache.free_device_memory()

    @invariant()
    def bounds_hold_and_pins_stay(self) -> None:
        residents = self.cache.residents("default")
        assert sum(resident.size_bytes for resident in residents) <= 3 * self.size
        on_device = self.registry.get_sample_value("concept_cache_bytes", {"level": "device"}) or 0
        assert on_device <= 2 * self.size
        assert {f"mug{index}" for index in self.pinned} <= {each.key.name for each in residents if each.pinned}


SHARED: dict[str, BaseModel] = {}


def test_both_levels_keep_their_bounds_and_what_is_pinned(base_model: BaseModel) -> None:
    SHARED["base_model"] = base_model
    run_state_machine_as_test(TwoLevels, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))
