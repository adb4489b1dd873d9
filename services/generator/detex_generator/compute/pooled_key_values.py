"""Keys and values of a batch in one pool for each layer: nothing is filled up, and rows name what they read.

Legend: R rows of a UNet pass, T tokens of a row, L tokens of the pool, H heads, D head dim, N image positions, P pages
of a row, S segments of a row, W width of the pooled text embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from detex_diffusion.conditioning import PromptKeyValues, stacked_pooled_text
from detex_diffusion.regions import RegionalKeyValues, RegionMode
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Operation
from detex_generator.ops.segmented_attention import PageLayout, segmented_attention


@dataclass(frozen=True)
class PoolSize:
    """What tensors of a pool depend on; pools of one size can take each other's place in a CUDA graph.

    Attributes:
        rows: R.
        tokens: L.
        pages: P.
        segments: S.
        blended: Whether a row may be blended.
        weighted: Whether segments have log-weights.
    """

    rows: int
    tokens: int
    pages: int
    segments: int
    blended: bool
    weighted: bool

    def rounded(self, rows: int) -> Self:
        """A size with room for this one that few sizes are rounded to.

        Args:
            rows: Its rows, at least R.
        """
        return type(self)(
            rows, _power(self.tokens), _power(self.pages), _power(self.segments), self.blended, self.weighted
        )


@dataclass(frozen=True, eq=False)
class PooledKeyValues:
    """Keys and values of R rows, read by segmented attention.

    Attributes:
        size: Sizes of all tensors.
        layers: By cross-attention layer, K and V, each (L, H, D).
        layout: What each row reads.
        log_weights: (R, S, N) float32 by N; empty where no row has regions.
        choice: Decides by what it is read.
        pooled_text: (R, W), pooled text embeddings where the UNet takes them, zeros in rows that are not there.
    """

    size: PoolSize
    layers: Mapping[str, tuple[Tensor, Tensor]]
    layout: PageLayout
    log_weights: Mapping[int, Tensor]
    choice: KernelChoice
    pooled_text: Tensor | None = None

    @property
    def rows(self) -> int:
        """R."""
        return self.size.rows

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in an order that depends on the size alone."""
        pairs = [tensor for pair in self.layers.values() for tensor in pair]
        layout = (self.layout.starts, self.layout.lengths, self.layout.segments, self.layout.joint)
        pooled_text = [] if self.pooled_text is None else [self.pooled_text]
        weights = [self.log_weights[positions] for positions in sorted(self.log_weights)]
        return [*pairs, *layout, *weights, *pooled_text]

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[PromptKeyValues], choice: KernelChoice, *, rows: int | None = None, rounded: bool = False
    ) -> Self:
        """One row for each prompt, and further rows that read nothing.

        Args:
            prompts: One at least; those with regions have the attention maps of one picture size.
            choice: Decides by what it is read.
            rows: R, at least the number of prompts; that number where absent.
            rounded: Whether sizes are rounded up, so that few of them occur.

        Raises:
            ValueError: There are more prompts than rows.
        """
        rows = len(prompts) if rows is None else rows
        if len(prompts) > rows:
            raise ValueError(f"{len(prompts)} prompts do not fit into {rows} rows")
        texts = [_Text.of(prompt) for prompt in prompts]
        placed = [text.regional for text in texts if text.regional is not None]
        size = PoolSize(
            rows,
            sum(text.tokens for text in texts),
            max(len(text.pages) for text in texts),
            max(text.segments for text in texts),
            any(regional.mode is RegionMode.BLEND for regional in placed),
            bool(placed),
        )
        size = size.rounded(rows) if rounded else size
        starts = [sum(text.tokens for text in texts[:index]) for index in range(len(texts))]
        pages = [
            [(start + offset, length, segment) for offset, length, segment in text.pages]
            for start, text in zip(starts, texts, strict=True)
        ]
        joint = [text.regional is None or text.regional.mode is RegionMode.JOINT for text in texts]
        missing = rows - len(prompts)
        first_key = next(iter(texts[0].layers.values()))[0]
        found = PageLayout.of_rows(
            pages + [[]] * missing,
            joint + [True] * missing,
            pages=size.pages,
            count=size.segments,
            device=first_key.device,
        )
        # A blended variant may have to serve rows that are all joint, where a graph is to be captured for both.
        layout = PageLayout(found.starts, found.lengths, found.segments, found.joint, found.count, size.blended)
        layers = {
            name: (
                _pool([text.layers[name][0] for text in texts], size.tokens),
                _pool([text.layers[name][1] for text in texts], size.tokens),
            )
            for name in texts[0].layers
        }
        pooled_text = stacked_pooled_text(prompts)
        if pooled_text is not None:
            pooled_text = functional.pad(pooled_text, (0, 0, 0, missing))
        return cls(size, layers, layout, _log_weights(texts, size, first_key.device), choice, pooled_text)

    def attend(self, layer: str, query: Tensor) -> Tensor:
        """What a layer reads.

        Args:
            layer: Name of the cross-attention layer.
            query: (R, H, N, D).

        Returns:
            (R, H, N, D).
        """
        implementation = self.choice.take(Operation.SEGMENTED_ATTENTION, head_dim=query.shape[-1])
        key, value = self.layers[layer]
        weights = self.log_weights[query.shape[2]] if self.size.weighted else None
        positions_first = query.transpose(1, 2)
        return segmented_attention(positions_first, key, value, self.layout, weights, implementation).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class _Text:
    """What one row reads: its keys and values with tokens sorted by segment, and pages of (offset, tokens, segment)."""

    layers: Mapping[str, tuple[Tensor, Tensor]]
    pages: list[tuple[int, int, int]]
    regional: RegionalKeyValues | None

    @property
    def tokens(self) -> int:
        return sum(length for _, length, _ in self.pages)

    @property
    def segments(self) -> int:
        return 1 if self.regional is None else len(next(iter(self.regional.log_weights.values())))

    @classmethod
    def of(cls, prompt: PromptKeyValues) -> "_Text":
        if prompt.regional is None:
            return cls(prompt.layers, [(0, prompt.tokens, 0)], None)
        order = prompt.regional.segments.argsort(stable=True)
        layers = {name: (key[:, order], value[:, order]) for name, (key, value) in prompt.regional.layers.items()}
        pages, offset = [], 0
        for segment, tokens in groupby(prompt.regional.segments[order].tolist()):
            length = len(list(tokens))
            pages.append((offset, length, segment))
            offset += length
        return cls(layers, pages, prompt.regional)


def _pool(parts: Sequence[Tensor], tokens: int) -> Tensor:
    """Parts (H, T, D) one after the other as (L, H, D); zeros after them."""
    heads, _, head_dim = parts[0].shape
    pool = parts[0].new_zeros(tokens, heads, head_dim)
    pool[: sum(part.shape[1] for part in parts)] = torch.cat([part.transpose(0, 1) for part in parts])
    return pool


def _log_weights(texts: Sequence[_Text], size: PoolSize, device: torch.device) -> dict[int, Tensor]:
    """(R, S, N) by N. Segments of rows without regions count 0 everywhere; those that a row lacks are never read."""
    maps = [text.regional.log_weights for text in texts if text.regional is not None]
    weights = {
        positions: torch.zeros(size.rows, size.segments, positions, device=device)
        for positions in sorted(set().union(*maps))
    }
    for row, text in enumerate(texts):
        if text.regional is not None:
            for positions, own in text.regional.log_weights.items():
                weights[positions][row, : len(own)] = own
    return weights


def _power(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
