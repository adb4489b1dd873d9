"""The network: features of the product and of its surroundings, and a reader that looks at the badge straight on.

The corners of the badge are found as the means of four heat maps; what lies between them is then taken from the picture
at full resolution as the badge's own frame shows it (a spatial transformer, Jaderberg et al. 2015, arXiv 1506.02025,
supervised here by where the corners are).

Legend: B pictures, s their side in pixels, D width of the identity embedding.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.judge.network import ResidualBlock
from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.factors import CLASSES
from benchmarks.showroom.products import SHAPE_PARAMETERS
from benchmarks.showroom.products.profile import PROFILE_PARAMETERS
from benchmarks.showroom.subject import BADGE_SIDE

SHAPE_WIDTH: Final = SHAPE_PARAMETERS + PROFILE_PARAMETERS
VARIANT_WORDS: Final = (3, 2, 4)
"""Directions, counts and phases of a pattern."""
_READER_SIDE: Final = 4 * 6  # six samples a cell; the rim is half a cell on each side
_SURROUNDED: Final = ("pose", "scene")


@dataclass(frozen=True)
class IdentityJudgeSize:
    """Sizes.

    Attributes:
        picture_pixels: s, a multiple of 16.
        widths: Channels at s / 2, s / 4, s / 8 and s / 16.
        identity: D.
    """

    picture_pixels: int = 128
    widths: tuple[int, int, int, int] = (24, 48, 88, 128)
    identity: int = 96


@dataclass(frozen=True, eq=False)
class IdentityOutput:
    """What the network says of B pictures.

    Attributes:
        logits: (B, words) by factor.
        mask_logits: (B, 1, s / 4, s / 4).
        identity: (B, D), of length 1.
        shape: (B, classes, shape and profile parameters), as each class would read it.
        variants: (B, words) for direction, count and phase of the pattern.
        colours: (B, 6) L*a*b* / 100 of main and accent colour.
        corners: (B, 4, 2), where the badge's corners are if there is one.
        badge_logits: (B,), whether there is one.
        bit_logits: (B, 9), its cells.
    """

    logits: dict[str, Tensor]
    mask_logits: Tensor
    identity: Tensor
    shape: Tensor
    variants: tuple[Tensor, ...]
    colours: Tensor
    corners: Tensor
    badge_logits: Tensor
    bit_logits: Tensor


class IdentityJudgeNetwork(nn.Module):
    """See the module."""

    def __init__(self, size: IdentityJudgeSize) -> None:
        super().__init__()
        self.size = size
        first, second, third, fourth = size.widths
        side = size.picture_pixels // 16
        self.fine = nn.Sequential(_convolution(3, first, 2), ResidualBlock(first))
        self.medium = nn.Sequential(_convolution(first, second, 2), ResidualBlock(second))
        self.coarse = nn.Sequential(_convolution(second, third, 2), ResidualBlock(third))
        self.whole = nn.Sequential(_convolution(third, fourth, 2), ResidualBlock(fourth), ResidualBlock(fourth))
        self.narrow = nn.Sequential(nn.Conv2d(fourth, 16, 1), nn.ReLU(), nn.Flatten())
        self.layout = nn.Sequential(nn.Linear(16 * side * side, 128), nn.ReLU())
        self.dense = nn.Sequential(_convolution(second + third + fourth, 64, 1), ResidualBlock(64))
        self.mask = nn.Conv2d(64, 1, 1)
        self.told = nn.Linear(128, 64)
        self.heat = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 1))
        self.reader = nn.Sequential(
            _convolution(3, 32, 1), _convolution(32, 48, 2), ResidualBlock(48), _convolution(48, 48, 2), nn.Flatten()
        )
        self.read = nn.Sequential(nn.Linear(48 * (_READER_SIDE // 4) ** 2, 128), nn.ReLU())
        self.bits = nn.Linear(128, BADGE_SIDE**2)
        self.subject = nn.Sequential(nn.Linear(2 * fourth + third + second + 128, 256), nn.ReLU())
        self.badge = nn.Linear(256 + 128, 1)
        self.factors = nn.ModuleDict(
            {
                name.replace(" ", "_"): nn.Linear(256 + (fourth if name in _SURROUNDED else 0), len(words))
                for name, words in FACTORS.items()
            }
        )
        self.shape = nn.Linear(256, len(CLASSES) * SHAPE_WIDTH)
        self.variants = nn.ModuleList([nn.Linear(256, words) for words in VARIANT_WORDS])
        self.colours = nn.Linear(256, 6)
        self.identity = nn.Sequential(nn.Linear(256 + 128, 192), nn.ReLU(), nn.Linear(192, size.identity))

    def forward(self, pixels: Tensor, look_at: Tensor | None = None) -> IdentityOutput:
        """Judge pixels (B, 3, s, s) in -1 to 1.

        Args:
            pixels: The pictures.
            look_at: (B, 4, 2) corners to read the badge at; None, or nan in a row, for those that are found.
        """
        medium = self.medium(self.fine(pixels))
        coarse = self.coarse(medium)
        whole = self.whole(coarse)
        layout = self.layout(self.narrow(whole))
        levels = [functional.interpolate(each, size=medium.shape[2:], mode="bilinear") for each in (coarse, whole)]
        dense = self.dense(torch.cat([medium, *levels], dim=1))
        mask_logits = self.mask(dense).float()
        # Which corner is which follows from how the whole product lies.
        corners = _means(self.heat(dense + self.told(layout)[:, :, None, None]).float())
        frame = corners.detach()
        if look_at is not None:
            frame = torch.where(look_at.isnan(), frame, look_at)
        read = self.read(self.reader(straight(pixels, frame)))
        cover = mask_logits.detach().sigmoid()
        inside = functional.avg_pool2d(cover, 4)
        parts = [
            _pooled(whole, inside),
            (whole.float() * inside).amax(dim=(2, 3)),
            _pooled(coarse, functional.avg_pool2d(cover, 2)),
            _pooled(medium, cover),
            layout,
        ]
        subject = self.subject(torch.cat(parts, dim=1))
        around = _pooled(whole, 1 - inside)
        with_badge = torch.cat([subject, read], dim=1)
        logits = {}
        for name in FACTORS:
            seen = torch.cat([subject, around], dim=1) if name in _SURROUNDED else subject
            logits[name] = self.factors[name.replace(" ", "_")](seen).float()
        return IdentityOutput(
            logits=logits,
            mask_logits=mask_logits,
            identity=functional.normalize(self.identity(with_badge).float(), dim=1),
            shape=self.shape(subject).float().view(-1, len(CLASSES), SHAPE_WIDTH),
            variants=tuple(head(subject).float() for head in self.variants),
            colours=self.colours(subject).float(),
            corners=corners,
            badge_logits=self.badge(with_badge).float()[:, 0],
            bit_logits=self.bits(read).float(),
        )


def straight(pixels: Tensor, corners: Tensor) -> Tensor:
    """What lies between four corners (B, 4, 2) of pixels (B, 3, s, s), as (B, 3, 24, 24): upper left corner first."""
    steps = (torch.arange(_READER_SIDE, device=pixels.device) + 0.5) / _READER_SIDE
    across, down = steps[None, None, :, None], steps[None, :, None, None]
    upper_left, upper_right, lower_left, lower_right = corners[:, :, None, None].unbind(dim=1)
    upper = upper_left + (upper_right - upper_left) * across
    lower = lower_left + (lower_right - lower_left) * across
    return functional.grid_sample(
        pixels.float(), upper + (lower - upper) * down, padding_mode="border", align_corners=False
    )


def _means(heat: Tensor) -> Tensor:
    """Mean position (B, c, 2) of each heat map of (B, c, h, w), from -1 to 1 to the right and downwards."""
    rows, maps, height, width = heat.shape
    share = heat.flatten(2).softmax(dim=2).view(rows, maps, height, width)
    x = (torch.arange(width, device=heat.device) + 0.5) / width * 2 - 1
    y = (torch.arange(height, device=heat.device) + 0.5) / height * 2 - 1
    return torch.stack([(share.sum(dim=2) * x).sum(dim=2), (share.sum(dim=3) * y).sum(dim=2)], dim=2)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _pooled(features: Tensor, cover: Tensor) -> Tensor:
    return (features.float() * cover).sum(dim=(2, 3)) / (cover.sum(dim=(2, 3)) + 1e-3)
