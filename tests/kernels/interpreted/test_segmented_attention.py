"""The Triton kernel against the definition of segmented attention in double precision."""

import pytest
import torch

from detex_generator.ops.references import segmented_attention as reference
from detex_generator.ops.segmented_attention import (
    PageLayout,
    segmented_attention,
    segmented_attention_with_sums,
    shares,
)
from tests.kernels.interpreted.errors import DTYPES, TRITON, assert_as_close, normal

POOL, HEADS = 131, 2
# Ragged rows: pages out of order, of one token, across tiles of 32 tokens, two of one segment, shared between rows.
PAGES = [
    [(70, 16, 0), (3, 33, 1), (40, 1, 2)],
    [(0, 5, 0), (100, 31, 0), (20, 45, 2)],
    [(7, 64, 0)],
]
JOINT, MIXED, BLEND = [True, True, True], [True, False, True], [False, False, False]


def weights(positions: int, segments: int = 3) -> torch.Tensor:
    """Segments that are nowhere, in half of the picture, and faint; one position that reads nothing."""
    maps = -normal(len(PAGES), segments, positions, seed=5).abs()
    maps[0, 1, : positions // 2] = float("-inf")
    maps[0, 2] = float("-inf")
    maps[1, 2, positions // 3] -= 20
    maps[:, :, -1] = float("-inf")
    return maps


def run(
    positions: int, head_dim: int, dtype: torch.dtype, modes: list[bool], weighted: bool
) -> tuple[torch.Tensor, ...]:
    """Output and sums of the kernel, of the reference in the same type, and of the reference in double precision."""
    layout = PageLayout.of_rows(PAGES, modes, pages=4, count=3)
    log_weights = weights(positions) if weighted else None
    shapes = ((len(PAGES), positions, HEADS, head_dim), (POOL, HEADS, head_dim), (POOL, HEADS, head_dim))
    tensors = [normal(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    pages = (layout.starts, layout.lengths, layout.segments, log_weights, layout.joint, 3, True)
    got = segmented_attention_with_sums(*tensors, layout, log_weights, TRITON)
    own = reference.segmented_attention(*tensors, *pages)
    wanted = reference.segmented_attention(*(tensor.double() for tensor in tensors), *pages)
    return (*got, *own, *wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("positions", "head_dim", "modes", "weighted"),
    [
        (20, 40, JOINT, True),
        (70, 40, MIXED, True),
        (5, 40, BLEND, True),
        (17, 80, MIXED, True),
        (16, 64, MIXED, False),
        (9, 160, BLEND, True),
        (12, 8, JOINT, False),
        (12, 24, BLEND, False),
    ],
)
def test_parity(positions: int, head_dim: int, dtype: torch.dtype, modes: list[bool], weighted: bool) -> None:
    output, sums, own, own_sums, wanted, wanted_sums = run(positions, head_dim, dtype, modes, weighted)
    assert_as_close(output, own, wanted)
    assert torch.equal(sums.isneginf(), wanted_sums.isneginf())
    read = ~sums.isneginf()
    assert read.any()
    assert_as_close(sums[read], own_sums[read], wanted_sums[read].float())


def test_the_variant_without_blending_gives_the_same() -> None:
    query, key, value = normal(3, 20, HEADS, 40), normal(POOL, HEADS, 40, seed=1), normal(POOL, HEADS, 40, seed=2)
    joint = PageLayout.of_rows(PAGES, JOINT)
    assert not joint.blended
    both = PageLayout(joint.starts, joint.lengths, joint.segments, joint.joint, joint.count, blended=True)
    one, other = (segmented_attention(query, key, value, layout, weights(20), TRITON) for layout in (joint, both))
    assert torch.equal(one, other)


def test_capture_changes_nothing_and_gives_attention_maps() -> None:
    layout = PageLayout.of_rows(PAGES, MIXED)
    query, key, value = normal(3, 20, HEADS, 40), normal(POOL, HEADS, 40, seed=1), normal(POOL, HEADS, 40, seed=2)
    maps = weights(20)
    output, sums = segmented_attention_with_sums(query, key, value, layout, maps, TRITON)
    assert torch.equal(output, segmented_attention(query, key, value, layout, maps, TRITON))
    found = shares(sums, layout, maps)
    torch.testing.assert_close(found.sum(dim=2)[..., :-1], torch.ones(3, HEADS, 19))
    assert float(found[..., -1].abs().max()) == 0
    assert torch.equal(output[:, -1], torch.zeros_like(output[:, -1]))


def test_tiles_outside_of_a_segment_do_not_read_it() -> None:
    """What is not read may be anything: even what is no number."""
    layout = PageLayout.of_rows(PAGES, JOINT)
    query, key, value = normal(3, 20, HEADS, 40), normal(POOL, HEADS, 40, seed=1), normal(POOL, HEADS, 40, seed=2)
    maps = weights(20)
    maps[0, 1] = float("-inf")
    before = segmented_attention(query, key, value, layout, maps, TRITON)
    key[3:36], value[3:36] = float("nan"), float("nan")  # the second page of the first row alone
    after = segmented_attention(query, key, value, layout, maps, TRITON)
    assert torch.equal(before[0], after[0])
    assert after[2].isnan().any()
