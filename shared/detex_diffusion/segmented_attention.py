"""Cross-attention over text in segments, each with a weight that depends on the place in the picture: the reference.

A row's tokens fall into segments: segment 0 is the scene, each further one a subject. A map of log-weights says how
much a segment counts at each image position, so that a subject is read inside its region alone. With q the query of
position n, k_t and v_t the token's key and value, s(t) its segment, w_s(n) = exp(log_weights[s, n]) and the score
a(n, t) = q_n . k_t / sqrt(D), a row attends in one of two ways:

    joint   o_n = sum_t p(n, t) v_t        with p(n, t) ~ w_s(t)(n) exp a(n, t), one softmax over all tokens
    blend   o_n = sum_s u_s(n) o_n^(s)     with o_n^(s) the softmax within segment s, and u_s(n) = w_s(n) / sum_r w_r(n)

In both the probabilities have the form p(n, t) = exp(a(n, t) + b(s(t), n)), where the bias is

    joint   b(s, n) = log w_s(n) - L(n)               L(n) = log sum_t w_s(t)(n) exp a(n, t)
    blend   b(s, n) = log u_s(n) - L_s(n)             L_s(n) = log sum_{t in s} exp a(n, t)

so one pass that keeps a log-sum-exp per segment serves both, and tells for free how much a position reads of each
segment (`attention_shares`).

Conventions that any faster implementation keeps:

- Segments are counted from 0 in each row; -1 marks filler, which nobody reads. The tokens of a segment need not lie
  together, nor need all rows have the same number of segments: a segment without tokens counts as weight 0.
- Log-weights are float32, at most 0 by habit, minus infinity for "not here"; a tile of positions in which a segment is
  minus infinity throughout can be passed over. At every position at least one segment that has tokens is finite: where
  none is, the output is zero.
- Scores, sums and log-sum-exps are kept in float32 or wider; the product with the values is taken in the type of the
  values.

Legend: B rows, H heads, N image positions (row by row from the top left), T tokens, D head dim, S segments.
"""

import torch
from torch import Tensor


def segmented_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, log_weights: Tensor, joint: Tensor
) -> Tensor:
    """What image positions read of text in segments.

    Args:
        query: (B, H, N, D).
        key: (B, H, T, D).
        value: (B, H, T, D).
        segments: (B, T) int64, the segment of each token, 0 to S - 1, or -1 for filler.
        log_weights: (B, S, N) float32, minus infinity where a segment is not read.
        joint: (B,) bool, True for one softmax over all segments, False for one softmax in each, blended.

    Returns:
        (B, H, N, D) of the values' type.
    """
    scores, in_segment, sums = _scores(query, key, segments, log_weights.shape[1])
    bias = _bias(sums, log_weights.to(scores.dtype), joint)  # (B, H, N, S)
    # Each token takes the bias of its segment; filler takes that of segment 0 and has score minus infinity.
    index = segments.clamp(min=0)[:, None, None, :].expand(-1, bias.shape[1], bias.shape[2], -1)
    probabilities = (scores + bias.gather(-1, index)).exp().masked_fill(~in_segment.any(dim=1)[:, None, None, :], 0)
    return probabilities.to(value.dtype) @ value


def attention_shares(query: Tensor, key: Tensor, segments: Tensor, log_weights: Tensor, joint: Tensor) -> Tensor:
    """How much each position reads of each segment: (B, H, N, S), adding up to 1; arguments as above.

    With `joint` this localises a subject; blended it is u_s(n), which the weights alone decide.
    """
    scores, _, sums = _scores(query, key, segments, log_weights.shape[1])
    bias = _bias(sums, log_weights.to(scores.dtype), joint)
    return (sums + bias).exp().nan_to_num(0.0)


def _scores(query: Tensor, key: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, H, N, T), where tokens belong (B, S, T), and log-sum-exps by segment (B, H, N, S)."""
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(wide) * query.shape[-1] ** -0.5) @ key.to(wide).transpose(-1, -2)
    in_segment = segments.unsqueeze(1) == torch.arange(count, device=segments.device)[:, None]  # (B, S, T)
    sums = [
        scores.masked_fill(~in_segment[:, segment, None, None, :], float("-inf")).logsumexp(dim=-1)
        for segment in range(count)
    ]
    return scores, in_segment, torch.stack(sums, dim=-1)


def _bias(sums: Tensor, log_weights: Tensor, joint: Tensor) -> Tensor:
    """What is added to the scores of a segment's tokens: (B, H, N, S); minus infinity where it is not read."""
    weights = log_weights.transpose(1, 2).unsqueeze(1).expand_as(sums)  # (B, H, N, S)
    absent = sums.isneginf() | weights.isneginf()
    weights = weights.masked_fill(absent, float("-inf"))
    one_softmax = weights - (sums + weights).logsumexp(dim=-1, keepdim=True)
    blended = weights - weights.logsumexp(dim=-1, keepdim=True) - sums
    bias = torch.where(joint[:, None, None, None], one_softmax, blended)
    return bias.masked_fill(absent, float("-inf"))
