"""Joining, waiting, leaving: what requests do to each other in time."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateRequest
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    Refusal,
    RunningGenerator,
    generator_settings,
    images_of,
    pixels,
    refusal_of,
    running,
    signal_to_noise_decibels,
    wait_until,
)

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"prompt": "a mug", "steps": 500}


@pytest.fixture
def small(model_folders: dict[str, Path], store_folder: Path) -> Iterator[RunningGenerator]:
    """Two slots, six images may wait."""
    settings = generator_settings(
        model_folders,
        store_folder,
        slots=2,
        max_waiting_images=6,
        max_images_per_request=4,
        max_requests_in_flight_per_stream=4,
        drain_grace_seconds=30,
    )
    with running(settings) as generator:
        yield generator


def begun(call: Any) -> Any:
    """The call, once its first image has done a step."""
    for event in call:
        if event.HasField("progress"):
            return call
    raise AssertionError("the call ended before its first step")


def is_idle(generator: RunningGenerator) -> bool:
    return (generator.metric("slots_in_use"), generator.metric("waiting_images")) == (0, 0)


def test_a_request_joins_a_busy_engine(small: RunningGenerator) -> None:
    long = begun(small.start(**LONG))
    small.draw(prompt="a vase", steps=3, guidance_scale=1)
    # It did not wait for the long one ...
    assert small.metric("slots_in_use") == 1
    assert next(event.progress.step for event in long if event.HasField("progress")) < 500
    long.cancel()
    wait_until(lambda: is_idle(small))
    # ... and its three passes, of one row without guidance, were passes of the long one too, of two rows.
    assert small.metric("batch_rows_sum") == 2 * small.metric("unet_passes_total") + 3


def test_the_place_in_the_queue_is_told(small: RunningGenerator) -> None:
    calls = [begun(small.start(**LONG)), begun(small.start(**LONG))]
    positions = []
    for _ in range(3):
        calls.append(small.start(**LONG))
        positions.append(next(calls[-1]).queued.queue_position)
    assert positions == [1, 2, 3]
    for call in calls:
        call.cancel()
    wait_until(lambda: is_idle(small))
    assert next(small.start(prompt="a mug", steps=1)).queued.queue_position == 0


def test_a_full_queue_refuses_and_tells_when_to_return(small: RunningGenerator) -> None:
    running_calls = [begun(small.start(**LONG)), begun(small.start(**LONG))]
    waiting = [small.start(count=count, **LONG) for count in (4, 1)]
    for call in waiting:
        next(call)
    refusal = refusal_of(small.start(prompt="a mug", count=2, steps=2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert refusal.message == "5 images wait for a slot and 2 more would exceed the queue of 6."
    assert refusal.retry_seconds is not None
    assert 0.1 <= refusal.retry_seconds <= 60
    one_more = small.start(prompt="a mug", steps=2)
    next(one_more)
    for call in (*waiting, *running_calls):
        call.cancel()
    assert len(images_of(one_more)) == 1
    assert small.metric("requests_total", outcome="RESOURCE_EXHAUSTED") == 1


def test_a_caller_that_leaves_frees_its_slot(small: RunningGenerator) -> None:
    calls = [begun(small.start(**LONG)), begun(small.start(**LONG))]
    waiting = small.start(prompt="a vase", steps=2)
    next(waiting)
    calls[0].cancel()
    assert len(images_of(waiting)) == 1
    steps = next(event.progress.step for event in calls[1] if event.HasField("progress"))
    assert steps < 500
    calls[1].cancel()
    wait_until(lambda: is_idle(small))
    wait_until(lambda: small.metric("requests_total", outcome="CANCELLED") == 2)
    assert small.generator.engine.active_requests == 0


def test_a_deadline_frees_its_slot(small: RunningGenerator) -> None:
    call = small.stub.Generate(GenerateRequest(count=4, **LONG), timeout=0.3)
    assert refusal_of(call).code == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: is_idle(small) and small.generator.engine.active_requests == 0)


def test_a_slow_reader_holds_nobody_up(small: RunningGenerator) -> None:
    unread = small.start(prompt="a mug", steps=60, preview_interval_steps=1)
    wait_until(lambda: small.metric("images_total", base_model="tiny") == 1)
    assert len(small.draw(prompt="a vase", steps=2)) == 1
    events = list(unread)
    assert events[-1].HasField("image")


def test_tenants_take_turns(small: RunningGenerator) -> None:
    blockers = [begun(small.start("first", **LONG)), begun(small.start("first", **LONG))]
    order: list[str] = []
    lock = threading.Lock()

    def follow(name: str, call: Any) -> None:
        for event in call:
            if event.HasField("image"):
                with lock:
                    order.append(f"{name}{event.image.image_index}")

    threads = []
    for tenant, count in (("many", 4), ("few", 1)):
        call = small.start(tenant, prompt="a mug", count=count, steps=40)
        next(call)
        threads.append(threading.Thread(target=follow, args=(tenant, call)))
    wait_until(lambda: small.metric("stage_seconds_count", stage="check") == 4)
    for thread in threads:
        thread.start()
    blockers[0].cancel()
    for thread in threads:
        thread.join()
    blockers[1].cancel()
    # Two of the tenant that came first are encoded ahead of the slots, the third has its turn, then it is the other's.
    assert order.index("few0") < order.index("many3")


def test_draining_finishes_what_was_accepted(small: RunningGenerator) -> None:
    accepted = begun(small.start(count=4, prompt="a mug", steps=50))
    small.drain()
    wait_until(lambda: small.generator.server.draining.is_set())
    wait_until(lambda: _is_refused(small))
    assert len(images_of(accepted)) == 4


def _is_refused(generator: RunningGenerator) -> bool:
    call = generator.start(prompt="a vase", steps=1)
    try:
        images_of(call)
    except grpc.RpcError as error:
        return Refusal(error).code == grpc.StatusCode.UNAVAILABLE
    return False


def test_who_takes_a_freed_slot_gets_its_own_prompt(small: RunningGenerator) -> None:
    """One slot stays taken while image after image, each of another prompt, passes through the slot beside it."""
    prompts = [f"a {color} {thing}" for color in ("red", "blue", "green", "white") for thing in ("mug", "vase", "lamp")]
    expected = [pixels(small.draw(prompt=prompt, steps=1, seed=1)[0].png) for prompt in prompts]
    assert len({picture.tobytes() for picture in expected}) == len(prompts)
    long = begun(small.start(**LONG))
    requests = (
        GenerateManyRequest(key=str(i), request=GenerateRequest(prompt=prompt, steps=1, seed=1))
        for i, prompt in enumerate(prompts)
    )
    for answer in small.stub.GenerateMany(requests, timeout=TIMEOUT_SECONDS):
        if answer.response.HasField("image"):
            drawn = pixels(answer.response.image.png)
            assert signal_to_noise_decibels(drawn, expected[int(answer.key)]) >= 50
    assert small.metric("slots_in_use") == 1
    long.cancel()
