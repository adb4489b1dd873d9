"""Attribute mappers: from a photo's feature to the embedding of its attribute word.

Shapes: N photos, F width of the image encoder's feature, E width of word embeddings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MapperShape:
    """Form of a mapper.

    Attributes:
        depth: Linear layers, at least 1.
        width: Width of the hidden layers.
        fixed_norm: Scale each output to the norm of what it begins at (as NeTI, Alaluf et al., 2023): the word can
            then not grow until it drowns its neighbours.
    """

    depth: int = 2
    width: int = 256
    fixed_norm: bool = False


class FeatureNormalization(nn.Module):
    """Brings the features of one training set to mean 0 and deviation 1 over its photos.

    The photos of one subject resemble each other: their raw features point almost the same way, and what sets one photo
    apart, which is what an attribute word shall carry, is a small rest. One photo alone becomes zeros.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor) -> None:
        """`features`: (N, F) of the photos as they are, without augmentation."""
        super().__init__()
        self.register_buffer("mean", features.mean(dim=0))
        # one deviation for all components: a component that hardly varies shall not be blown up into noise
        deviation = (features - features.mean(dim=0)).square().mean().sqrt()
        self.register_buffer("deviation", deviation.clamp_min(1e-6))

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) to (..., F)."""
        return (features - self.mean) / self.deviation


class AttributeMapper(nn.Module):
    """A multilayer perceptron whose output for each photo begins at an embedding of that photo's own."""

    starts: Tensor
    scale: Tensor
    paces: Tensor

    def __init__(
        self,
        feature_width: int,
        starts: Tensor,
        shape: MapperShape,
        generator: torch.Generator,
        paces: Tensor | None = None,
    ) -> None:
        """Initialise.

        Args:
            feature_width: F.
            starts: (N, E) embeddings to begin at, for example of plain words that describe the photos.
            shape: Form of the mapper.
            generator: Source of the initial weights.
            paces: (N, 1) how fast each photo's embedding moves away from its start; by default all at 1.
        """
        super().__init__()
        self.shape = shape
        self.register_buffer("starts", starts.detach().clone())
        widths = [feature_width, *[shape.width] * (shape.depth - 1), int(starts.shape[1])]
        layers: list[nn.Module] = []
        for i in range(shape.depth):
            linear = nn.Linear(widths[i], widths[i + 1])
            bound = widths[i] ** -0.5
            with torch.no_grad():
                is_last = i == shape.depth - 1
                linear.weight.zero_() if is_last else linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.zero_()
            layers += [linear] if is_last else [linear, nn.GELU()]
        self.layers = nn.Sequential(*layers)
        # the perceptron works in units of the words' size: word embeddings are of very different scale between models
        self.register_buffer("scale", starts.detach().square().mean().sqrt().clamp_min(1e-6))
        # Follows from where the words begin, so that no checkpoint needs it.
        self.register_buffer("paces", torch.ones(len(starts), 1) if paces is None else paces, persistent=False)

    def forward(self, features: Tensor, photos: Tensor) -> Tensor:
        """Map normalised features (..., F) of the photos at positions (...) of the set to word embeddings (..., E)."""
        starts = self.starts[photos]
        embeddings: Tensor = starts + self.scale * self.paces[photos] * self.layers(features)
        if self.shape.fixed_norm:
            norms = starts.norm(dim=-1, keepdim=True)
            embeddings = embeddings * (norms / embeddings.norm(dim=-1, keepdim=True).clamp_min(1e-6))
        return embeddings
