"""Random concepts of some weight, for tests."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from detex_core.artifact import Attribute, Manifest
from detex_core.artifact.manifest import concept_version
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Scope, key_value_form
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import PROJECTIONS, FullDelta, LayerDelta
from detex_diffusion.key_value_vectors import LayerVectors


def random_concept(
    base_model: BaseModel,
    seed: int,
    *,
    class_word: str = "mug",
    scope: Scope = "words",
    attributes: Sequence[str] = ("pose", "background"),
    photos: int = 4,
    subject_tokens: int = 1,
    subject_vectors: bool = False,
) -> Concept:
    """Deltas half as large as the weights, and vectors as large as keys and values, so that a forgotten one shows."""
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
        subject_key_value={
            name: LayerVectors(
                *(
                    torch.randn(subject_tokens, getattr(module, projection).out_features, generator=generator)
                    for projection in PROJECTIONS
                )
            )
            for name, module in cross_attention_layers(base_model.unet).items()
        }
        if subject_vectors
        else {},
        scope=scope,
    )


def manifest_of(base_model: BaseModel, concept: Concept, data: bytes, **changes: Any) -> Manifest:
    sha256 = hashlib.sha256(data).hexdigest()
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    values: dict[str, Any] = {
        "name": "my-mug",
        "version": concept_version(moment, sha256),
        "tenant": "test",
        "method": "detex",
        "base_model": base_model.name,
        "base_model_fingerprint": base_model.fingerprint,
        "class_word": concept.class_word,
        "subject_tokens": concept.subject_tokens,
        "embedding_width": base_model.embedding_width,
        "attributes": tuple(Attribute(name=n, count=c) for n, c in concept.attribute_counts.items()),
        "key_value": key_value_form(concept),
        "dtype": "float16",
        "files": {"concept.safetensors": {"size_bytes": len(data), "sha256": sha256}},
        "training_set_digest": "0" * 64,
        "hyperparameters": {},
        "metrics": {},
        "trainer_version": "test",
        "create_time": moment,
    }
    return Manifest.model_validate({**values, **changes})
