"""Pictures that come with requests share the memory for decoding, and never hold the event loop up."""

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from detex_generator.engine.intake import photo_editing, placement
from detex_generator.engine.intake.picture_memory import PictureMemory
from detex_protos.v1.generator_pb2 import Edit, EditKind, GenerateManyRequest, GenerateRequest, Region
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    images_of,
    refusal_of,
    running,
    wait_until,
)
from tests.generator.test_photo_edits import box_mask, photo, png

pytestmark = pytest.mark.slow

EDIT = Edit(image=png(photo()), kind=EditKind.EDIT_KIND_IMAGE_TO_IMAGE, strength=0.5)


@pytest.fixture(scope="module")
def small(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGenerator]:
    """Room for one picture at a time, and hardly any wait."""
    settings = generator_settings(
        model_folders, tmp_path_factory.mktemp("store"), picture_memory_bytes=1, picture_wait_seconds=60
    )
    with running(settings) as generator:
        yield generator


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the most pictures that are decoded at a time."""
    lock, inside, most = threading.Lock(), [0], [0]
    for module, name in ((photo_editing, "decode_photo"), (placement, "decode_mask")):
        real: Callable[..., Any] = getattr(module, name)

        def decode(*given: Any, real: Callable[..., Any] = real, **options: Any) -> Any:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            try:
                return real(*given, **options)
            finally:
                with lock:
                    inside[0] -= 1

        monkeypatch.setattr(module, name, decode)
    return lambda: most[0]


def test_pictures_are_decoded_as_memory_allows(small: RunningGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    most = counted(monkeypatch)

    def draw(number: int) -> int:
        if number % 2:
            region = Region(prompt="a mug", mask=png(box_mask()))
            return len(small.draw(prompt="a mug", steps=1, regions=[region]))
        return len(small.draw(prompt="a mug", steps=2, edit=EDIT))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(8))) == [1] * 8
    assert most() == 1


def test_who_finds_no_memory_is_told_when_to_return(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, may_go_on = threading.Event(), threading.Event()
    real = photo_editing.decode_photo

    def waits(*given: Any, **options: Any) -> Image.Image:
        inside.set()
        assert may_go_on.wait(60)
        return real(*given, **options)

    monkeypatch.setattr(photo_editing, "decode_photo", waits)
    settings = generator_settings(model_folders, tmp_path, picture_memory_bytes=1, picture_wait_seconds=0.05)
    with running(settings) as generator:
        try:
            first = generator.start(prompt="a mug", steps=2, edit=EDIT)
            assert inside.wait(60)
            refusal = refusal_of(generator.start(tenant="other", prompt="a mug", steps=2, edit=EDIT))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PICTURE_MEMORY")
            assert refusal.retry_seconds
            assert len(generator.draw(prompt="a mug", steps=1)) == 1  # who sends no picture needs none
        finally:
            may_go_on.set()
        assert len(images_of(first)) == 1


def test_memory_comes_back_from_calls_that_are_left(small: RunningGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []
    real = PictureMemory.decoding

    def decoding(self: PictureMemory, files: dict[str, bytes]) -> Any:
        budgets.append(self.budget)
        return real(self, files)

    monkeypatch.setattr(PictureMemory, "decoding", decoding)
    for _ in range(5):
        call = small.start(prompt="a mug", steps=50, edit=EDIT)
        next(call)
        call.cancel()
    assert len(small.draw(prompt="a mug", steps=2, edit=EDIT)) == 1
    wait_until(lambda: budgets[0].held_bytes == 0)


def test_a_few_bytes_that_declare_a_large_picture_cost_nothing(small: RunningGenerator) -> None:
    sides = struct.pack("<I", 16_382 | (3_050 << 14))
    chunk = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + sides + b"\0"
    tiny = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    refusal = refusal_of(small.start(prompt="a mug", edit=Edit(image=tiny, kind=EditKind.EDIT_KIND_IMAGE_TO_IMAGE)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "edit.image" in refusal.violations


def test_a_million_versions_are_refused_before_they_are_parsed(small: RunningGenerator) -> None:
    entry = GenerateRequest(concept_versions={"mug": "1" * 16}).SerializeToString()
    call = small.channel.unary_stream("/detex.v1.GeneratorService/Generate")
    refusal = refusal_of(call(entry * 500_000, timeout=60))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_FIELDS")


def test_large_requests_of_a_stream_wait_for_memory(model_folders: dict[str, Path], tmp_path: Path) -> None:
    padding = "x" * 1_200_000
    settings = generator_settings(model_folders, tmp_path, message_memory_bytes=1)
    with running(settings) as generator:
        requests = [
            GenerateManyRequest(
                key=str(number),
                request=GenerateRequest(
                    prompt="a mug", steps=2, edit=Edit(image=EDIT.image + padding.encode(), kind=EDIT.kind)
                ),
            )
            for number in range(4)
        ]
        ends = [
            each for each in generator.stub.GenerateMany(iter(requests), timeout=60) if not each.HasField("response")
        ]
        assert sorted(each.key for each in ends) == ["0", "1", "2", "3"]
        assert all(each.HasField("done") for each in ends), ends


@pytest.mark.parametrize("in_flight", [1, 2, 8])
@pytest.mark.parametrize("memory_bytes", [1, 8_000_000])
def test_streams_of_large_requests_never_wait_for_each_other(
    model_folders: dict[str, Path], tmp_path: Path, in_flight: int, memory_bytes: int
) -> None:
    large = EDIT.image + b"x" * 1_200_000
    settings = generator_settings(
        model_folders,
        tmp_path,
        message_memory_bytes=memory_bytes,
        max_requests_in_flight_per_stream=in_flight,
    )

    def draw_all(number: int) -> list[str]:
        requests = [
            GenerateManyRequest(
                key=str(each),
                request=GenerateRequest(prompt="a mug", steps=2, edit=Edit(image=large, kind=EDIT.kind)),
            )
            for each in range(4)
        ]
        tenant = (("detex-tenant", f"tenant-{number % 3}"),)
        answers = generator.stub.GenerateMany(iter(requests), timeout=90, metadata=tenant)
        ends = [each for each in answers if not each.HasField("response")]
        assert all(each.HasField("done") for each in ends), ends
        return sorted(each.key for each in ends)

    with running(settings) as generator, ThreadPoolExecutor(6) as callers:
        assert list(callers.map(draw_all, range(6))) == [["0", "1", "2", "3"]] * 6
        wait_until(lambda: generator.generator.server._calls._messages.held_bytes == 0)


def test_who_sends_no_picture_waits_for_nobody_who_does(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, may_go_on = threading.Event(), threading.Event()
    real = photo_editing.decode_photo

    def waits(*given: Any, **options: Any) -> Image.Image:
        inside.set()
        assert may_go_on.wait(120)
        return real(*given, **options)

    monkeypatch.setattr(photo_editing, "decode_photo", waits)
    settings = generator_settings(model_folders, tmp_path, picture_memory_bytes=1, picture_wait_seconds=600)
    with running(settings) as generator:
        count = 2 * settings.loading_threads
        calls = [generator.start("greedy", prompt="a mug", steps=2, edit=EDIT) for _ in range(count)]
        for call in calls:
            assert next(call).HasField("queued")
        assert inside.wait(60)
        try:
            assert len(generator.draw("modest", prompt="a mug", steps=1)) == 1
        finally:
            may_go_on.set()
        assert [len(images_of(call)) for call in calls] == [1] * count
