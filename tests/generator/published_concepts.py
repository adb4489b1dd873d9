"""Concepts of random weights, published in a folder store as the trainer publishes them."""

import torch

from detex_core.artifact import CONCEPT_FILE, Attribute, ConceptDraft, StoredManifest, publish_concept
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, compress, key_value_form, unet_form
from detex_diffusion.concept_file import save_concept
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import FullDelta, LayerDelta


def random_concept(
    base_model: BaseModel, seed: int, *, class_word: str = "mug", photos: int = 3, delta_scale: float = 0.5
) -> Concept:
    """A concept with pose and background words and a delta of every projection."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    width = base_model.embedding_width
    return Concept(
        reference=f"random {seed}",
        class_word=class_word,
        subject=normal(1, width),
        attributes={"pose": normal(photos, width), "background": normal(photos, width)},
        key_value={
            name: LayerDelta(
                to_k=FullDelta(delta_scale * normal(*module.to_k.weight.shape)),
                to_v=FullDelta(delta_scale * normal(*module.to_v.weight.shape)),
            )
            for name, module in cross_attention_layers(base_model.unet).items()
        },
    )


def publish(
    store: ObjectStore,
    base_model: BaseModel,
    name: str,
    concept: Concept,
    *,
    tenant: str = "default",
    low_rank: bool = False,
) -> StoredManifest:
    """Publish a new version of a concept."""
    energy_kept = 1.0
    if low_rank:
        concept, energy_kept = compress(concept, 0.999, 4)
    draft = ConceptDraft(
        name=name,
        tenant=tenant,
        method="dreambooth" if concept.unet_delta else "detex",
        base_model=base_model.name,
        base_model_fingerprint=base_model.fingerprint,
        class_word=concept.class_word,
        subject_tokens=concept.subject_tokens,
        embedding_width=base_model.embedding_width,
        attributes=tuple(Attribute(name=n, count=count) for n, count in concept.attribute_counts.items()),
        key_value=key_value_form(concept, energy_kept),
        unet=unet_form(concept, energy_kept),
        dtype="float32",
        training_set_digest="0" * 64,
        hyperparameters={},
        metrics={},
        trainer_version="0",
    )
    return publish_concept(store, draft, {CONCEPT_FILE: save_concept(concept, torch.float32), "report.json": b"{}"})
