"""Drafts of concepts for tests."""

from typing import Any

from detex_core.artifact import Attribute, ConceptDraft, KeyValueForm

FILES = {"concept.safetensors": b"weights" * 100, "report.json": b'{"photos": 4}'}


def draft(**changes: Any) -> ConceptDraft:
    """A draft of `my-mug` of tenant `acme`, with changes."""
    fields: dict[str, Any] = {
        "name": "my-mug",
        "tenant": "acme",
        "method": "detex",
        "base_model": "showroom",
        "base_model_fingerprint": "0" * 64,
        "class_word": "mug",
        "subject_tokens": 1,
        "embedding_width": 64,
        "attributes": (Attribute(name="pose", count=4), Attribute(name="background", count=4)),
        "key_value": KeyValueForm(form="low_rank", scope="words", largest_rank=8, energy_kept=0.97),
        "dtype": "float32",
        "training_set_digest": "1" * 64,
        "hyperparameters": {"steps": 400, "mask_floor": 0.1, "optimizer": "adamw"},
        "metrics": {"loss_final": 0.03},
        "trainer_version": "0.1.0",
    }
    return ConceptDraft(**{**fields, **changes})
