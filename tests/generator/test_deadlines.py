"""A request whose time is over ends as DEADLINE_EXCEEDED wherever it is by then, and one that is left as CANCELLED."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from detex_generator.engine import decoding
from detex_generator.engine.intake.admission import Admission
from detex_generator.engine.slot_batch import SlotBatch
from detex_protos.v1.generator_pb2 import GenerateManyRequest, GenerateRequest
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    refusal_of,
    running,
    wait_until,
)

STAGES: dict[str, tuple[Any, str]] = {
    "checking": (Admission, "check"),
    "encoding": (Admission, "encode"),
    "denoising": (SlotBatch, "advance"),
    "decoding": (decoding, "_decoded"),
    "writing the picture": (decoding, "write_png"),
}


@pytest.fixture(scope="module")
def generator(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGenerator]:
    with running(generator_settings(model_folders, tmp_path_factory.mktemp("store"))) as generator:
        yield generator


@pytest.mark.parametrize("how", ["a deadline", "a caller who leaves"])
@pytest.mark.parametrize("stage", STAGES)
def test_how_a_request_ended_is_told_apart(
    generator: RunningGenerator, monkeypatch: pytest.MonkeyPatch, stage: str, how: str
) -> None:
    reached, may_go_on = threading.Event(), threading.Event()
    owner, name = STAGES[stage]
    real: Callable[..., Any] = getattr(owner, name)

    def waits(*given: Any, **options: Any) -> Any:
        reached.set()
        assert may_go_on.wait(60)
        return real(*given, **options)

    def ended(outcome: str) -> float:
        return generator.metric("requests_total", outcome=outcome)

    monkeypatch.setattr(owner, name, waits)
    expected, other = ("DEADLINE_EXCEEDED", "CANCELLED") if how == "a deadline" else ("CANCELLED", "DEADLINE_EXCEEDED")
    before = {outcome: ended(outcome) for outcome in (expected, other, "OK")}
    call = generator.stub.Generate(
        GenerateRequest(prompt="a mug", steps=2), timeout=1.0 if how == "a deadline" else 60.0
    )
    try:
        assert reached.wait(60)
        if how == "a caller who leaves":
            call.cancel()
        assert refusal_of(call).code == getattr(grpc.StatusCode, expected)
        wait_until(lambda: ended(expected) == before[expected] + 1)
    finally:
        may_go_on.set()
    wait_until(lambda: generator.metric("slots_in_use") == 0 and generator.generator.engine.active_requests == 0)
    assert (ended(other), ended("OK")) == (before[other], before["OK"])


def test_requests_of_a_stream_are_overdue_with_it(generator: RunningGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    real = decoding._decoded
    monkeypatch.setattr(decoding, "_decoded", lambda *given: real(*given) if may_go_on.wait(60) else None)
    before = generator.metric("requests_total", outcome="DEADLINE_EXCEEDED")
    requests = [
        GenerateManyRequest(key=key, request=GenerateRequest(prompt="a mug", steps=2)) for key in ("one", "two")
    ]
    try:
        call = generator.stub.GenerateMany(iter(requests), timeout=1.5)
        assert refusal_of(call).code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: generator.metric("requests_total", outcome="DEADLINE_EXCEEDED") == before + 2)
    finally:
        may_go_on.set()
