"""What goes wrong with one image costs that image; what goes wrong with the engine is told to everybody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2

from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.solver import Solver, step_table
from detex_protos.v1 import generator_pb2
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    images_of,
    pixels,
    refusal_of,
    running,
    signal_to_noise_decibels,
    wait_until,
)


@pytest.fixture
def own(model_folders: dict[str, Path], store_folder: Path, concepts: object) -> Iterator[RunningGenerator]:
    """A generator that a test may break."""
    with running(generator_settings(model_folders, store_folder)) as generator:
        yield generator


def test_latents_that_are_not_numbers_fail_their_own_request_only(
    own: RunningGenerator, store: FolderStore, base_model: BaseModel
) -> None:
    publish(store, base_model, "extreme", random_concept(base_model, 7, delta_scale=1e37))
    expected = pixels(own.draw(prompt="a mug", steps=60, seed=1)[0].png)
    healthy = own.start(prompt="a mug", steps=60, seed=1)
    next(healthy)
    refusal = refusal_of(own.start(prompt="[extreme]", steps=60))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "NON_FINITE_LATENTS")
    assert "its latents are not finite after step 1 of 60" in refusal.message
    (image,) = images_of(healthy)
    assert signal_to_noise_decibels(pixels(image.png), expected) >= 50
    assert own.metric("failed_images_total", reason="NON_FINITE_LATENTS") == 1
    wait_until(lambda: own.metric("slots_in_use") == 0)


class FailsOnRowsWith:
    """Lets a UNet raise for batches that hold a timestep, as it would when it runs out of memory."""

    def __init__(self, unet: Any, timestep: float) -> None:
        self.unet, self.timestep = unet, timestep

    def __enter__(self) -> None:
        self.handle = self.unet.register_forward_pre_hook(self._look)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _look(self, module: object, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        if bool((inputs[1] == self.timestep).any()):
            raise RuntimeError("out of memory, says the test")


def unet_of(generator: RunningGenerator) -> Any:
    return generator.generator.base_models.get("tiny").model.unet


def test_an_image_that_cannot_be_computed_fails_its_own_request_only(own: RunningGenerator) -> None:
    schedule = own.generator.base_models.get("tiny").model.noise_schedule
    doomed = float(step_table(schedule, Solver.DDIM, 7).timesteps[3])
    others = step_table(schedule, Solver.EULER, 50).timesteps
    assert doomed not in others
    with FailsOnRowsWith(unet_of(own), doomed):
        healthy = own.start(prompt="a mug", steps=50, solver=generator_pb2.SOLVER_EULER)
        next(healthy)
        refusal = refusal_of(own.start(prompt="a vase", steps=7, solver=generator_pb2.SOLVER_DDIM))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "DRAWING_FAILED")
        assert refusal.message == "Image 0 could not be computed; the log of the generator tells why."
        assert len(images_of(healthy)) == 1
    assert own.health() == health_pb2.HealthCheckResponse.SERVING


def test_where_cores_share_a_pass_an_image_fails_alone_too(
    model_folders: dict[str, Path], store_folder: Path, concepts: object
) -> None:
    with running(generator_settings(model_folders, store_folder, denoising_threads=2)) as own:
        schedule = own.generator.base_models.get("tiny").model.noise_schedule
        doomed = float(step_table(schedule, Solver.DDIM, 7).timesteps[3])
        with FailsOnRowsWith(unet_of(own), doomed):
            # Five guided images are ten rows, which two cores share.
            healthy = own.start(prompt="a mug", count=5, steps=50, solver=generator_pb2.SOLVER_EULER)
            next(healthy)
            refusal = refusal_of(own.start(prompt="a vase", steps=7, solver=generator_pb2.SOLVER_DDIM))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "DRAWING_FAILED")
            assert len(images_of(healthy)) == 5
        assert own.health() == health_pb2.HealthCheckResponse.SERVING


def test_the_end_of_the_engine_is_told_to_all(
    model_folders: dict[str, Path], store_folder: Path, concepts: object
) -> None:
    settings = generator_settings(model_folders, store_folder, drain_delay_seconds=300)
    with running(settings) as own:
        bystander = own.start(prompt="a mug", steps=500)
        next(bystander)
        unet_of(own).register_forward_pre_hook(_end_thread)
        refusal = refusal_of(bystander)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_STOPPED")
        assert refusal.retry_seconds is not None
        wait_until(lambda: own.health() == health_pb2.HealthCheckResponse.NOT_SERVING)
        late = refusal_of(own.start(prompt="a mug"))
        assert (late.code, late.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_STOPPED")
        assert own.generator.failure is not None
        own.drain()


def _end_thread(module: object, inputs: object) -> None:
    raise SystemExit("the end of the thread, says the test")


def test_a_gpu_that_answers_no_more_ends_the_process(
    model_folders: dict[str, Path], store_folder: Path, concepts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every later request would fail, and the service would be called healthy."""
    with running(generator_settings(model_folders, store_folder, drain_delay_seconds=300)) as own:

        def broken(*arguments: object) -> object:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

        monkeypatch.setattr("detex_generator.compute.plain_steps.LaneSteps.__call__", broken)
        refusal = refusal_of(own.start(prompt="a vase", steps=7))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_STOPPED")
        wait_until(lambda: own.health() == health_pb2.HealthCheckResponse.NOT_SERVING)
        wait_until(lambda: own.generator.failure is not None)
    assert isinstance(own.generator.failure, torch.AcceleratorError)


def test_a_failed_check_is_no_stack_trace(own: RunningGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        own.generator.base_models.get("tiny").model.tokenizer, "model_max_length", "no number", raising=True
    )
    refusal = refusal_of(own.start(prompt="a mug"))
    assert refusal.code == grpc.StatusCode.INTERNAL
    assert "no number" not in refusal.message
    monkeypatch.undo()
    assert len(own.draw(prompt="a mug", steps=1)) == 1
