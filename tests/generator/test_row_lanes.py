"""Lanes compute what one thread computes, and tell what goes wrong in any of them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues, key_values
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.row_lanes import LEAST_ACTIVATIONS, LEAST_ROWS, RowLanes, use_cores
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    pixels,
    running,
    signal_to_noise_decibels,
)


@pytest.fixture(scope="module")
def lanes() -> Iterator[RowLanes]:
    before = torch.get_num_threads()
    made = RowLanes(3)
    yield made
    made.close()
    use_cores(before)


@pytest.fixture(scope="module")
def unet(base_model: BaseModel) -> KeyValueUNet:
    return KeyValueUNet(base_model.unet)


def _prompts(base_model: BaseModel, rows: int) -> list[PromptKeyValues]:
    generator = torch.Generator().manual_seed(rows)
    hidden = (torch.randn(3 + row % 4, base_model.embedding_width, generator=generator) for row in range(rows))
    with torch.inference_mode():
        return [key_values(base_model.unet, tokens, torch.full((len(tokens),), -1), []) for tokens in hidden]


def _inputs(base_model: BaseModel, rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, *base_model.latent_shape(), generator=generator), torch.linspace(1.0, 999.0, rows)


@pytest.mark.parametrize("rows", [1, 2 * LEAST_ROWS - 1, 2 * LEAST_ROWS, 3 * LEAST_ROWS + 2])
def test_rows_are_predicted_as_by_one_thread(
    base_model: BaseModel, unet: KeyValueUNet, lanes: RowLanes, rows: int
) -> None:
    prompts = _prompts(base_model, rows)
    latents, timesteps = _inputs(base_model, rows)
    with torch.inference_mode():
        texts = lanes.stack(prompts)
        predicted = lanes.predict(unet, latents, timesteps, texts)
        expected = unet(latents, timesteps, KeyValueBatch.stack(prompts))
    assert len(texts) == max(1, min(3, rows // LEAST_ROWS))
    assert sum(text.rows for text in texts) == rows
    assert max(text.rows for text in texts) - min(text.rows for text in texts) <= 1
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_of_a_lane_is_told_when_all_have_ended(
    base_model: BaseModel, unet: KeyValueUNet, lanes: RowLanes, failing: int
) -> None:
    rows = 3 * LEAST_ROWS
    latents, timesteps = _inputs(base_model, rows)
    running = set()
    lock = threading.Lock()

    class Failing(KeyValueUNet):
        def __call__(self, latents: Tensor, timesteps: Tensor, key_values: object) -> Tensor:
            with lock:
                running.add(threading.get_ident())
            try:
                if float(timesteps[0]) == first_timesteps[failing]:
                    raise MemoryError
                return super().__call__(latents, timesteps, key_values)  # type: ignore[arg-type]
            finally:
                with lock:
                    running.discard(threading.get_ident())

    first_timesteps = [float(part[0]) for part in torch.split(timesteps, LEAST_ROWS)]
    with torch.inference_mode():
        texts = lanes.stack(_prompts(base_model, rows))
        with pytest.raises(MemoryError):
            lanes.predict(Failing(unet.unet), latents, timesteps, texts)
        assert not running
        again = lanes.predict(unet, latents, timesteps, texts)
    assert bool(torch.isfinite(again).all())


@pytest.mark.parametrize(("share", "cores"), [(64, 1), (4096, 3)])
def test_cores_share_operations_that_are_worth_it(
    base_model: BaseModel, unet: KeyValueUNet, lanes: RowLanes, share: int, cores: int
) -> None:
    used: list[int] = []

    class Looking(KeyValueUNet):
        def __call__(self, latents: Tensor, timesteps: Tensor, key_values: object) -> Tensor:
            used.append(torch.get_num_threads())
            return latents

    width = int(unet.unet.config.block_out_channels[0])
    latents = torch.zeros(1, 4, 3 * LEAST_ACTIVATIONS * share // (4096 * width), 1)
    lanes.predict(Looking(unet.unet), latents, torch.zeros(1), lanes.stack(_prompts(base_model, 1)))
    assert used == [cores]


def test_lanes_draw_what_one_core_draws(
    generator: RunningGenerator, model_folders: dict[str, Path], store_folder: Path, concepts: object
) -> None:
    asked = {"prompt": "[my-mug] on a beach", "count": 5, "seed": 3, "steps": 4}
    expected = generator.draw(**asked)
    with running(generator_settings(model_folders, store_folder, denoising_threads=2)) as other:
        drawn = other.draw(**asked)
    assert len(drawn) == len(expected) == 5
    for one, image in zip(drawn, expected, strict=True):
        assert signal_to_noise_decibels(pixels(one.png), pixels(image.png)) >= 50


def test_cores_belong_to_the_thread_that_asks(lanes: RowLanes) -> None:
    seen: list[int] = []

    def other() -> None:
        use_cores(2)
        seen.append(torch.get_num_threads())

    use_cores(1)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [2]
    assert torch.get_num_threads() == 1
