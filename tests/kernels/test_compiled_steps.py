"""Compiled steps: the same pictures, one graph for any mixture of texts, nothing compiled twice, no request lost."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch._dynamo.utils import counters

from detex_core.errors import InvalidInputError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.compilation import use_cache_folder
from detex_generator.compute.fused_projections import fuse_projections
from detex_generator.compute.graphed_steps import Compilation, GraphedSteps
from detex_generator.compute.step_compiler import StepCompiler
from detex_generator.compute.unet_kernels import over_same_weights
from detex_generator.ops.choice import KernelChoice
from tests.kernels.random_prompts import random_prompt
from tests.kernels.test_graphed_steps import RecordingCapture, check, inputs_of
from tests.tiny_models import Kind, unet_config

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WAIT_SECONDS = 600.0


class Compilations:
    """What was told of compilations."""

    def __init__(self) -> None:
        self.errors: list[str | None] = []

    def compiled(self, seconds: float, error: str | None) -> None:
        self.errors.append(error)


@pytest.fixture(scope="module")
def small(base_model: BaseModel) -> BaseModel:
    """One level, so that it is compiled soon."""
    torch.manual_seed(0)
    config = unet_config("sd1") | {
        "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    return replace(base_model, unet=UNet2DConditionModel(**config).eval().requires_grad_(False))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        patch.delenv("TRITON_CACHE_DIR", raising=False)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        yield folder


def steps_of(
    model: BaseModel, least_uses: int, told: Compilations | None = None
) -> tuple[GraphedSteps, StepCompiler, RecordingCapture]:
    choice, capture = KernelChoice("torch", CPU, torch.float32), RecordingCapture()
    compiler = StepCompiler(CPU, told or Compilations(), least_uses=least_uses)
    fused = over_same_weights(model.unet)
    fuse_projections(fused)
    compilation = Compilation(compiler, KeyValueUNet(fused))
    steps = GraphedSteps(KeyValueUNet(model.unet), choice, capture, compilation=compilation)
    return steps, compiler, capture


def texts(model: BaseModel, *tokens: int) -> list[PromptKeyValues]:
    return [random_prompt(model, count, 10 * count) for count in tokens]


def test_one_compiled_graph_serves_all_texts_of_its_size(small: BaseModel) -> None:
    told = Compilations()
    counters.clear()
    torch.compiler.reset()
    steps, compiler, capture = steps_of(small, 2, told)
    check(small, steps, inputs_of(small, [6.0, None, 2.5]), texts(small, 9, 10, 11, 8, 10))
    assert compiler.wait(0)  # once is not worth it
    assert (steps.captured, steps.compiled) == (1, 0)
    check(small, steps, inputs_of(small, [6.0, None, 2.5], seed=1), texts(small, 9, 10, 11, 8, 10))
    assert compiler.wait(WAIT_SECONDS)
    replays = capture.replays
    check(small, steps, inputs_of(small, [6.0, None, 2.5], seed=2), texts(small, 9, 10, 11, 8, 10))
    check(small, steps, inputs_of(small, [None, 3.0, 4.0], seed=3), texts(small, 11, 8, 10, 9, 8))
    check(small, steps, inputs_of(small, [1.0, 1.0, 0.0], seed=4), texts(small, 12, 9, 9, 8, 10, 7))
    assert (steps.captured, steps.compiled, compiler.compiled) == (1, 1, 1)
    assert capture.replays == replays + 3
    steps.clear()
    check(small, steps, inputs_of(small, [6.0, None, 2.5], seed=5), texts(small, 9, 10, 11, 8, 10))
    assert steps.compiled == 1  # what was compiled outlives its graphs
    assert told.errors == [None]
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_a_second_start_reads_what_the_first_compiled(small: BaseModel) -> None:
    for start in range(2):
        counters.clear()
        torch.compiler.reset()
        steps, compiler, _ = steps_of(small, 1)
        inputs = inputs_of(small, [6.0, None, 2.5])
        with torch.inference_mode():
            steps.expect(inputs, texts(small, 9, 10, 11, 8, 10))
        assert compiler.wait(WAIT_SECONDS)
        assert compiler.compiled == 1
        assert steps.captured == 0
        check(small, steps, inputs, texts(small, 9, 10, 11, 8, 10))
        assert steps.compiled == 1
        if start == 1:
            assert counters["inductor"]["fxgraph_cache_hit"] == 1
            assert counters["inductor"]["fxgraph_cache_miss"] == 0


def test_what_does_not_compile_is_drawn_as_before(
    small: BaseModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **options: object) -> object:
        def call(*inputs: object) -> object:
            raise RuntimeError("no compiler here\nand so on")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    told = Compilations()
    steps, compiler, _ = steps_of(small, 1, told)
    with caplog.at_level(logging.WARNING):
        for count in (1, 2):
            for seed in range(3):
                check(small, steps, inputs_of(small, [None] * count, seed=seed), texts(small, 9, 10)[:count])
                assert compiler.wait(WAIT_SECONDS)
    assert told.errors == ["RuntimeError: no compiler here"] * 2
    assert (steps.captured, steps.compiled, compiler.compiled) == (2, 0, 0)
    assert sum("was not compiled" in record.message for record in caplog.records) == 1


def test_what_compiles_and_does_not_run_is_drawn_as_before(small: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fragile(function: object, **options: object) -> object:
        def call(*inputs: object) -> object:
            calls.append(inputs)
            if len(calls) > 1:
                raise torch.OutOfMemoryError("none left")
            return None

        return lambda *inputs: call(*inputs) or (torch.zeros(1),) * 3

    monkeypatch.setattr(torch, "compile", fragile)
    steps, compiler, _ = steps_of(small, 1)
    for seed in range(3):
        check(small, steps, inputs_of(small, [None], seed=seed), texts(small, 9))
        assert compiler.wait(WAIT_SECONDS)
    assert len(calls) == 2  # compiled once, tried once
    assert steps.compiled == compiler.compiled == 0


def test_nothing_is_captured_while_something_is_compiled(small: BaseModel) -> None:
    steps, compiler, capture = steps_of(small, 1000)
    with compiler.device_lock:
        check(small, steps, inputs_of(small, [3.0]), texts(small, 9, 10))
    assert capture.replays == 0
    check(small, steps, inputs_of(small, [3.0]), texts(small, 9, 10))
    assert capture.replays == 1


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_fused_projections_compute_the_same(kind: Kind) -> None:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(**unet_config(kind)).eval().requires_grad_(False)
    fused = over_same_weights(unet)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    bytes_before = _bytes(unet)
    latents, times = torch.randn(3, 4, 8, 8), torch.tensor([3.0, 500.0, 21.0])
    added = {"text_embeds": torch.randn(3, 28), "time_ids": torch.ones(3, 6)} if kind == "sdxl" else None
    arguments = {"encoder_hidden_states": torch.randn(3, 7, unet.config.cross_attention_dim)}
    wanted = unet(latents, times, added_cond_kwargs=added, **arguments).sample
    products = _products(lambda: unet(latents, times, added_cond_kwargs=added, **arguments))
    KeyValueUNet(fused)
    fuse_projections(fused)
    fewer = _products(lambda: fused(latents, times, added_cond_kwargs=added, **arguments))
    torch.testing.assert_close(fused(latents, times, added_cond_kwargs=added, **arguments).sample, wanted)
    torch.testing.assert_close(unet(latents, times, added_cond_kwargs=added, **arguments).sample, wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
    assert _bytes(unet, fused) == bytes_before  # views of what was there, not copies
    blocks = sum(isinstance(module, ResnetBlock2D) for module in unet.modules())
    layers = sum(name.endswith("attn1") for name, _ in unet.named_modules())
    assert products - fewer == (blocks - 1) + 2 * layers


def _bytes(*unets: UNet2DConditionModel) -> int:
    """Memory that the parameters of UNets take together."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for unet in unets
                for tensor in unet.parameters()}  # fmt: skip
    return sum(storages.values())


def _products(run: Callable[[], object]) -> int:
    """How often a matrix product with weights is computed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return sum(event.count for event in profile.key_averages() if event.key == "aten::linear")


def test_a_cache_folder_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"compile_cache_folder: must be a writable folder, got "):
        use_cache_folder(tmp_path / "file")
