import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detex_trainer.learning.methods.objective import (
    attention_loss,
    attention_mass,
    attention_side,
    key_value_drift,
    masked_denoising_loss,
    region_weights,
    word_attention,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def reference_loss(
    prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor | None
) -> float:
    """Pixel by pixel, in plain Python."""
    pictures, channels, height, width = prediction.shape
    total = 0.0
    for b in range(pictures):
        error = weight = 0.0
        for y in range(height):
            for x in range(width):
                squares = [(float(prediction[b, c, y, x]) - float(target[b, c, y, x])) ** 2 for c in range(channels)]
                error += float(weights[b, 0, y, x]) * sum(squares) / channels
                weight += float(weights[b, 0, y, x])
        total += error / weight * (1.0 if steps is None else float(steps[b]))
    return total / pictures


@pytest.mark.parametrize("with_steps", [False, True])
def test_masked_loss_equals_the_sum_over_pixels(with_steps: bool) -> None:
    prediction, target, weights = random(3, 2, 5, 7), random(3, 2, 5, 7, seed=1), random(3, 1, 5, 7, seed=2)
    steps = random(3, seed=3) if with_steps else None
    loss = masked_denoising_loss(prediction, target, weights, steps)
    assert loss.item() == pytest.approx(reference_loss(prediction, target, weights, steps), rel=1e-5)


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_masked_loss_does_not_depend_on_the_scale_of_the_mask(scale: float, seed: int) -> None:
    prediction, target, weights = (
        random(2, 3, 4, 4, seed=seed),
        random(2, 3, 4, 4, seed=seed + 100),
        random(2, 1, 4, 4, seed=7),
    )
    torch.testing.assert_close(
        masked_denoising_loss(prediction, target, weights * scale), masked_denoising_loss(prediction, target, weights)
    )


def test_a_small_subject_trains_as_fast_as_a_large_one() -> None:
    prediction, target = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    small, large = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    small[..., 0, 0] = 1
    assert masked_denoising_loss(prediction, target, small) == masked_denoising_loss(prediction, target, large)


def test_what_lies_outside_the_mask_does_not_count() -> None:
    prediction, target, weights = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1), random(2, 1, 4, 4, seed=2).round()
    changed = torch.where(weights > 0, prediction, prediction + 100)
    assert masked_denoising_loss(changed, target, weights) == masked_denoising_loss(prediction, target, weights)


def test_a_picture_without_weight_counts_as_zero() -> None:
    prediction, target = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    weights = torch.zeros(2, 1, 4, 4)
    assert masked_denoising_loss(prediction, target, weights) == 0
    weights[0] = 1
    expected = (prediction[0] - target[0]).square().mean() / 2
    torch.testing.assert_close(masked_denoising_loss(prediction, target, weights), expected)


def test_region_weights_follow_what_the_words_explain() -> None:
    masks = torch.tensor([1.0, 0.25, 0.0]).view(1, 1, 1, 3).expand(4, 1, 1, 3)
    subject = torch.tensor([True, True, False, False])
    background = torch.tensor([True, False, True, False])
    valid = torch.ones(4, 1, 1, 3)
    valid[0, ..., 2] = 0
    weights = region_weights(masks, subject, background, 0.1, valid)
    expected = [[1, 1, 0], [1, 0.25 + 0.075, 0.1], [0.1, 0.025 + 0.75, 1], [0.1, 0.1, 0.1]]
    torch.testing.assert_close(weights[:, 0, 0], torch.tensor(expected))


def test_word_attention_is_the_mean_over_layers_and_tokens_with_maximum_one() -> None:
    layers = [random(2, 5, 3, 3), random(2, 5, 3, 3, seed=1)]
    groups = torch.zeros(2, 2, 5)
    groups[0, 0, [1, 3]] = 1
    groups[1, 0, 2] = 1
    groups[1, 1, 4] = 1  # the first prompt has no second group
    maps = word_attention(layers, groups)
    expected = (layers[0][0, 1] + layers[0][0, 3] + layers[1][0, 1] + layers[1][0, 3]) / 4
    torch.testing.assert_close(maps[0, 0], expected / expected.max())
    torch.testing.assert_close(maps[1].amax(dim=(1, 2)), torch.ones(2))
    assert not maps[0, 1].any()


@given(scale=st.floats(1e-3, 1e3))
def test_word_attention_does_not_depend_on_the_scale_of_the_maps(scale: float) -> None:
    layer, groups = random(1, 2, 4, 4), torch.eye(2).unsqueeze(0)
    torch.testing.assert_close(word_attention([layer * scale], groups), word_attention([layer], groups))


def test_attention_loss_counts_present_words_alone() -> None:
    maps, regions = random(2, 2, 4, 4), random(2, 2, 4, 4, seed=1)
    present = torch.tensor([[True, True], [True, False]])
    errors = (maps - regions).square().mean(dim=(2, 3))
    expected = (errors[0, 0] + errors[0, 1] + errors[1, 0]) / 3
    torch.testing.assert_close(attention_loss(maps, regions, present), expected)
    assert attention_loss(maps, regions, torch.zeros(2, 2, dtype=torch.bool)) == 0
    assert attention_loss(regions, regions, present) == 0


def test_attention_mass_is_the_share_on_the_mask() -> None:
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    assert attention_mass(mask, mask) == pytest.approx(1)
    assert attention_mass(1 - mask, mask) == pytest.approx(0)
    assert attention_mass(torch.ones(4, 4), mask) == pytest.approx(0.5)


@pytest.mark.parametrize(("latents", "maps"), [(64, 16), (96, 24), (32, 8), (16, 8), (8, 8), (4, 4)])
def test_attention_side(latents: int, maps: int) -> None:
    assert attention_side(latents) == maps


def test_key_value_drift_is_relative_to_the_projections() -> None:
    weights, hidden = [random(6, 4), random(3, 4, seed=1)], random(5, 4, seed=2)
    assert key_value_drift([torch.zeros(6, 4), torch.zeros(3, 4)], weights, hidden) == 0
    drift = key_value_drift([0.1 * weights[0], 0.3 * weights[1]], weights, hidden)
    assert drift.item() == pytest.approx((0.01 + 0.09) / 2, rel=1e-5)


def test_key_value_drift_is_blind_to_directions_that_the_prompt_does_not_take() -> None:
    hidden = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    away = torch.tensor([[0.0, 5.0]])
    assert key_value_drift([away], [torch.ones(1, 2)], hidden) == 0
    assert math.isfinite(key_value_drift([away], [torch.zeros(1, 2)], hidden).item())
