"""Many requests over one stream: each for itself."""

import queue
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateManyResponse, GenerateRequest
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    RunningGenerator,
    generator_settings,
    pixels,
    refusal_of,
    running,
    signal_to_noise_decibels,
    wait_until,
)

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]


def many(key: str, **fields: Any) -> GenerateManyRequest:
    return GenerateManyRequest(key=key, request=GenerateRequest(**fields))


def answers(
    generator: RunningGenerator, requests: Iterable[GenerateManyRequest]
) -> dict[str, list[GenerateManyResponse]]:
    """All answers by key, in their order."""
    found: dict[str, list[GenerateManyResponse]] = defaultdict(list)
    for answer in generator.stub.GenerateMany(iter(requests), timeout=TIMEOUT_SECONDS):
        found[answer.key].append(answer)
    return found


class Requests(Iterator[GenerateManyRequest]):
    """Requests that a test sends one by one."""

    def __init__(self) -> None:
        self._queue: queue.Queue[GenerateManyRequest | None] = queue.Queue()

    def send(self, request: GenerateManyRequest) -> None:
        self._queue.put(request)

    def end(self) -> None:
        self._queue.put(None)

    def __next__(self) -> GenerateManyRequest:
        request = self._queue.get()
        if request is None:
            raise StopIteration
        return request


def test_each_request_gets_its_own_answer(generator: RunningGenerator, concepts: object) -> None:
    found = answers(
        generator,
        [
            many("mug", prompt="[my-mug] on a beach", count=2, steps=3, seed=1),
            many("empty", prompt=""),
            many("unknown", prompt="[nothing]"),
            many("foreign", prompt="[foreign]"),
            many("vase", prompt="a vase", steps=2, seed=2),
        ],
    )
    assert set(found) == {"mug", "empty", "unknown", "foreign", "vase"}
    assert found["mug"][0].response.HasField("queued")
    assert found["mug"][-1].done.images == 2
    assert found["vase"][-1].done.images == 1
    errors = {key: found[key][-1].error for key in ("empty", "unknown", "foreign")}
    assert {key: (error.code, error.reason) for key, error in errors.items()} == {
        "empty": (INVALID_ARGUMENT, "INVALID_INPUT"),
        "unknown": (grpc.StatusCode.NOT_FOUND.value[0], "CONCEPT_NOT_FOUND"),
        "foreign": (grpc.StatusCode.FAILED_PRECONDITION.value[0], "BASE_MODEL_MISMATCH"),
    }
    assert [violation.field for violation in errors["empty"].violations] == ["prompt"]
    assert not errors["unknown"].HasField("retry_delay")
    (alone,) = generator.draw(prompt="a vase", steps=2, seed=2)
    (image,) = [a.response.image for a in found["vase"] if a.response.HasField("image")]
    assert signal_to_noise_decibels(pixels(alone.png), pixels(image.png)) >= 50


def test_keys_are_checked(generator: RunningGenerator) -> None:
    stream = Requests()
    call = generator.stub.GenerateMany(stream, timeout=TIMEOUT_SECONDS)
    stream.send(many("one", prompt="a mug", steps=1))
    first = until_end_of(call, "one")
    assert first.done.images == 1
    for key, code, reason, message in (
        ("one", grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_KEY",
         "key: must be unique within the stream, got 'one' again."),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", "key: must be 1 to 128 characters, got 0."),
        ("k" * 129, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT",
         "key: must be 1 to 128 characters, got 129."),
    ):  # fmt: skip
        stream.send(many(key, prompt="a mug", steps=1))
        error = until_end_of(call, key).error
        assert (error.code, error.reason, error.message) == (code.value[0], reason, message)
    stream.send(many("k" * 128, prompt="a mug", steps=1))
    assert until_end_of(call, "k" * 128).done.images == 1
    stream.end()
    assert not list(call)


