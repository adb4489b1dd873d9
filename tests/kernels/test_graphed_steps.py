"""Steps on tensors that stay where they are, filled up to few sizes, against steps that are computed anew each time."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues
from detex_diffusion.solver import Solver, guide, scale_input, solver_step, step_table
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.denoising_step import StepInputs, StepResults
from detex_generator.compute.graphed_steps import GraphedSteps, rounded_up
from detex_generator.compute.plain_steps import PlainSteps, Steps
from detex_generator.compute.pooled_key_values import PooledKeyValues
from detex_generator.ops.choice import KernelChoice
from tests.kernels.random_prompts import placed_prompts, random_prompt


class RecordingCapture:
    """As a CUDA graph does: the step is run once, and a replay writes its results into the same tensors."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, step: Callable[[], StepResults]) -> Callable[[], StepResults]:
        results = step()

        def replay() -> StepResults:
            self.replays += 1
            again = step()
            results.latents.copy_(again.latents)
            results.clean.copy_(again.clean)
            results.finite.copy_(again.finite)
            return results

        return replay


@pytest.fixture
def capture() -> RecordingCapture:
    return RecordingCapture()


@pytest.fixture
def steps(base_model: BaseModel, capture: RecordingCapture) -> GraphedSteps:
    choice = KernelChoice("torch", torch.device("cpu"), torch.float32)
    return GraphedSteps(KeyValueUNet(base_model.unet), choice, capture, most_graphs=3)


def inputs_of(base_model: BaseModel, scales: list[float | None], seed: int = 0) -> StepInputs:
    solvers = [Solver.DDIM, Solver.EULER, Solver.DPM_SOLVER_PP_2M]
    tables = [step_table(base_model.noise_schedule, solvers[i % 3], 9 + i).rows[3 + i] for i in range(len(scales))]
    generator = torch.Generator().manual_seed(seed)
    latents, previous = (torch.randn(len(scales), 4, 8, 8, generator=generator) for _ in range(2))
    return StepInputs.of(torch.stack(tables), latents, previous, scales)


def plain_step(base_model: BaseModel, inputs: StepInputs, prompts: list[PromptKeyValues]) -> list[torch.Tensor]:
    """The same by the functions of `detex_diffusion`, without filling up and without a pool."""
    guided = inputs.unconditional >= 0
    count = len(inputs.latents)
    read = scale_input(inputs.coefficients, inputs.latents)
    times = inputs.coefficients[:, 0]
    output = KeyValueUNet(base_model.unet)(
        torch.cat([read, read[guided]]), torch.cat([times, times[guided]]), KeyValueBatch.stack(prompts)
    )
    predicted = output[:count].clone()
    predicted[guided] = guide(output[count:], predicted[guided], inputs.guidance_scales[guided])
    return list(solver_step(inputs.coefficients, inputs.latents, predicted, inputs.previous_clean))


