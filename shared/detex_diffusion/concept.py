"""A concept in memory: the words it brings and what it adds to the projections of cross-attention.

Legend: E width of word embeddings, N photos, S subject tokens, O output width of a projection, r rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from detex_core.artifact import KeyValueForm
from detex_core.artifact.manifest import UNetForm
from detex_diffusion.key_value_delta import KeyValueDeltas, LayerDelta, LowRankDelta, low_rank_delta
from detex_diffusion.key_value_vectors import KeyValueVectors
from detex_diffusion.unet_delta import UNetDelta, delta_tensors, moved, thinned

Scope = Literal["words", "prompt"]


class ConceptWords(Protocol):
    """What tokenising a prompt needs of a concept."""

    @property
    def class_word(self) -> str:
        """Plain words that follow the subject's embeddings."""

    @property
    def subject_tokens(self) -> int:
        """S."""

    @property
    def attribute_counts(self) -> Mapping[str, int]:
        """Number of photos with a word, by attribute."""


class KeyValueSource(Protocol):
    """What keys and values need of a concept."""

    @property
    def key_value(self) -> KeyValueDeltas:
        """Deltas by cross-attention layer."""

    @property
    def subject_key_value(self) -> KeyValueVectors:
        """What is added to keys and values of the subject's tokens, by cross-attention layer."""

    @property
    def scope(self) -> Scope:
        """Which tokens go through them."""


@dataclass(frozen=True)
class Word:
    """One embedding of a concept.

    Attributes:
        attribute: Name of the attribute, or None for the subject.
        index: Subject token 0 to S - 1, or photo 0 to N - 1.
    """

    attribute: str | None
    index: int


@dataclass(frozen=True, eq=False)
class Concept:
    """A concept, ready for use; tensors are not changed in place by anyone.

    Attributes:
        reference: For people and logs, for example `tenant/name@version`.
        class_word: Plain words for what the subject is.
        subject: (S, E).
        attributes: (N, E) by attribute name.
        key_value: Deltas by the name of the cross-attention module; empty for a concept of words alone.
        subject_key_value: What is added to keys and values of the subject's tokens, (S, O) each, by the name of the
            cross-attention module; of all layers or of none.
        scope: Whether its own `words` go through the deltas or the whole `prompt`.
        unet_delta: Deltas by the name of the UNet's parameter; empty but for methods that train the UNet. A concept
            that has them is drawn with a UNet of its own.
    """

    reference: str
    class_word: str
    subject: Tensor
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    key_value: KeyValueDeltas = field(default_factory=dict)
    subject_key_value: KeyValueVectors = field(default_factory=dict)
    scope: Scope = "words"
    unet_delta: UNetDelta = field(default_factory=dict)

    @property
    def subject_tokens(self) -> int:
        """S."""
        return int(self.subject.shape[0])

    @property
    def attribute_counts(self) -> dict[str, int]:
        """Number of photos with a word, by attribute."""
        return {name: int(embeddings.shape[0]) for name, embeddings in self.attributes.items()}

    def embedding(self, word: Word) -> Tensor:
        """The embedding (E,) of one of its words; raises KeyError or IndexError where it has no such word."""
        return (self.subject if word.attribute is None else self.attributes[word.attribute])[word.index]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their names in `concept.safetensors`."""
        tensors = {"subject": self.subject}
        tensors |= {f"attribute.{name}": embeddings for name, embeddings in self.attributes.items()}
        for layer, layer_delta in self.key_value.items():
            for projection, delta in layer_delta.projections():
                for suffix, tensor in delta.tensors().items():
                    tensors[f"key_value.{layer}.{projection}{suffix}"] = tensor
        for layer, vectors in self.subject_key_value.items():
            tensors |= {f"subject_key_value.{layer}.{name}": tensor for name, tensor in vectors.projections()}
        for parameter, parameter_delta in self.unet_delta.items():
            for suffix, tensor in delta_tensors(parameter_delta).items():
                tensors[f"unet.{parameter}{suffix}"] = tensor
        return tensors

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors as they lie in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Concept":
        """The same on another device or of another type; shares tensors that need no change."""
        return replace(
            self,
            subject=self.subject.to(device=device, dtype=dtype),
            attributes={name: tensor.to(device=device, dtype=dtype) for name, tensor in self.attributes.items()},
            key_value={layer: delta.to(device, dtype) for layer, delta in self.key_value.items()},
            subject_key_value={layer: each.to(device, dtype) for layer, each in self.subject_key_value.items()},
            unet_delta={name: moved(delta, device, dtype) for name, delta in self.unet_delta.items()},
        )

    def without_unet_delta(self) -> "Concept":
        """The same without what it adds to the UNet: all that prompts need of it."""
        return replace(self, unet_delta={}) if self.unet_delta else self


def key_value_form(concept: Concept, energy_kept: float = 1.0) -> KeyValueForm:
    """How the deltas of a concept are written, for its manifest.

    Args:
        concept: Whose.
        energy_kept: As `compress` reported it; 1 where nothing was compressed.
    """
    deltas = [delta for layer in concept.key_value.values() for _, delta in layer.projections()]
    ranks = [delta.rank for delta in deltas if isinstance(delta, LowRankDelta)]
    if deltas and 0 < len(ranks) < len(deltas):
        raise ValueError("a concept file holds its deltas in one form, full or low rank")
    form: Literal["none", "full", "low_rank"] = "none" if not deltas else "low_rank" if ranks else "full"
    return KeyValueForm(
        form=form,
        scope=concept.scope,
        largest_rank=max(ranks, default=0),
        energy_kept=energy_kept,
        has_subject_vectors=bool(concept.subject_key_value),
    )


def unet_form(concept: Concept, energy_kept: float = 1.0) -> UNetForm:
    """How the deltas of the UNet's parameters are written, for the manifest; arguments as of `key_value_form`."""
    if not concept.unet_delta:
        return UNetForm()
    ranks = [delta.rank for delta in concept.unet_delta.values() if isinstance(delta, LowRankDelta)]
    return UNetForm(form="low_rank" if ranks else "full", largest_rank=max(ranks, default=0), energy_kept=energy_kept)


def compress(concept: Concept, energy: float, largest_rank: int | None = None) -> tuple[Concept, float]:
    """The concept with its deltas as the thinnest matrices that keep a share of their energy.

    Args:
        concept: With deltas of any form. Those of the UNet become factors only where these are smaller than the whole.
        energy: Share of the squared Frobenius norm of each delta to keep, greater than 0, at most 1.
        largest_rank: Limit of every rank of keys and values, which goes before `energy`; None for none.

    Returns:
        The concept, and the share of the energy of all deltas together that is kept (1 where all are 0).
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy {energy} is not a share greater than 0 and at most 1")
    kept = total = 0.0
    layers = {}
    for layer, layer_delta in concept.key_value.items():
        thin = {}
        for projection, delta in layer_delta.projections():
            thin[projection], energy_kept = low_rank_delta(delta, energy, largest_rank)
            kept += energy_kept
            total += float(delta.materialized().detach().double().square().sum().item())
        layers[layer] = LayerDelta(**thin)
    parameters = {}
    for name, parameter_delta in concept.unet_delta.items():
        parameters[name], energy_kept, energy_there = thinned(parameter_delta, energy)
        kept += energy_kept
        total += energy_there
    thin_concept = replace(concept, key_value=layers, unet_delta=parameters)
    return thin_concept, min(1.0, kept / total) if total > 0 else 1.0
