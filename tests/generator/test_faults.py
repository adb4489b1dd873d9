"""What breaks beside a request, or because of one, costs that request at most, and is counted."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2
from pydantic import SecretStr

from detex_core.artifact import StoredManifest
from detex_core.object_store import FolderStore, open_object_store
from detex_core.settings import ObjectStoreSettings
from detex_diffusion.base_model import BaseModel
from detex_generator.engine import slot_batch
from detex_protos.v1.common_pb2 import ConceptReference
from detex_protos.v1.generator_pb2 import (
    GenerateRequest,
    GenerateResponse,
    ListResidentConceptsRequest,
    PrefetchConceptRequest,
)
from detex_protos.v1.generator_pb2_grpc import GeneratorServiceStub
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import (
    TIMEOUT_SECONDS,
    Refusal,
    RunningGenerator,
    generator_settings,
    images_of,
    refusal_of,
    running,
    wait_until,
)
from tests.generator.test_process import GeneratorProcess
from tests.generator.test_queue import LONG, begun, is_idle
from tests.servers.seaweedfs import SeaweedServer, start_seaweedfs

pytestmark = pytest.mark.slow

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def own(
    model_folders: dict[str, Path], store_folder: Path, concepts: dict[str, StoredManifest]
) -> Iterator[RunningGenerator]:
    """A generator that a test may hurt; afterwards nothing of what it did may be left in it."""
    with running(generator_settings(model_folders, store_folder)) as generator:
        yield generator
        wait_until(lambda: is_idle(generator) and generator.generator.engine.active_requests == 0)
        assert generator.health() == SERVING
        assert len(generator.draw(prompt="[my-mug]", steps=1)) == 1


class Raises:
    """Lets a module raise when it is called, so many times."""

    def __init__(self, module: Any, error: BaseException, times: int = 1_000) -> None:
        self.module, self.error, self.times = module, error, times

    def __enter__(self) -> None:
        self.handle = self.module.register_forward_pre_hook(self._raise)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _raise(self, module: object, inputs: object) -> None:
        if self.times > 0:
            self.times -= 1
            raise self.error


def text_encoder_of(generator: RunningGenerator) -> Any:
    """A module of the text encoder that each prompt goes through."""
    encoder = model_of(generator).text_encoder
    return getattr(encoder, "text_model", encoder).final_layer_norm


def model_of(generator: RunningGenerator) -> BaseModel:
    return generator.generator.base_models.get("tiny").model


def test_memory_that_runs_out_at_admission_is_freed_and_found(own: RunningGenerator) -> None:
    own.draw(prompt="[my-mug] on a beach", steps=1)
    assert own.metric("prompt_cache_bytes") > 0
    with Raises(text_encoder_of(own), torch.OutOfMemoryError("says the test"), times=1):
        assert len(own.draw(prompt="[my-bowl] on grass", steps=1)) == 1
    assert own.metric("out_of_memory_total", stage="encode") == 0
    assert own.metric("prompt_cache_evictions_total") > 0


def test_memory_that_stays_away_at_admission_costs_that_request_alone(own: RunningGenerator) -> None:
    healthy = begun(own.start(prompt="a mug", steps=60))
    with Raises(text_encoder_of(own), MemoryError("says the test")):
        refusal = refusal_of(own.start(prompt="[my-bowl] at night", steps=2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")
    assert refusal.retry_seconds == 1
    assert len(images_of(healthy)) == 1
    assert own.metric("out_of_memory_total", stage="encode") == 1
    assert own.metric("requests_total", outcome="RESOURCE_EXHAUSTED") == 1


def test_memory_that_runs_out_for_a_slot_costs_that_request_alone(
    own: RunningGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = slot_batch.initial_noise

    def initial_noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
        if seed == 666:
            raise torch.OutOfMemoryError("says the test")
        return noise(seed, shape)

    monkeypatch.setattr(slot_batch, "initial_noise", initial_noise)
    healthy = begun(own.start(prompt="a mug", steps=60))
    refusal = refusal_of(own.start(prompt="a mug", steps=2, seed=666))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")
    assert len(images_of(healthy)) == 1
    assert own.metric("failed_images_total", reason="OUT_OF_MEMORY") == 1
    assert own.metric("out_of_memory_total", stage="denoise") == 1


@pytest.mark.parametrize("error", [RuntimeError("a defect, says the test"), SystemExit("the end, says the test")])
@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_a_worker_thread_that_raises_costs_that_request_alone(
    own: RunningGenerator, part: str, error: BaseException
) -> None:
    healthy = begun(own.start(prompt="a mug", steps=60))
    # The VAE's decoder is a module of its own: `decode` does not call the VAE as a module.
    module = text_encoder_of(own) if part == "text_encoder" else model_of(own).vae.decoder
    with Raises(module, error):
        refusal = refusal_of(own.start(prompt="a lamp at night", steps=1))
    assert refusal.code == grpc.StatusCode.INTERNAL
    assert "says the test" not in refusal.message
    assert len(images_of(healthy)) == 1
    assert own.metric("requests_total", outcome="INTERNAL") == 1


def test_malformed_messages_cost_their_calls_alone(own: RunningGenerator) -> None:
    healthy = begun(own.start(prompt="a mug", steps=60))
    raw = own.channel.unary_stream(
        "/detex.v1.GeneratorService/Generate", request_serializer=None, response_deserializer=None
    )
    for garbage in (
        b"\xff" * 40,
        b"\x0a\xff\xff\xff\xff\x0f",
        GenerateRequest(prompt="x" * 200).SerializeToString()[:-9],
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(garbage, timeout=TIMEOUT_SECONDS))
        refusal = Refusal(caught.value)
        assert (refusal.code, refusal.violations.keys()) == (grpc.StatusCode.INVALID_ARGUMENT, {"request"})
    many = own.channel.stream_stream(
        "/detex.v1.GeneratorService/GenerateMany", request_serializer=None, response_deserializer=None
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(many(iter([b"\xff" * 40]), timeout=TIMEOUT_SECONDS))
    assert Refusal(caught.value).code == grpc.StatusCode.INVALID_ARGUMENT
    assert len(images_of(healthy)) == 1


def test_two_hundred_clients_at_once_are_all_served(model_folders: dict[str, Path], store_folder: Path) -> None:
    """Each has a connection of its own, and comes again when it is told to."""
    clients = 200

    async def draw(address: str, seed: int) -> tuple[int, int]:
        """Images and refusals of one client."""
        refusals = 0
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = GeneratorServiceStub(channel)
            while True:
                request = GenerateRequest(prompt="a mug", steps=8, seed=seed, guidance_scale=1)
                try:
                    responses = [each async for each in stub.Generate(request, timeout=TIMEOUT_SECONDS)]
                    return sum(each.HasField("image") for each in responses), refusals
                except grpc.aio.AioRpcError as error:
                    refusal = Refusal(error)
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
                    assert refusal.retry_seconds is not None
                    refusals += 1
                    await asyncio.sleep(refusal.retry_seconds)

    async def draw_all(address: str) -> list[tuple[int, int]]:
        return await asyncio.gather(*(draw(address, seed) for seed in range(clients)))

    settings = generator_settings(
        model_folders, store_folder, slots=4, max_waiting_images=16, max_images_per_request=16
    )
    with running(settings) as generator:
        outcomes = asyncio.run(draw_all(generator.generator.server.address))
        assert [images for images, _ in outcomes] == [1] * clients
        refusals = sum(count for _, count in outcomes)
        assert generator.metric("requests_total", outcome="OK") == clients
        assert generator.metric("refused_requests_total", reason="QUEUE_FULL") == refusals > 0
        wait_until(lambda: is_idle(generator) and generator.generator.engine.active_requests == 0)
        assert generator.health() == SERVING


def test_the_end_of_the_grace_is_told_and_not_silent(model_folders: dict[str, Path], store_folder: Path) -> None:
    settings = generator_settings(model_folders, store_folder, slots=1, drain_grace_seconds=0.5)
    with running(settings) as generator:
        calls = [begun(generator.start(**LONG)), generator.start(**LONG)]
        assert next(calls[1]).HasField("queued")
        generator.drain()
        for call in calls:
            refusal = refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            assert refusal.retry_seconds is not None
        assert generator.metric("requests_total", outcome="UNAVAILABLE") == 2


def test_a_killed_generator_comes_back_with_the_same_pictures(
    model_folders: dict[str, Path], store_folder: Path, concepts: dict[str, StoredManifest], tmp_path: Path
) -> None:
    environment = {
        "listen_address": "127.0.0.1:0",
        "metrics_address": "",
        "object_store_url": f"folder://{store_folder}",
        "base_models": f'[{{"name": "tiny", "source": "{model_folders["tiny"]}"}}]',
        "readiness_interval_seconds": "0.02",
        "log_format": "json",
    }
    request = GenerateRequest(prompt="[my-mug] on a beach", steps=3, seed=5)
    drawn = []
    for _ in range(2):
        with (
            GeneratorProcess(**environment) as process,
            grpc.insecure_channel(process.listening()["address"]) as channel,
        ):
            stub = GeneratorServiceStub(channel)
            wait_until(lambda stub=stub: bool(_images_or_none(stub, request)))
            drawn.append(_images_or_none(stub, request))
            cut_off = begun(stub.Generate(GenerateRequest(**LONG), timeout=TIMEOUT_SECONDS))
            process.process.send_signal(signal.SIGKILL)
            assert refusal_of(cut_off).code == grpc.StatusCode.UNAVAILABLE
    assert drawn[0] == drawn[1] != [None]


def _images_or_none(stub: Any, request: GenerateRequest) -> list[bytes] | None:
    try:
        responses: Iterator[GenerateResponse] = stub.Generate(request, timeout=TIMEOUT_SECONDS)
        return [image.png for image in images_of(responses)]
    except grpc.RpcError as error:
        if Refusal(error).code != grpc.StatusCode.UNAVAILABLE:
            raise
        return None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeaweedServer]:
    started = start_seaweedfs(tmp_path / "s3")
    yield started
    started.kill()


def test_a_store_that_is_away_costs_only_what_is_not_in_memory(
    server: SeaweedServer, model_folders: dict[str, Path], base_model: BaseModel
) -> None:
    object_store = ObjectStoreSettings(
        url=server.url("generator"),
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
        connect_timeout_seconds=0.2,
    )
    store = open_object_store(object_store)
    for seed, name in enumerate(("known", "unknown")):
        publish(store, base_model, name, random_concept(base_model, seed))
    settings = generator_settings(
        model_folders,
        Path("/unused"),
        object_store=object_store,
        newest_version_seconds=0,
        store_retry_seconds=0.05,
        store_retry_longest_seconds=0.2,
    )
    with running(settings) as generator:
        (before,) = generator.draw(prompt="[known] on a table", steps=2, seed=1)
        bystander = begun(generator.start(**LONG))
        server.kill()
        refusal = refusal_of(generator.start(prompt="[unknown]", steps=1))
        assert refusal.code == grpc.StatusCode.UNAVAILABLE
        assert refusal.retry_seconds is not None
        assert generator.metric("object_store_up") == 0
        # Neither the version nor the picture of what is in memory changes, and the service says so.
        (during,) = generator.draw(prompt="[known] on a table", steps=2, seed=1)
        assert during.provenance == before.provenance
        assert generator.health() == SERVING
        for _ in range(8):
            assert refusal_of(generator.start(prompt="[unknown]", steps=1)).code == grpc.StatusCode.UNAVAILABLE
        assert generator.metric("concept_cache_stale_resolutions_total") >= 1
        server.start()
        wait_until(lambda: _draws(generator, "[unknown]"))
        assert generator.metric("object_store_up") == 1
        assert next(event for event in bystander if event.HasField("progress")).progress.step < 500
        bystander.cancel()
        wait_until(lambda: is_idle(generator))


def test_a_store_that_is_not_mounted_deletes_no_concept(
    tmp_path: Path, model_folders: dict[str, Path], base_model: BaseModel
) -> None:
    folder = tmp_path / "store"
    store = FolderStore(folder)
    for seed, name in enumerate(("known", "unknown")):
        publish(store, base_model, name, random_concept(base_model, seed))
    settings = generator_settings(
        model_folders, folder, newest_version_seconds=0, store_retry_seconds=0.05, store_retry_longest_seconds=0.2
    )
    away = folder.with_name("away")

    def pinned() -> list[str]:
        residents = generator.stub.ListResidentConcepts(ListResidentConceptsRequest()).concepts
        return [each.reference.name for each in residents if each.pinned]

    with running(settings) as generator:
        generator.stub.PrefetchConcept(PrefetchConceptRequest(reference=ConceptReference(name="known"), pin=True))
        folder.rename(away)
        for emptied in (False, True):
            if emptied:  # a mount point
                folder.mkdir()
            assert len(generator.draw(prompt="[known] on a table", steps=1)) == 1
            assert pinned() == ["known"]
            for name in ("unknown", "never-there"):
                refusal = refusal_of(generator.start(prompt=f"[{name}]", steps=1))
                assert refusal.code == grpc.StatusCode.UNAVAILABLE
                assert refusal.retry_seconds is not None
            assert list(folder.glob("*")) == []
        folder.rmdir()
        away.rename(folder)
        wait_until(lambda: _draws(generator, "[unknown]"))
        assert refusal_of(generator.start(prompt="[never-there]", steps=1)).code == grpc.StatusCode.NOT_FOUND
        assert pinned() == ["known"]


def test_a_generator_that_starts_before_its_store_is_there_waits_for_it(
    tmp_path: Path, model_folders: dict[str, Path], base_model: BaseModel
) -> None:
    folder = tmp_path / "store"
    settings = generator_settings(model_folders, folder, store_retry_seconds=0.05, store_retry_longest_seconds=0.2)
    with running(settings) as generator:
        assert len(generator.draw(prompt="a mug", steps=1)) == 1  # without concepts
        assert refusal_of(generator.start(prompt="[known]", steps=1)).code == grpc.StatusCode.UNAVAILABLE
        assert not folder.exists()
        publish(FolderStore(folder), base_model, "known", random_concept(base_model, 1))
        wait_until(lambda: _draws(generator, "[known]"))


def _draws(generator: RunningGenerator, prompt: str) -> bool:
    try:
        return len(generator.draw(prompt=prompt, steps=1)) == 1
    except grpc.RpcError as error:
        if Refusal(error).code != grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def test_store_is_known_to_be_away_and_back_without_a_request(model_folders: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "objects"
    open_object_store(ObjectStoreSettings(url=f"folder://{store}"))
    with running(generator_settings(model_folders, store, readiness_interval_seconds=0.05)) as generator:
        wait_until(lambda: generator.metric("object_store_up") == 1)
        store.rename(tmp_path / "away")
        wait_until(lambda: generator.metric("object_store_up") == 0)
        (tmp_path / "away").rename(store)
        wait_until(lambda: generator.metric("object_store_up") == 1)
