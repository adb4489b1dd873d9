import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from detex_client import (
    DenoisingProgress,
    DetexClientError,
    GeneratedPicture,
    GenerationEvent,
    GeneratorClient,
    PicturePreview,
    PictureRequest,
    Queued,
    RequestDone,
    RequestFailed,
    Solver,
)
from tests.client.conftest import Scripted
from tests.client.scripted_services import ScriptedGenerator, serve_generator


def test_generate_gives_all_pictures_and_tells_all_news(
    scripted: Scripted, generator_client: GeneratorClient, tmp_path: Path
) -> None:
    told: list[GenerationEvent] = []
    pictures = generator_client.generate(
        "[my-mug] on a beach",
        on_progress=told.append,
        count=2,
        seed=5,
        steps=3,
        guidance_scale=4.5,
        guidance_interval=(0.25, 0.75),
        solver=Solver.EULER,
        negative_prompt="blurred",
        preview_interval_steps=2,
        concept_versions={"my-mug": "v1"},
    )
    assert [(picture.image_index, picture.seed) for picture in pictures] == [(0, 5), (1, 6)]
    assert pictures[0].provenance.prompt == "[my-mug] on a beach"
    assert pictures[0].image().size == (8, 8)
    assert pictures[0].save(tmp_path / "a.png").read_bytes() == pictures[0].png
    kinds = [type(event) for event in told]
    assert kinds == [Queued, *([DenoisingProgress] * 3 + [PicturePreview, GeneratedPicture]) * 2]
    request = scripted.generator.requests[0]
    assert (request.solver, request.guidance_scale, request.negative_prompt) == (2, 4.5, "blurred")
    assert (request.guidance_interval.start, request.guidance_interval.end) == (0.25, 0.75)
    assert dict(request.concept_versions) == {"my-mug": "v1"}


def test_what_is_not_given_is_left_to_the_generator(scripted: Scripted, generator_client: GeneratorClient) -> None:
    generator_client.generate("a mug")
    request = scripted.generator.requests[0]
    assert [request.HasField(name) for name in ("seed", "steps", "guidance_scale", "guidance_interval")] == [False] * 4
    assert (request.solver, request.width, request.height) == (0, 0, 0)


def test_zero_is_sent_and_not_taken_for_nothing(scripted: Scripted, generator_client: GeneratorClient) -> None:
    generator_client.generate("a mug", seed=0, guidance_scale=0.0)
    request = scripted.generator.requests[0]
    assert request.HasField("seed")
    assert request.HasField("guidance_scale")


def test_refusals_come_with_field_or_delay(generator_client: GeneratorClient) -> None:
    with pytest.raises(DetexClientError) as raised:
        generator_client.generate("a mug", guidance_scale=float("nan"))
    assert raised.value.violations[0].field == "guidance_scale"
    with pytest.raises(DetexClientError) as raised:
        generator_client.generate("busy")
    assert (raised.value.reason, raised.value.retry_delay_seconds) == ("OVERLOADED", 2.5)


def test_what_cannot_be_sent_is_refused_here(scripted: Scripted, generator_client: GeneratorClient) -> None:
    with pytest.raises(DetexClientError, match="count: must be a non-negative number, got -1"):
        generator_client.generate("a mug", count=-1)
    assert scripted.generator.requests == []


def test_leaving_early_ends_the_work(scripted: Scripted, generator_client: GeneratorClient) -> None:
    scripted.generator.hold = True
    for event in generator_client.generate_events(PictureRequest("a mug")):
        assert isinstance(event, Queued)
        break
    assert scripted.generator.abandoned.wait(5)


def test_deadline_ends_the_work(scripted: Scripted, generator_client: GeneratorClient) -> None:
    scripted.generator.hold = True
    with pytest.raises(DetexClientError) as raised:
        generator_client.generate("a mug", timeout_seconds=0.3)
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert scripted.generator.abandoned.wait(5)


def test_one_failure_among_many_leaves_the_others(generator_client: GeneratorClient) -> None:
    requests = [PictureRequest("a", count=1), PictureRequest("[unknown]"), PictureRequest("c", count=2)]
    events = list(generator_client.generate_many(requests))
    drawn = [news.request_index for news in events if isinstance(news.event, GeneratedPicture)]
    assert drawn == [0, 2, 2]
    failed = {news.request_index: news.event for news in events if isinstance(news.event, RequestFailed)}
    assert list(failed) == [1]
    assert failed[1].error.code is grpc.StatusCode.NOT_FOUND
    done = {news.request_index: news.event.images for news in events if isinstance(news.event, RequestDone)}
    assert done == {0: 1, 2: 2}


def test_failure_of_the_requests_themselves_is_raised(generator_client: GeneratorClient) -> None:
    def requests() -> Iterator[PictureRequest]:
        yield PictureRequest("a")
        raise OSError("the list of prompts is gone")

    with pytest.raises(OSError, match="the list of prompts is gone"):
        list(generator_client.generate_many(requests()))


def test_requests_are_taken_as_they_come(generator_client: GeneratorClient) -> None:
    """A later request may depend on an earlier answer."""
    answered: list[int] = []
    first_done = threading.Event()

    def requests() -> Iterator[PictureRequest]:
        yield PictureRequest("first")
        assert first_done.wait(10)
        yield PictureRequest("second")

    for news in generator_client.generate_many(requests()):
        if isinstance(news.event, RequestDone):
            answered.append(news.request_index)
            first_done.set()
    assert answered == [0, 1]


def test_calls_go_in_turn_to_all_addresses_of_a_name() -> None:
    first, second = ScriptedGenerator(), ScriptedGenerator()
    with (
        serve_generator(first) as one,
        serve_generator(second) as other,
        GeneratorClient(f"ipv4:{one.address},{other.address}", timeout_seconds=30) as client,
    ):
        calls = 0
        while not (first.requests and second.requests):  # an address joins when its connection stands
            client.generate("a mug")
            calls += 1
            assert calls < 1000
        before = len(first.requests), len(second.requests)
        for _ in range(6):
            client.generate("a mug")
    assert (len(first.requests) - before[0], len(second.requests) - before[1]) == (3, 3)