def test_a_duplicate_costs_the_request_that_has_the_key_nothing(generator: RunningGenerator) -> None:
    stream = Requests()
    call = generator.stub.GenerateMany(stream, timeout=TIMEOUT_SECONDS)
    stream.send(many("one", prompt="a mug", steps=8, count=2))
    stream.send(many("one", prompt="a bowl", steps=1))
    stream.end()
    answers = list(call)
    assert {answer.key for answer in answers} == {"one"}
    ends = [place for place, answer in enumerate(answers) if not answer.HasField("response")]
    assert ends == [len(answers) - 2, len(answers) - 1]
    assert answers[-2].done.images == 2
    assert answers[-1].error.reason == "DUPLICATE_KEY"


def until_end_of(call: Iterator[GenerateManyResponse], key: str) -> GenerateManyResponse:
    for answer in call:
        assert answer.key == key
        if not answer.HasField("response"):
            return answer
    raise AssertionError("the stream ended first")


@pytest.fixture
def narrow(model_folders: dict[str, Path], store_folder: Path) -> Iterator[RunningGenerator]:
    """At most three requests of a stream in flight."""
    settings = generator_settings(
        model_folders,
        store_folder,
        slots=2,
        max_waiting_images=8,
        max_images_per_request=4,
        max_requests_in_flight_per_stream=3,
        max_requests_per_stream=30,
    )
    with running(settings) as generator:
        yield generator


def test_a_stream_is_read_only_as_fast_as_it_is_served(narrow: RunningGenerator) -> None:
    most = 0

    def requests() -> Iterator[GenerateManyRequest]:
        for number in range(30):
            yield many(str(number), prompt="a mug", steps=2, seed=number)

    found: dict[str, GenerateManyResponse] = {}
    for answer in narrow.stub.GenerateMany(requests(), timeout=TIMEOUT_SECONDS):
        most = max(most, narrow.generator.engine.active_requests)
        found[answer.key] = answer
    # A queue of 8 images would refuse some of 30 requests that came at once.
    assert {key: answer.done.images for key, answer in found.items()} == {str(number): 1 for number in range(30)}
    assert 1 <= most <= 3


def test_a_stream_has_a_longest_length(narrow: RunningGenerator) -> None:
    found = answers(narrow, [many(str(number), prompt="a mug", steps=1) for number in range(31)])
    error = found["30"][-1].error
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "STREAM_TOO_LONG")
    assert sum(answers[-1].done.images for answers in found.values()) == 30


def test_a_caller_that_leaves_cancels_all_its_requests(narrow: RunningGenerator) -> None:
    stream = Requests()
    call = narrow.stub.GenerateMany(stream, timeout=TIMEOUT_SECONDS)
    for number in range(3):
        stream.send(many(str(number), prompt="a mug", steps=500))
    wait_until(lambda: narrow.metric("slots_in_use") == 2)
    call.cancel()
    stream.end()
    wait_until(lambda: narrow.metric("slots_in_use") == 0 and narrow.metric("waiting_images") == 0)
    assert narrow.metric("requests_total", outcome="CANCELLED") == 3


def test_a_draining_server_finishes_what_a_stream_began(narrow: RunningGenerator) -> None:
    stream = Requests()
    call = narrow.stub.GenerateMany(stream, timeout=TIMEOUT_SECONDS)
    stream.send(many("begun", prompt="a mug", steps=100))
    assert next(call).response.HasField("queued")
    narrow.drain()
    wait_until(lambda: narrow.generator.server.draining.is_set())
    stream.send(many("late", prompt="a mug", steps=1))
    ends: dict[str, GenerateManyResponse] = {}

    def read() -> Iterator[GenerateManyResponse]:
        for answer in call:
            if not answer.HasField("response"):
                ends[answer.key] = answer
            yield answer

    refusal = refusal_of(read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert ends["begun"].done.images == 1
    assert ends["late"].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert ends["late"].error.HasField("retry_delay")
    stream.end()