def check(base_model: BaseModel, steps: GraphedSteps, inputs: StepInputs, prompts: list[PromptKeyValues]) -> None:
    with torch.inference_mode():
        got = steps(inputs, prompts)
        wanted = plain_step(base_model, inputs, prompts)
    for mine, theirs in zip((got.latents, got.clean), wanted, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert got.finite.tolist() == [True] * len(inputs.latents)


def test_batches_of_any_make_share_a_graph(
    base_model: BaseModel, steps: GraphedSteps, capture: RecordingCapture
) -> None:
    texts = [random_prompt(base_model, tokens, tokens) for tokens in (9, 10, 11, 8, 10, 9, 8)]
    check(base_model, steps, inputs_of(base_model, [6.0, None, 2.5]), texts[:5])
    check(base_model, steps, inputs_of(base_model, [6.0, None, 2.5], seed=1), texts[:5])
    check(base_model, steps, inputs_of(base_model, [None, 3.0, 4.0], seed=2), texts[2:])
    check(base_model, steps, inputs_of(base_model, [1.0, 1.0, 0.0], seed=3), texts[1:])
    assert steps.captured == 1
    assert capture.replays == 4


def test_regions_have_graphs_of_their_own(base_model: BaseModel, steps: GraphedSteps) -> None:
    placed = placed_prompts(base_model)
    inputs = inputs_of(base_model, [None, 5.0, None])
    check(base_model, steps, inputs, placed)
    check(base_model, steps, inputs, [*placed[1:], placed[0]])
    assert steps.captured == 1
    check(base_model, steps, inputs, [random_prompt(base_model, 12, seed) for seed in range(4)])
    assert steps.captured == 2


def test_few_graphs_are_kept(base_model: BaseModel, steps: GraphedSteps) -> None:
    text = random_prompt(base_model, 8, 0)
    for count in (1, 2, 3, 4, 1, 5):
        check(base_model, steps, inputs_of(base_model, [None] * count, seed=count), [text] * count)
    assert steps.captured == 3
    steps.clear()
    assert steps.captured == 0


def test_what_is_given_stays_as_it_was(base_model: BaseModel, steps: GraphedSteps) -> None:
    inputs = inputs_of(base_model, [3.0])
    before = [tensor.clone() for tensor in inputs.tensors]
    texts = [random_prompt(base_model, 8, seed) for seed in range(2)]
    with torch.inference_mode():
        first = steps(inputs, texts)
        kept = first.latents.clone()
        steps(inputs_of(base_model, [3.0], seed=9), texts)
    assert torch.equal(first.latents, kept)
    assert all(torch.equal(one, other) for one, other in zip(inputs.tensors, before, strict=True))


def test_an_image_that_is_no_number_does_not_touch_the_others(base_model: BaseModel, steps: GraphedSteps) -> None:
    inputs = inputs_of(base_model, [3.0, 3.0, None])
    spoiled = inputs.latents.clone()
    spoiled[1, 0, 0, 0] = float("nan")
    texts = [random_prompt(base_model, 8, seed) for seed in range(5)]
    with torch.inference_mode():
        good = steps(inputs, texts)
        bad = steps(replace(inputs, latents=spoiled), texts)
    assert bad.finite.tolist() == [True, False, True]
    assert torch.equal(good.latents[[0, 2]], bad.latents[[0, 2]])


def test_sizes_are_rounded_to_few() -> None:
    assert [rounded_up(number) for number in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
    assert all(number <= rounded_up(number) <= number * 3 / 2 for number in range(1, 600))


def test_inputs_do_not_shrink(base_model: BaseModel) -> None:
    with pytest.raises(ValueError, match="2 images and 3 rows do not fit 2 and 2"):
        inputs_of(base_model, [3.0, None]).filled(2, 2)


@pytest.mark.parametrize("kind", ["graphed", "plain"])
def test_batches_that_take_turns_keep_their_texts(
    base_model: BaseModel, steps: GraphedSteps, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    of_prompts, stack = PooledKeyValues.of_prompts, KeyValueBatch.stack
    monkeypatch.setattr(
        PooledKeyValues, "of_prompts", lambda *given, **options: made.append(1) or of_prompts(*given, **options)
    )
    monkeypatch.setattr(KeyValueBatch, "stack", lambda *given: made.append(1) or stack(*given))
    choice = KernelChoice("torch", torch.device("cpu"), torch.float32)
    turns: Steps = steps if kind == "graphed" else PlainSteps(KeyValueUNet(base_model.unet), choice)
    one, other = inputs_of(base_model, [None]), inputs_of(base_model, [None], seed=1)
    other = StepInputs.of(other.coefficients, torch.randn(1, 4, 8, 16), torch.zeros(1, 4, 8, 16), [None])
    prompts, others = [random_prompt(base_model, 7, seed=0)], [random_prompt(base_model, 9, seed=1)]
    with torch.inference_mode():
        first = turns(one, prompts).latents.clone()
        for _ in range(10):
            assert torch.equal(turns(one, prompts).latents, first)
            turns(other, others)
        assert len(made) == 2
        turns.rest(other.latents.shape[1:])
        assert torch.equal(turns(one, prompts).latents, first)
        assert len(made) == 2
        # Other prompts of the same size are read anew, and those that came before again when they come back.
        assert not torch.equal(turns(one, others).latents, first)
        assert torch.equal(turns(one, prompts).latents, first)
        assert len(made) == 4


def test_a_graph_keeps_no_prompt_alive(base_model: BaseModel, steps: GraphedSteps) -> None:
    prompt = random_prompt(base_model, 7, seed=0)
    gone = weakref.ref(prompt)
    with torch.inference_mode():
        steps(inputs_of(base_model, [None]), [prompt])
    del prompt
    gc.collect()
    assert gone() is None
