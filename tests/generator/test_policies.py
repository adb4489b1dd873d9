"""Who goes first, who is refused: priorities, deadlines, shares of tenants, pins."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_generator.engine.scheduling.pace import Pace
from detex_protos.v1 import generator_pb2
from detex_protos.v1.generator_pb2 import GenerateRequest, ListResidentConceptsRequest, PrefetchConceptRequest
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    Refusal,
    RunningGenerator,
    generator_settings,
    refusal_of,
    running,
    wait_until,
)
from tests.generator.test_queue import LONG, begun, is_idle


@pytest.fixture
def single(model_folders: dict[str, Path], store_folder: Path) -> Iterator[RunningGenerator]:
    """One slot, so that the order of images is the order of decisions."""
    settings = generator_settings(
        model_folders,
        store_folder,
        slots=1,
        max_waiting_images=12,
        max_images_per_request=4,
        max_waiting_images_per_tenant=5,
    )
    with running(settings) as generator:
        yield generator


class Order:
    """The order in which requests get their images."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def follow(self, name: str, call: Any) -> None:
        assert next(call).HasField("queued")
        thread = threading.Thread(target=self._read, args=(name, call))
        self._threads.append(thread)
        thread.start()

    def _read(self, name: str, call: Any) -> None:
        for event in call:
            if event.HasField("image"):
                with self._lock:
                    self.names.append(name)

    def wait(self) -> list[str]:
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
        return self.names


def checked(generator: RunningGenerator, requests: int) -> None:
    """Wait until so many requests have been checked and stand in the queue."""
    wait_until(lambda: generator.metric("stage_seconds_count", stage="check") == requests)


def test_a_higher_priority_overtakes_what_waits(single: RunningGenerator) -> None:
    blocker = begun(single.start(**LONG))
    order = Order()
    # A low one is encoded and ready by the time that the others come, and is overtaken all the same.
    order.follow("low", single.start(prompt="a mug", steps=1, count=2, priority=generator_pb2.PRIORITY_LOW))
    checked(single, 2)
    wait_until(lambda: single.metric("stage_seconds_count", stage="encode") == 2)
    order.follow("normal", single.start(prompt="a vase", steps=1))
    checked(single, 3)
    high = single.start(prompt="a lamp", steps=1, priority=generator_pb2.PRIORITY_HIGH)
    order.follow("high", high)
    checked(single, 4)
    wait_until(lambda: single.metric("stage_seconds_count", stage="encode") == 4)
    blocker.cancel()
    assert order.wait() == ["high", "normal", "low", "low"]
    assert single.metric("queue_wait_seconds_count", priority="high") == 1


def test_the_earliest_deadline_of_a_tenant_goes_first(single: RunningGenerator) -> None:
    blocker = begun(single.start(**LONG))
    ready = single.start(prompt="a mug", steps=1)  # holds the one place ahead of the slot
    assert next(ready).HasField("queued")
    checked(single, 2)
    wait_until(lambda: single.metric("stage_seconds_count", stage="encode") == 2)
    order = Order()
    for name, seconds in (("last", None), ("second", 300.0), ("first", 200.0)):
        call = single.stub.Generate(GenerateRequest(prompt="a vase", steps=1), timeout=seconds)
        order.follow(name, call)
    checked(single, 5)
    blocker.cancel()
    assert order.wait() == ["first", "second", "last"]


