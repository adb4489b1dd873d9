"""Cross-attention over pages of a pool, by gathering each row's pages into a text of its own.

What is computed is defined in `detex_diffusion.segmented_attention`; here is only how the tokens lie.
"""

import torch
from torch import Tensor

from detex_diffusion.segmented_attention import segmented_attention as attend_to_segments


def segmented_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    page_starts: Tensor,
    page_lengths: Tensor,
    page_segments: Tensor,
    log_weights: Tensor | None,
    joint: Tensor,
    segments: int,
    capture: bool,
) -> tuple[Tensor, Tensor]:
    """Output (B, N, H, D), and log-sum-exps (B, H, S, N) or an empty tensor; as `ops.segmented_attention`."""
    rows, positions, _, _ = query.shape
    tokens, owners = _gathered(page_starts, page_lengths, page_segments)
    if log_weights is None:
        log_weights = torch.zeros(rows, segments, positions, device=query.device)
    heads_first = query.transpose(1, 2)
    row_keys, row_values = (pool[tokens].transpose(1, 2) for pool in (key, value))  # (B, H, T, D)
    output = attend_to_segments(heads_first, row_keys, row_values, owners, log_weights, joint)
    if not capture:
        return output.transpose(1, 2), query.new_empty(0, dtype=torch.float32)
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (heads_first.to(wide) * query.shape[-1] ** -0.5) @ row_keys.to(wide).transpose(-1, -2)  # (B, H, N, T)
    sums = []
    for segment in range(segments):
        elsewhere = (owners != segment)[:, None, None, :]
        read = ~log_weights[:, segment].isneginf().unsqueeze(1)  # (B, 1, N)
        of_segment = scores.masked_fill(elsewhere, float("-inf")).logsumexp(dim=-1)
        sums.append(of_segment.masked_fill(~read, float("-inf")))
    return output.transpose(1, 2), torch.stack(sums, dim=2)


def _gathered(starts: Tensor, lengths: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the pool each row's tokens lie, and their segments, -1 for filler: both (B, T) int64."""
    longest = max(1, int(lengths.sum(dim=1).max()))
    ends = lengths.long().cumsum(dim=1)  # (B, P)
    index = torch.arange(longest, device=starts.device).expand(len(starts), -1).contiguous()
    page = torch.searchsorted(ends, index, right=True)  # (B, T)
    filler = page >= starts.shape[1]
    page = page.clamp(max=starts.shape[1] - 1)
    before = ends.gather(1, page) - lengths.long().gather(1, page)
    tokens = starts.long().gather(1, page) + index - before
    owners = segments.long().gather(1, page)
    return tokens.masked_fill(filler, 0), owners.masked_fill(filler, -1)
