"""What a concept adds to the keys and values of its subject's own tokens: a vector each in every layer.

A word embedding reaches a layer through the text encoder and the layer's projections, which leave it little room: what
no word of the base model says, such as the colour of a collar, cannot be reached through them. A vector added to the
key and to the value of the subject's token is in no such narrows, and changes no other token. It is P+'s word per layer
(Voynov et al., 2023, arXiv 2303.09522) taken one step further, behind the projections.

Legend: S subject tokens, O output width of a projection.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detex_diffusion.key_value_delta import PROJECTIONS


@dataclass(frozen=True, eq=False)
class LayerVectors:
    """What is added to the keys and values of the subject's tokens in one layer; may be parameters in training.

    Attributes:
        to_k: (S, O).
        to_v: (S, O).
    """

    to_k: Tensor
    to_v: Tensor

    def projections(self) -> Iterator[tuple[str, Tensor]]:
        """Both, by the name of the projection that they are added to."""
        yield from zip(PROJECTIONS, (self.to_k, self.to_v), strict=True)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "LayerVectors":
        """The same on another device or of another type."""
        return LayerVectors(*(tensor.to(device=device, dtype=dtype) for _, tensor in self.projections()))


KeyValueVectors = Mapping[str, LayerVectors]
"""By the name of the cross-attention module in the UNet."""
