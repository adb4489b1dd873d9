"""The judge's network: a small residual convolutional network that looks at the subject and at its surroundings apart.

Legend: B pictures, s their side in pixels, c width of a level, D width of the identity embedding.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.factors import CLASSES
from benchmarks.showroom.products import SHAPE_PARAMETERS

_POSE_WIDTH: Final = 16
_SUBJECT_FACTORS: Final = ("class", "main colour", "accent colour", "pattern")


@dataclass(frozen=True)
class JudgeSize:
    """Sizes of the network.

    Attributes:
        picture_pixels: s, a multiple of 8.
        widths: Channels at s, s / 2, s / 4 and s / 8.
        identity: D.
    """

    picture_pixels: int = 64
    widths: tuple[int, int, int, int] = (16, 32, 64, 112)
    identity: int = 64


@dataclass(frozen=True)
class JudgeOutput:
    """What the network says of B pictures.

    Attributes:
        logits: (B, words) by factor, in the order of the words of `FACTORS`.
        mask_logits: (B, 1, s / 2, s / 2), of the foreground.
        identity: (B, D), of length 1.
        shape: (B, classes, shape parameters), the continuous shape as each class would read it.
        colours: (B, 6), linear RGB of main and accent colour.
    """

    logits: dict[str, Tensor]
    mask_logits: Tensor
    identity: Tensor
    shape: Tensor
    colours: Tensor


@torch.no_grad()
def look_twice(network: nn.Module, pixels: Tensor) -> JudgeOutput:
    """What a network says of pixels (B, 3, s, s), averaged with what it says of their mirror images."""
    output: JudgeOutput = network(torch.cat([pixels, pixels.flip(-1)]))
    seen, mirrored = output.mask_logits.chunk(2)
    return JudgeOutput(
        logits={
            name: torch.stack(logits.log_softmax(dim=1).chunk(2)).mean(dim=0) for name, logits in output.logits.items()
        },
        mask_logits=(seen + mirrored.flip(-1)) / 2,
        identity=functional.normalize(torch.stack(output.identity.chunk(2)).sum(dim=0), dim=1),
        shape=torch.stack(output.shape.chunk(2)).mean(dim=0),
        colours=torch.stack(output.colours.chunk(2)).mean(dim=0),
    )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, c, h, w) to the same shape."""
        inner = functional.relu(self.first_norm(self.first(features)))
        output: Tensor = functional.relu(features + self.second_norm(self.second(inner)))
        return output


class JudgeNetwork(nn.Module):
    """Features at three levels; foreground first, then each factor from the part of the picture that shows it."""

    def __init__(self, size: JudgeSize) -> None:
        super().__init__()
        self.size = size
        first, small, middle, large = size.widths
        self.fine = nn.Sequential(_convolution(3, first, 1), _convolution(first, small, 2), ResidualBlock(small))
        self.medium = nn.Sequential(_convolution(small, middle, 2), ResidualBlock(middle))
        self.coarse = nn.Sequential(_convolution(middle, large, 2), ResidualBlock(large), ResidualBlock(large))
        self.mask = nn.Conv2d(middle + large, 4, 3, padding=1)
        side = size.picture_pixels // 8
        self.pose = nn.Sequential(
            nn.Conv2d(large + 1, _POSE_WIDTH, 1), nn.ReLU(), nn.Flatten(), nn.Linear(_POSE_WIDTH * side * side, 6)
        )
        self.scene = nn.Linear(2 * large, len(FACTORS["scene"]))
        self.subject = nn.Sequential(nn.Linear(2 * large + middle, large), nn.ReLU())
        self.subject_heads = nn.ModuleList([nn.Linear(large, len(FACTORS[name])) for name in _SUBJECT_FACTORS])
        self.identity = nn.Linear(large, size.identity)
        self.shape = nn.Linear(size.identity, len(CLASSES) * SHAPE_PARAMETERS)
        self.colours = nn.Linear(size.identity, 6)

    def forward(self, pixels: Tensor) -> JudgeOutput:
        """Judge pixels (B, 3, s, s) in -1 to 1."""
        medium = self.medium(self.fine(pixels))  # (B, c, s / 4, s / 4)
        coarse = self.coarse(medium)  # (B, c, s / 8, s / 8)
        enlarged = functional.interpolate(coarse, scale_factor=2, mode="nearest")
        mask_logits = functional.pixel_shuffle(self.mask(torch.cat([medium, enlarged], dim=1)), 2).float()
        # What is pooled must not change the mask to suit itself.
        cover = mask_logits.detach().sigmoid()
        cover_medium, cover_coarse = functional.avg_pool2d(cover, 2), functional.avg_pool2d(cover, 4)
        coarse, medium = coarse.float(), medium.float()
        inside, around = _pooled(coarse, cover_coarse), _pooled(coarse, 1 - cover_coarse)
        most = (coarse * cover_coarse).amax(dim=(2, 3))
        subject = self.subject(torch.cat([inside, most, _pooled(medium, cover_medium)], dim=1))
        raw_identity = self.identity(subject).float()
        logits = {name: head(subject) for name, head in zip(_SUBJECT_FACTORS, self.subject_heads, strict=True)}
        logits["pose"] = self.pose(torch.cat([coarse, cover_coarse], dim=1))
        logits["scene"] = self.scene(torch.cat([around, coarse.mean(dim=(2, 3))], dim=1))
        return JudgeOutput(
            logits={name: logits[name].float() for name in FACTORS},
            mask_logits=mask_logits,
            identity=functional.normalize(raw_identity, dim=1),
            shape=self.shape(raw_identity).float().view(-1, len(CLASSES), SHAPE_PARAMETERS),
            colours=self.colours(raw_identity).float(),
        )


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _pooled(features: Tensor, cover: Tensor) -> Tensor:
    """Mean (B, c) of features (B, c, h, w) weighted by a cover (B, 1, h, w); an empty cover gives about 0."""
    return (features * cover).sum(dim=(2, 3)) / (cover.sum(dim=(2, 3)) + 1e-3)
