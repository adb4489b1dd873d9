"""Random concepts of some weight, for tests."""

from collections.abc import Sequence

import torch

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Scope
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import FullDelta, LayerDelta


def random_concept(
    base_model: BaseModel,
    seed: int,
    *,
    class_word: str = "mug",
    scope: Scope = "words",
    attributes: Sequence[str] = ("pose", "background"),
    photos: int = 4,
    subject_tokens: int = 1,
) -> Concept:
    """Deltas half as large as the weights, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    width = base_model.embedding_width

    def delta(weight: torch.Tensor) -> FullDelta:
        return FullDelta(0.5 * weight.std() * torch.randn(weight.shape, generator=generator))

    return Concept(
        reference=f"test/concept-{seed}",
        class_word=class_word,
        subject=torch.randn(subject_tokens, width, generator=generator),
        attributes={name: torch.randn(photos, width, generator=generator) for name in attributes},
        key_value={
            name: LayerDelta(delta(module.to_k.weight), delta(module.to_v.weight))
            for name, module in cross_attention_layers(base_model.unet).items()
        },
        scope=scope,
    )
