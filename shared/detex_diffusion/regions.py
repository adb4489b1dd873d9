"""Places of subjects in a picture, and text that is read in its place alone.

Legend: H and W picture height and width in pixels, S segments (0 the scene, then one per subject), T tokens of a row,
N positions of an attention map, D head dim, B rows of a batch, R those of them that have regions.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from detex_diffusion.segmented_attention import segmented_attention

EDGE = 1 / 16
"""Width of a box's soft edge, as a share of the picture's side; half of it lies outside of the box."""

SCENE_SHARE = 0.15
"""How much of the whole prompt is read inside of a region, for 1 of the subject's own prompt, where blended."""

_FAINTEST = 1e-3  # a subject is not read where less than this of a position lies in its region


class RegionMode(StrEnum):
    """How a prompt is read where subjects have places.

    Blended, each region has a prompt of its own and the attention over them is mixed in space. Joint, the one prompt is
    read in one softmax, in which the words of a subject are there inside its region alone.
    """

    BLEND = "blend"
    JOINT = "joint"


@dataclass(frozen=True)
class Box:
    """A rectangle in shares of the picture's sides, 0 to 1: left < right and top < bottom."""

    left: float
    top: float
    right: float
    bottom: float


def box_coverage(box: Box, height: int, width: int) -> Tensor:
    """How far each pixel lies in a box: (H, W) float32 in 0 to 1; soft edges, but for those on the picture's border."""
    across = _ramps(box.left, box.right, width)
    down = _ramps(box.top, box.bottom, height)
    return torch.minimum(down.unsqueeze(1), across.unsqueeze(0))


def mask_coverage(mask: Image.Image, height: int, width: int) -> Tensor:
    """A grey picture of any size as coverage of the pixels: (H, W) float32, white is 1; scaled to fit where needed."""
    scaled = mask.convert("L").resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(scaled, dtype=np.float32) / 255)


def log_weight_maps(
    coverages: Sequence[Tensor], weights: Sequence[float], sizes: Collection[tuple[int, int]], mode: RegionMode
) -> dict[int, Tensor]:
    """How much each segment counts at each position of the attention maps.

    A subject counts by its coverage times its weight. The scene counts 1 everywhere where the prompt is read in one
    softmax; blended, it counts what no subject covers, and `SCENE_SHARE` at least.

    Args:
        coverages: (H, W) in 0 to 1 for each subject.
        weights: One for each subject, greater than 0.
        sizes: Heights and widths of the attention maps, those of `cross_attention.cross_attention_sizes`.
        mode: How the prompt is read.

    Returns:
        (S, N) float32 log-weights by N, minus infinity where a subject is not read.
    """
    stacked = torch.stack(list(coverages)).unsqueeze(0)  # (1, S - 1, H, W)
    factors = torch.tensor(list(weights), dtype=torch.float32)[:, None]
    maps = {}
    for height, width in set(sizes):
        coverage = functional.adaptive_avg_pool2d(stacked, (height, width))[0].flatten(1)  # (S - 1, N)
        coverage = torch.where(coverage < _FAINTEST, 0.0, coverage)
        scene = torch.ones_like(coverage[:1])
        if mode is RegionMode.BLEND:
            scene = (1 - coverage.sum(dim=0, keepdim=True)).clamp(min=SCENE_SHARE)
        maps[height * width] = torch.cat([scene, coverage * factors]).log()
    return maps


