"""Shares of time, slots and places: what one tenant asks for costs others a bounded part of what they have alone."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_generator.engine.scheduling.pass_turns import CLASS_WEIGHTS, PassTurns
from detex_generator.engine.scheduling.small_first import SmallFirst
from detex_generator.request.generation_request import Priority
from detex_protos.v1 import generator_pb2
from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateRequest
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    images_of,
    refusal_of,
    running,
    wait_until,
)
from tests.generator.test_queue import LONG, begun, is_idle

pytestmark = pytest.mark.slow

BIG: dict[str, Any] = {**LONG, "width": 64, "height": 64}
Members = dict[str, list[tuple[str, Priority]]]


def simulated(members: Members, seconds: dict[str, float], until: float) -> dict[str, float]:
    """Time that each batch gets of so much, where a pass of each takes so long."""
    turns: PassTurns[str] = PassTurns()
    spent = dict.fromkeys(members, 0.0)
    while sum(spent.values()) < until:
        batch = turns.choose(members)
        spent[batch] += seconds[batch]
        turns.spent(batch, seconds[batch], members)
    return spent


@given(
    st.lists(st.tuples(st.sampled_from(list(Priority)), st.floats(0.05, 2.0)), min_size=1, max_size=6),
    st.floats(50.0, 100.0),
)
def test_time_goes_to_batches_by_their_weight_whatever_a_pass_takes(
    batches: list[tuple[Priority, float]], until: float
) -> None:
    members = {str(index): [(f"tenant {index}", priority)] for index, (priority, _) in enumerate(batches)}
    seconds = {str(index): each for index, (_, each) in enumerate(batches)}
    spent = simulated(members, seconds, until)
    total = sum(CLASS_WEIGHTS[priority] for priority, _ in batches)
    for index, (priority, each) in enumerate(batches):
        fair = sum(spent.values()) * CLASS_WEIGHTS[priority] / total
        # Start-time fair queueing is never further off than by one pass of this and one of each other.
        assert abs(spent[str(index)] - fair) <= each + sum(seconds.values()) + 1e-6


def test_more_sizes_give_a_tenant_no_more_time() -> None:
    members: Members = {f"size {index}": [("many", Priority.NORMAL)] for index in range(5)}
    members["other"] = [("one", Priority.NORMAL)]
    spent = simulated(members, dict.fromkeys(members, 0.1), 100.0)
    assert spent["other"] == pytest.approx(50.0, abs=1.0)


def test_a_small_batch_beside_a_large_one_takes_twice_its_time_and_one_large_pass() -> None:
    members: Members = {"small": [("a", Priority.NORMAL)], "large": [("b", Priority.NORMAL)]}
    seconds = {"small": 0.06, "large": 2.8}
    for begun_large in (0, 1, 7):
        turns: PassTurns[str] = PassTurns()
        for _ in range(begun_large):
            assert turns.choose(["large"]) == "large"
            turns.spent("large", seconds["large"], {"large": members["large"]})
        elapsed, steps = 0.0, 0
        while steps < 25:
            batch = turns.choose(members)
            elapsed += seconds[batch]
            turns.spent(batch, seconds[batch], members)
            steps += batch == "small"
        assert elapsed <= 2 * 25 * seconds["small"] + seconds["large"]


def test_small_work_overtakes_large_and_large_work_is_done() -> None:
    order: list[str] = []
    gate, done = threading.Event(), threading.Event()
    threads = SmallFirst(1, "test", lambda: None, ())
    threads.submit(0.0, lambda: gate.wait(60) and None)
    for name, patience in (("large", 50.0), ("small", 0.5), ("other large", 50.0), ("tiny", 0.0)):
        threads.submit(patience, lambda name=name: order.append(name))  # type: ignore[misc]
    threads.submit(0.0, lambda: 1 / 0)  # costs nobody else anything
    threads.submit(100.0, done.set)
    gate.set()
    assert done.wait(60)
    threads.close()
    assert order == ["tiny", "small", "large", "other large"]
    with pytest.raises(RuntimeError):
        threads.submit(0.0, done.set)


@pytest.fixture(scope="module")
def shared(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGenerator]:
    settings = generator_settings(model_folders, tmp_path_factory.mktemp("store"), slots=4, max_waiting_images=64)
    with running(settings) as generator:
        yield generator


def endless(generator: RunningGenerator, **fields: Any) -> Any:
    """A call of the greedy tenant that has no deadline, so that none is found to be hopeless."""
    request = GenerateRequest(**BIG, priority=generator_pb2.PRIORITY_LOW, **fields)
    return generator.stub.Generate(request, metadata=[("detex-tenant", "greedy")])


@pytest.fixture
def busy(shared: RunningGenerator) -> Iterator[RunningGenerator]:
    """All slots and more are taken by large images of one tenant."""
    calls = [endless(shared, count=4) for _ in range(2)]
    for call in calls:
        assert next(call).HasField("queued")
    wait_until(lambda: shared.metric("slots_in_use") == 4)
    yield shared
    for call in calls:
        call.cancel()
    wait_until(lambda: is_idle(shared))


@pytest.mark.parametrize("priority", [generator_pb2.PRIORITY_LOW, generator_pb2.PRIORITY_HIGH])
def test_a_newcomer_waits_for_a_step_and_not_for_an_image(busy: RunningGenerator, priority: int) -> None:
    (image,) = busy.draw("modest", prompt="a vase", steps=8, priority=priority)
    assert image.png
    assert busy.metric("slots_in_use") == 4  # none of the others is done


def test_the_tenant_itself_waits_for_its_own_images(busy: RunningGenerator) -> None:
    waiting = busy.start("greedy", prompt="a vase", steps=1, priority=generator_pb2.PRIORITY_LOW)
    assert next(waiting).HasField("queued")
    assert len(busy.draw("modest", prompt="a vase", steps=2)) == 1
    assert busy.metric("slots_in_use") == 4
    # The highest class of the same tenant goes on at once all the same.
    high = busy.draw("greedy", prompt="a vase", steps=2, priority=generator_pb2.PRIORITY_HIGH)
    assert len(high) == 1
    waiting.cancel()


def test_one_tenant_leaves_places_of_the_queue_to_others(busy: RunningGenerator) -> None:
    calls, refused = [], Counter[str]()
    for _ in range(70):
        call = endless(busy)
        try:
            assert next(call).HasField("queued")
            calls.append(call)
        except grpc.RpcError:
            refused[refusal_of(call).reason] += 1
    assert set(refused) == {"TENANT_QUEUE_FULL"}
    assert len(calls) < 48
    for priority in (generator_pb2.PRIORITY_HIGH, generator_pb2.PRIORITY_NORMAL, generator_pb2.PRIORITY_LOW):
        for tenant in ("one", "two"):
            (image,) = busy.draw(tenant, prompt="a mug", steps=1, priority=priority)
            assert image.png
    for call in calls:
        call.cancel()


def test_a_stream_is_held_up_and_not_refused(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = generator_settings(
        model_folders,
        tmp_path_factory.mktemp("store"),
        slots=2,
        max_waiting_images=8,
        max_images_per_request=8,
        max_requests_in_flight_per_stream=16,
    )
    with running(settings) as generator:
        request = GenerateRequest(prompt="a mug", steps=1, count=8)
        stream = generator.stub.GenerateMany(
            (GenerateManyRequest(key=str(number), request=request) for number in range(12)), timeout=120
        )
        ends = [each for each in stream if not each.HasField("response")]
        assert sorted(int(each.key) for each in ends) == list(range(12))
        assert all(each.done.images == 8 for each in ends), ends
        assert len(images_of(generator.start(prompt="a mug", steps=1))) == 1


def test_bulk_of_the_highest_class_counts_as_normal(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = generator_settings(model_folders, tmp_path_factory.mktemp("store"), slots=1, max_waiting_images=64)
    with running(settings) as generator:
        all_slots = GenerateRequest(**LONG, count=2, priority=generator_pb2.PRIORITY_HIGH)
        blocker = begun(generator.stub.Generate(all_slots, metadata=[("detex-tenant", "third")]))
        wait_until(lambda: generator.metric("slots_in_use") == 2)
        bulk = [
            generator.start("greedy", prompt="a mug", steps=1, priority=generator_pb2.PRIORITY_HIGH) for _ in range(12)
        ]
        for call in bulk:
            assert next(call).HasField("queued")
        blocker.cancel()
        for call in bulk:
            assert len(images_of(call)) == 1
        # Twice as many as there are slots are of the highest class at a time.
        assert generator.metric("queue_wait_seconds_count", priority="high") == 2 + 2
        assert generator.metric("queue_wait_seconds_count", priority="normal") == 10