def test_a_deadline_that_cannot_be_met_is_refused_at_once(single: RunningGenerator) -> None:
    single.draw(prompt="a mug", steps=8)
    wait_until(lambda: single.metric("slots_in_use") == 0)
    passes = single.metric("unet_passes_total")
    pace = single.metric("unet_pass_seconds_sum") / passes
    call = single.stub.Generate(GenerateRequest(prompt="a mug", steps=500, count=4), timeout=200 * pace)
    refusal = refusal_of(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_CANNOT_BE_MET")
    assert "by the time of a denoising step as measured" in refusal.message
    assert single.metric("unet_passes_total") == passes
    assert single.metric("refused_requests_total", reason="DEADLINE_CANNOT_BE_MET") == 1
    assert single.metric("requests_total", outcome="DEADLINE_EXCEEDED") == 1


def test_pace_is_the_mean_of_like_passes() -> None:
    pace, size, other = Pace(), ("tiny", 16, 16), ("tiny", 32, 32)
    assert pace.least_seconds(size, steps=10, images=1, slots=4) == 0
    pace.report(size, 1, 60.0)  # the first pays for what is made once
    assert pace.least_seconds(size, steps=10, images=1, slots=4) == 0
    pace.report(size, 1, 1.0)
    pace.report(size, 1, 2.0)
    assert pace.pass_seconds(size, 1) == pytest.approx(1.2)
    # Three images at once take no less than one; six of them need two turns of four slots.
    assert pace.least_seconds(size, steps=10, images=3, slots=4) == pytest.approx(12)
    assert pace.least_seconds(size, steps=10, images=6, slots=4) == pytest.approx(24)
    assert pace.least_seconds(other, steps=10, images=1, slots=4) == 0


def test_one_tenant_cannot_fill_the_queue(single: RunningGenerator) -> None:
    calls = [begun(single.start("greedy", **LONG))]
    calls += [single.start("greedy", count=count, **LONG) for count in (4, 1)]
    for call in calls[1:]:
        next(call)
    refusal = refusal_of(single.start("greedy", prompt="a mug", steps=1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TENANT_QUEUE_FULL")
    assert refusal.message == (
        "5 images of this tenant wait for a slot and 1 more would exceed its share of the queue, 5."
    )
    assert refusal.retry_seconds is not None
    other = single.start("modest", prompt="a mug", steps=1)
    assert next(other).HasField("queued")
    for call in (*calls, other):
        call.cancel()
    wait_until(lambda: is_idle(single))


def test_an_unknown_priority_is_refused(generator: RunningGenerator) -> None:
    refusal = refusal_of(generator.start(prompt="a mug", priority=17))
    assert (refusal.code, refusal.violations.keys()) == (grpc.StatusCode.INVALID_ARGUMENT, {"priority"})


def test_pins_stay_while_others_come_and_go(
    model_folders: dict[str, Path], tmp_path: Path, base_model: BaseModel
) -> None:
    store = FolderStore(tmp_path / "store")
    for seed in range(5):
        publish(store, base_model, f"c{seed}", random_concept(base_model, seed))
    size_bytes = random_concept(base_model, 0).size_bytes
    settings = generator_settings(model_folders, tmp_path / "store", concept_cache_bytes=2 * size_bytes)
    with running(settings) as generator:

        def prefetch(name: str, **pin: bool) -> Any:
            request = PrefetchConceptRequest(**pin)
            request.reference.name = name
            return generator.stub.PrefetchConcept(request, timeout=TIMEOUT_SECONDS).concept

        def residents() -> dict[str, bool]:
            listed = generator.stub.ListResidentConcepts(ListResidentConceptsRequest()).concepts
            return {each.reference.name: each.pinned for each in listed}

        assert prefetch("c0", pin=True).pinned
        for name in ("c1", "c2", "c3"):
            assert not prefetch(name).pinned
        assert residents() == {"c3": False, "c0": True}
        assert generator.metric("concept_cache_pinned_bytes", level="host") == size_bytes
        with pytest.raises(grpc.RpcError) as caught:
            prefetch("c3", pin=True)
        refusal = Refusal(caught.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PINS")
        assert prefetch("c0").pinned  # nothing said, nothing changed
        assert not prefetch("c0", pin=False).pinned
        for name in ("c1", "c2", "c3", "c4", "c1", "c2", "c3", "c4"):
            prefetch(name)
        assert "c0" not in residents()
        assert generator.metric("concept_cache_pinned_bytes", level="host") == 0
