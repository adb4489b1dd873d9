"""Cross-attention of image positions over segments of text that lie anywhere in a pool of keys and values.

Attention does not care for the order of tokens. So the tokens of all prompts of a batch lie in one pool, and a row
names the pages of the pool that it reads: where a page starts, how many tokens it has, which segment they belong to.
Pages of one row may come from different prompts and go through the projections of different concepts; rows may have any
number of tokens; nothing is filled up. What a row computes is defined in `detex_diffusion.segmented_attention`.

Legend: B rows, N image positions, H heads, D head dim, L tokens of the pool, P pages of a row, S segments of a row.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from detex_generator.ops.availability import check_available
from detex_generator.ops.operation import Implementation, Operation
from detex_generator.ops.references import segmented_attention as reference


@dataclass(frozen=True, eq=False)
class PageLayout:
    """What each row reads of the pool.

    Attributes:
        starts: (B, P) int32, first token of a page.
        lengths: (B, P) int32, tokens of a page; 0 for a page that is not there.
        segments: (B, P) int32, the segment of a page, 0 to S - 1, never falling along a row.
        joint: (B,) bool, True for one softmax over all segments, False for one softmax in each, blended.
        count: S.
        blended: Whether any row is blended; known on the host, for it chooses the variant of the kernel.
    """

    starts: Tensor
    lengths: Tensor
    segments: Tensor
    joint: Tensor
    count: int
    blended: bool

    @classmethod
    def of_rows(
        cls,
        rows: list[list[tuple[int, int, int]]],
        joint: list[bool],
        *,
        pages: int | None = None,
        count: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The layout of rows given as lists of pages (start, length, segment).

        Args:
            rows: Pages of each row, sorted by segment.
            joint: Mode of each row.
            pages: P, at least the pages of the longest row; that number where absent.
            count: S, above every segment; the smallest that is where absent.
            device: Where the tensors go.

        Raises:
            ValueError: Pages are not sorted by segment, or P or S is too small, or a number is negative.
        """
        longest = max((len(row) for row in rows), default=0)
        pages = max(1, longest if pages is None else pages)
        largest = max((segment for row in rows for *_, segment in row), default=0)
        count = largest + 1 if count is None else count
        if longest > pages or largest >= count:
            raise ValueError(
                f"rows have up to {longest} pages and segment {largest}; there is room for {pages}, {count}"
            )
        if len(joint) != len(rows) or any(min(page) < 0 for row in rows for page in row):
            raise ValueError("each row has a mode, and starts, lengths and segments of at least 0")
        if any(first[2] > second[2] for row in rows for first, second in pairwise(row)):
            raise ValueError("pages of a row are sorted by segment")
        # Pages that are not there belong to the row's last segment, so that segments never fall.
        filled = [row + [(0, 0, row[-1][2] if row else 0)] * (pages - len(row)) for row in rows]
        table = torch.tensor(filled, dtype=torch.int32).view(len(rows), pages, 3).to(device)
        starts, lengths, segments = (column.contiguous() for column in table.unbind(dim=2))
        return cls(starts, lengths, segments, torch.tensor(joint, device=device), count, not all(joint))


def segmented_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PageLayout,
    log_weights: Tensor | None,
    implementation: Implementation,
) -> Tensor:
    """What image positions read of the pages of their row.

    Args:
        query: (B, N, H, D).
        key: (L, H, D), the pool.
        value: (L, H, D).
        layout: Of B rows.
        log_weights: (B, S, N) float32, how much a segment counts at a position, minus infinity where it is not read;
            None for 0 throughout.
        implementation: By what.

    Returns:
        (B, N, H, D); zero where nothing is read.

    Raises:
        KernelUnavailableError: Triton is asked for and cannot run here.
    """
    return _attend(query, key, value, layout, log_weights, implementation, capture=False)[0]


