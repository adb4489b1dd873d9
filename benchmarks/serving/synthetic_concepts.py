"""Concepts of random weights, as large as trained ones, published as the trainer publishes them.

What they look like is of no matter here: serving costs depend on sizes alone.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detex_core import __version__
from detex_core.artifact import CONCEPT_FILE, Attribute, ConceptDraft, publish_concept
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, key_value_form
from detex_diffusion.concept_file import save_concept
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import LayerDelta, LowRankDelta

RANK = 16
PHOTOS = 4
CLASS_WORD = "mug"
_DELTA_SIZE = 0.02


def concept_name(index: int) -> str:
    """Name of a synthetic concept."""
    return f"product-{index}"


def synthetic_concept(base_model: BaseModel, seed: int) -> Concept:
    """A concept with a subject word, pose and background words of four photos, and deltas of rank 16 of every layer."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = base_model.text_encoder.get_input_embeddings().weight
    scale = float(embeddings.float().std())

    def normal(rows: int, columns: int, size: float) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * size

    def delta(projection: Any) -> LowRankDelta:
        weight = projection.weight
        rows, columns = weight.shape
        return LowRankDelta(
            up=normal(rows, RANK, _DELTA_SIZE), down=normal(RANK, columns, 1.0) * float(weight.float().std())
        )

    width = base_model.embedding_width
    return Concept(
        reference=f"synthetic {seed}",
        class_word=CLASS_WORD,
        subject=normal(1, width, scale),
        attributes={name: normal(PHOTOS, width, scale) for name in ("pose", "background")},
        key_value={
            name: LayerDelta(to_k=delta(module.to_k), to_v=delta(module.to_v))
            for name, module in cross_attention_layers(base_model.unet).items()
        },
    )


def publish_concepts(store: ObjectStore, base_model: BaseModel, indices: Sequence[int]) -> dict[str, Concept]:
    """Publish synthetic concepts; returns them by name."""
    concepts = {concept_name(index): synthetic_concept(base_model, index) for index in indices}
    for name, concept in concepts.items():
        draft = ConceptDraft(
            name=name,
            tenant="default",
            method="detex",
            base_model=base_model.name,
            base_model_fingerprint=base_model.fingerprint,
            class_word=concept.class_word,
            subject_tokens=concept.subject_tokens,
            embedding_width=base_model.embedding_width,
            attributes=tuple(Attribute(name=n, count=count) for n, count in concept.attribute_counts.items()),
            key_value=key_value_form(concept),
            dtype="float16",
            training_set_digest="0" * 64,
            hyperparameters={},
            metrics={},
            trainer_version=__version__,
        )
        files = {CONCEPT_FILE: save_concept(concept), "report.json": json.dumps({"synthetic": True}).encode()}
        publish_concept(store, draft, files)
    return concepts
