"""The two ways to attend over text in segments, against plain loops and scaled dot-product attention."""

import math

import pytest
import torch
from torch.nn import functional

from detex_diffusion.segmented_attention import attention_shares, segmented_attention

ROWS, HEADS, POSITIONS, TOKENS, HEAD_DIM = 2, 3, 6, 9, 5
SEGMENTS = torch.tensor([[0, 1, 0, 2, 2, 1, 0, -1, -1], [0, 0, 0, 0, 1, 1, 0, 0, 1]])


def tensors(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    log_weights = normal(ROWS, 3, POSITIONS).float()
    log_weights[0, 1, :3] = log_weights[0, 2, 3:] = float("-inf")
    log_weights[1, 1, 2] = float("-inf")
    shapes = [(ROWS, HEADS, length, HEAD_DIM) for length in (POSITIONS, TOKENS, TOKENS)]
    query, key, value = (normal(*shape) for shape in shapes)
    return query, key, value, log_weights


def position_by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: list[int],
    log_weights: list[float],
    joint: bool,
) -> torch.Tensor:
    """One position of one head: the definitions written out."""
    scores = [float(query @ k) / math.sqrt(len(query)) for k in key]
    by_segment = {
        s: [t for t, segment in enumerate(segments) if segment == s]
        for s in range(len(log_weights))
        if s in segments and log_weights[s] > float("-inf")
    }
    mass = {
        t: math.exp(scores[t]) * (math.exp(log_weights[s]) if joint else 1)
        for s, tokens in by_segment.items()
        for t in tokens
    }
    if joint:
        total = sum(mass.values())
        return sum((mass[t] / total * value[t] for t in mass), torch.zeros_like(value[0]))
    shares = {s: math.exp(log_weights[s]) for s in by_segment}
    output = torch.zeros_like(value[0])
    for s, tokens in by_segment.items():
        inside = sum(mass[t] for t in tokens)
        output = output + shares[s] / sum(shares.values()) * sum(
            (mass[t] / inside * value[t] for t in tokens), torch.zeros_like(value[0])
        )
    return output


@pytest.mark.parametrize("joint", [(True, True), (False, False), (True, False)])
def test_rows_of_either_mode_follow_the_definition(joint: tuple[bool, bool]) -> None:
    query, key, value, log_weights = tensors()
    got = segmented_attention(query, key, value, SEGMENTS, log_weights, torch.tensor(joint))
    for row in range(ROWS):
        for head in range(HEADS):
            for position in range(POSITIONS):
                wanted = position_by_hand(
                    query[row, head, position],
                    key[row, head],
                    value[row, head],
                    SEGMENTS[row].tolist(),
                    log_weights[row, :, position].tolist(),
                    joint[row],
                )
                torch.testing.assert_close(got[row, head, position], wanted, rtol=1e-6, atol=1e-6)


def test_weights_of_one_make_joint_attention_plain() -> None:
    query, key, value, log_weights = tensors()
    got = segmented_attention(query, key, value, SEGMENTS, torch.zeros_like(log_weights), torch.tensor([True, True]))
    mask = (SEGMENTS >= 0)[:, None, None, :]
    wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(got, wanted)


def test_a_region_of_its_own_gives_the_attention_of_that_segment_alone() -> None:
    query, key, value, log_weights = tensors()
    only = torch.full_like(log_weights, float("-inf"))
    only[:, 1] = 0.0
    wanted = functional.scaled_dot_product_attention(query, key, value, attn_mask=(SEGMENTS == 1)[:, None, None, :])
    for joint in (True, False):
        got = segmented_attention(query, key, value, SEGMENTS, only, torch.tensor([joint, joint]))
        torch.testing.assert_close(got, wanted)


def test_what_lies_outside_a_region_does_not_hear_of_its_tokens() -> None:
    query, key, value, log_weights = tensors()
    changed = value.clone()
    changed[0, :, SEGMENTS[0] == 1] += 100
    for joint in (True, False):
        modes = torch.tensor([joint, joint])
        one = segmented_attention(query, key, value, SEGMENTS, log_weights, modes)
        other = segmented_attention(query, key, changed, SEGMENTS, log_weights, modes)
        assert torch.equal(one[0, :, :3], other[0, :, :3])
        assert not torch.isclose(one[0, :, 3:], other[0, :, 3:]).any()


def test_shares_add_up_and_are_the_weights_where_blended() -> None:
    query, key, _, log_weights = tensors()
    shares = attention_shares(query, key, SEGMENTS, log_weights, torch.tensor([True, False]))
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones_like(shares[..., 0]))
    assert float(shares[1, ..., 2].abs().max()) == 0  # the second row has no third segment
    wanted = log_weights[1, :2].softmax(dim=0).T.double().expand(HEADS, -1, -1)
    torch.testing.assert_close(shares[1, ..., :2], wanted, rtol=1e-6, atol=1e-6)


def test_nothing_to_read_gives_zero() -> None:
    query, key, value, log_weights = tensors()
    nothing = torch.full_like(log_weights, float("-inf"))
    for joint in (True, False):
        got = segmented_attention(query, key, value, SEGMENTS, nothing, torch.tensor([joint, joint]))
        assert torch.equal(got, torch.zeros_like(got))


def test_half_precision_stays_finite_and_close() -> None:
    query, key, value, log_weights = tensors(torch.float16)
    got = segmented_attention(200 * query, 200 * key, value, SEGMENTS, log_weights, torch.tensor([True, False]))
    assert got.dtype == torch.float16
    wanted = segmented_attention(
        200 * query.double(), 200 * key.double(), value.double(), SEGMENTS, log_weights, torch.tensor([True, False])
    )
    torch.testing.assert_close(got.double(), wanted, rtol=2e-2, atol=2e-2)