def segmented_attention_opaque(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PageLayout,
    log_weights: Tensor | None,
    implementation: Implementation,
) -> Tensor:
    """The same as one operator of torch whatever computes it, so that `torch.compile` does not look into it.

    The torch reference reads the lengths of pages on the host, which a compiled graph cannot.
    """
    if implementation is Implementation.TRITON:
        return segmented_attention(query, key, value, layout, log_weights, implementation)
    attended: Tensor = segmented_attention_reference_operator(
        query, key, value, layout.starts, layout.lengths, layout.segments, log_weights, layout.joint, layout.count
    )
    return attended


def segmented_attention_with_sums(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PageLayout,
    log_weights: Tensor | None,
    implementation: Implementation,
) -> tuple[Tensor, Tensor]:
    """The same, and log-sum-exps of the scores of each segment, (B, H, S, N) float32, without its weight.

    Minus infinity where a segment is not read, or counts for less than float32 can tell beside the others. `shares`
    makes attention maps of them.
    """
    return _attend(query, key, value, layout, log_weights, implementation, capture=True)


def shares(log_sum_exp: Tensor, layout: PageLayout, log_weights: Tensor | None) -> Tensor:
    """How much each position reads of each segment, (B, H, S, N), adding up to 1 where anything is read.

    Where a row is joint this localises subjects; where it is blended, the weights alone decide it.
    """
    weights = torch.zeros_like(log_sum_exp) if log_weights is None else log_weights.unsqueeze(1).expand_as(log_sum_exp)
    absent = log_sum_exp.isneginf() | weights.isneginf()
    joint = layout.joint[:, None, None, None]
    exponent = torch.where(joint, weights + log_sum_exp, weights).masked_fill(absent, float("-inf"))
    return exponent.softmax(dim=2).nan_to_num(0.0)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PageLayout,
    log_weights: Tensor | None,
    implementation: Implementation,
    *,
    capture: bool,
) -> tuple[Tensor, Tensor]:
    pages = (layout.starts, layout.lengths, layout.segments)
    if implementation is Implementation.TORCH:
        return reference.segmented_attention(
            query, key, value, *pages, log_weights, layout.joint, layout.count, capture
        )
    found: tuple[Tensor, Tensor] = segmented_attention_operator(
        query, key, value, *pages, log_weights, layout.joint, layout.count, layout.blended, capture
    )
    return found


@torch.library.custom_op("detex::segmented_attention", mutates_args=())
def segmented_attention_operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    segments: int,
    blended: bool,
    capture: bool,
) -> tuple[Tensor, Tensor]:
    """The Triton kernel as an operator of torch: opaque to `torch.compile`, and part of CUDA graphs."""
    check_available(Operation.SEGMENTED_ATTENTION, query)
    from detex_generator.ops.triton_kernels import segmented_attention as kernel

    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    output, log_sum_exp = _empty_results(query, segments, capture)
    if capture:
        log_sum_exp.fill_(float("-inf"))
    kernel.plan(
        query,
        key,
        value,
        page_starts.contiguous(),
        page_lengths.contiguous(),
        page_segments.contiguous(),
        None if log_weights is None else log_weights.contiguous(),
        joint.to(torch.int8),
        output,
        log_sum_exp if capture else None,
        segments=segments,
        blended=blended,
    ).run()
    return output, log_sum_exp


@segmented_attention_operator.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    segments: int,
    blended: bool,
    capture: bool,
) -> tuple[Tensor, Tensor]:
    return _empty_results(query, segments, capture)


@torch.library.custom_op("detex::segmented_attention_reference", mutates_args=())
def segmented_attention_reference_operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    segments: int,
) -> Tensor:
    """The torch reference as an operator of torch, without sums."""
    pages = (page_starts, page_lengths, page_segments)
    output, _ = reference.segmented_attention(query, key, value, *pages, log_weights, joint, segments, False)
    return output.contiguous()


@segmented_attention_reference_operator.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    segments: int,
) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _empty_results(query: Tensor, segments: int, capture: bool) -> tuple[Tensor, Tensor]:
    rows, positions, heads, _ = query.shape
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    shape = (rows, heads, segments, positions) if capture else (0,)
    return output, query.new_empty(shape, dtype=torch.float32)