@dataclass(frozen=True, eq=False)
class RegionalKeyValues:
    """Keys and values of one prompt whose subjects have places.

    Attributes:
        layers: By cross-attention layer, K and V, each (heads, T, D).
        segments: (T,) int64, the segment of each token.
        log_weights: (S, N) float32 by N, as `log_weight_maps` gives them.
        mode: How the segments are read.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    segments: Tensor
    log_weights: Mapping[int, Tensor]
    mode: RegionMode

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        pairs = [tensor for pair in self.layers.values() for tensor in pair]
        return sum(t.numel() * t.element_size() for t in (*pairs, *self.log_weights.values(), self.segments))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "RegionalKeyValues":
        """The same on another device, keys and values of another type."""
        return RegionalKeyValues(
            {
                name: (k.to(device=device, dtype=dtype), v.to(device=device, dtype=dtype))
                for name, (k, v) in self.layers.items()
            },
            self.segments.to(device),
            {positions: weights.to(device) for positions, weights in self.log_weights.items()},
            self.mode,
        )


@dataclass(frozen=True, eq=False)
class RegionalRows:
    """Those rows of a batch that have regions; the other rows are not touched by them.

    Attributes:
        rows: (R,) int64, which rows of the batch.
        layers: By cross-attention layer, K and V, each (R, heads, T, D).
        segments: (R, T) int64, -1 where a shorter row is filled up.
        log_weights: (R, S, N) float32 by N; minus infinity for segments that a row does not have.
        joint: (R,) bool, True where all segments are read in one softmax.
    """

    rows: Tensor
    layers: Mapping[str, tuple[Tensor, Tensor]]
    segments: Tensor
    log_weights: Mapping[int, Tensor]
    joint: Tensor

    @classmethod
    def stack(cls, rows: Sequence[int], prompts: Sequence[RegionalKeyValues]) -> "RegionalRows":
        """Put rows together; all have the attention maps of one picture size."""
        tokens = max(len(prompt.segments) for prompt in prompts)
        device = prompts[0].segments.device
        layers = {}
        for name in prompts[0].layers:
            pairs = [prompt.layers[name] for prompt in prompts]
            layers[name] = (
                torch.stack([_filled(key, tokens) for key, _ in pairs]),
                torch.stack([_filled(value, tokens) for _, value in pairs]),
            )
        segments = [functional.pad(prompt.segments, (0, tokens - len(prompt.segments)), value=-1) for prompt in prompts]
        count = max(len(next(iter(prompt.log_weights.values()))) for prompt in prompts)
        return cls(
            rows=torch.tensor(rows, device=device),
            layers=layers,
            segments=torch.stack(segments),
            log_weights={
                positions: torch.stack([_with_segments(prompt.log_weights[positions], count) for prompt in prompts])
                for positions in prompts[0].log_weights
            },
            joint=torch.tensor([prompt.mode is RegionMode.JOINT for prompt in prompts], device=device),
        )

    def attend(self, layer: str, query: Tensor, attended: Tensor) -> Tensor:
        """What a layer reads: `attended` (B, heads, N, D) with the rows that have regions put in their place.

        Args:
            layer: Name of the cross-attention layer.
            query: (B, heads, N, D).
            attended: (B, heads, N, D), as without regions.
        """
        key, value = self.layers[layer]
        regional = segmented_attention(
            query[self.rows], key, value, self.segments, self.log_weights[query.shape[2]], self.joint
        )
        return attended.index_copy(0, self.rows, regional)


def blended_key_values(
    scene: Mapping[str, tuple[Tensor, Tensor]],
    subjects: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
    log_weights: Mapping[int, Tensor],
) -> RegionalKeyValues:
    """The whole prompt as the scene, and a prompt for each region.

    Args:
        scene: Keys and values (heads, T, D) of the whole prompt, by layer.
        subjects: Those of each region's prompt.
        log_weights: (S, N) by N.
    """
    texts = [scene, *subjects]
    layers = {
        name: (torch.cat([text[name][0] for text in texts], dim=1), torch.cat([text[name][1] for text in texts], dim=1))
        for name in scene
    }
    lengths = [next(iter(text.values()))[0].shape[1] for text in texts]
    segments = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths))
    return _placed(layers, segments, log_weights, RegionMode.BLEND)


def joint_key_values(
    prompt: Mapping[str, tuple[Tensor, Tensor]], segments: Tensor, log_weights: Mapping[int, Tensor]
) -> RegionalKeyValues:
    """One prompt, in which each token belongs to a segment.

    Args:
        prompt: Keys and values (heads, T, D), by layer.
        segments: (T,) int64.
        log_weights: (S, N) by N.
    """
    return _placed(prompt, segments, log_weights, RegionMode.JOINT)


def _placed(
    layers: Mapping[str, tuple[Tensor, Tensor]],
    segments: Tensor,
    log_weights: Mapping[int, Tensor],
    mode: RegionMode,
) -> RegionalKeyValues:
    device = next(iter(layers.values()))[0].device
    return RegionalKeyValues(layers, segments, log_weights, mode).to(device)


def _ramps(start: float, end: float, pixels: int) -> Tensor:
    """How far the pixels of a side lie between start and end: (pixels,)."""
    centres = (torch.arange(pixels, dtype=torch.float32) + 0.5) / pixels
    from_start = torch.ones_like(centres) if start <= 0 else ((centres - start) / EDGE + 0.5).clamp(0, 1)
    from_end = torch.ones_like(centres) if end >= 1 else ((end - centres) / EDGE + 0.5).clamp(0, 1)
    return torch.minimum(from_start, from_end)


def _filled(tensor: Tensor, tokens: int) -> Tensor:
    return functional.pad(tensor, (0, 0, 0, tokens - tensor.shape[1]))


def _with_segments(log_weights: Tensor, count: int) -> Tensor:
    return functional.pad(log_weights, (0, 0, 0, count - len(log_weights)), value=float("-inf"))
