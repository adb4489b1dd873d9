"""What a concept consists of while it is learned: subject embedding, attribute mappers, key and value deltas.

Legend: S subject tokens, E width of word embeddings (of all text encoders side by side), N photos, P width of image
features, O output width of a projection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Scope
from detex_diffusion.cross_attention import cross_attention_layers
from detex_diffusion.key_value_delta import FullDelta, KeyValueDeltas, LayerDelta
from detex_diffusion.key_value_vectors import KeyValueVectors, LayerVectors
from detex_trainer.domain.prompts import RARE_WORD
from detex_trainer.learning.methods.mappers import AttributeMapper, FeatureNormalization, MapperShape

_SUBJECT_SPREAD = 0.05  # of the class word's size: several subject tokens must not begin alike

_PACE_FROM_NOUN = 3.0


@dataclass(frozen=True)
class ConceptShape:
    """Which parts are trained, and their form.

    Attributes:
        subject_tokens: S; 0 for as many tokens as the rare word has.
        begins_at_rare_word: Whether the subject begins at a word that means nothing rather than at the class word.
        trains_subject: Whether the subject embedding is trained.
        attributes: Names of the attributes with a mapper of their own.
        trains_key_values: Whether there are key and value deltas.
        trains_subject_vectors: Whether keys and values of the subject's tokens have vectors of their own.
        scope: Which tokens of a prompt go through them.
        mapper: Form of the mappers.
    """

    subject_tokens: int = 1
    begins_at_rare_word: bool = False
    trains_subject: bool = True
    attributes: tuple[str, ...] = ()
    trains_key_values: bool = True
    trains_subject_vectors: bool = False
    scope: Scope = "words"
    mapper: MapperShape = field(default_factory=MapperShape)


@dataclass(frozen=True)
class AttributeStart:
    """Where the words of one attribute begin.

    Attributes:
        words: N plain words; empty for the attribute's noun, where no word stands out.
        embeddings: (N, E).
    """

    words: tuple[str, ...]
    embeddings: Tensor


@dataclass(frozen=True)
class SubjectStart:
    """Plain words that the subject begins at.

    Attributes:
        words: For example "green striped"; possibly empty.
        embeddings: (k, E) of their tokens.
    """

    words: str
    embeddings: Tensor


class ConceptWords(nn.Module):
    """The trained parts of one concept; at the start it means what its class word means, or nothing."""

    def __init__(
        self,
        base_model: BaseModel,
        class_word: str,
        shape: ConceptShape,
        photo_features: Tensor,
        generator: torch.Generator,
        attribute_starts: Mapping[str, AttributeStart] | None = None,
        subject_start: SubjectStart | None = None,
    ) -> None:
        """Initialise.

        Args:
            base_model: Whose words and projections to begin from.
            class_word: What the subject is.
            shape: What is trained.
            photo_features: (N, P) of the photos as they are; only used with attributes.
            generator: CPU generator, source of the initial weights.
            attribute_starts: By attribute, where its words begin; without, at its noun for every photo alike.
            subject_start: Plain words that the subject begins at, in as many tokens as they have; further ones, up to
                those of `shape`, stand before them.
        """
        super().__init__()
        self.shape = shape
        self.class_word = class_word
        self.photos = int(photo_features.shape[0])
        device = base_model.device
        start = RARE_WORD if shape.begins_at_rare_word else class_word
        initial = _initial_subject(base_model, start, shape.subject_tokens, generator)
        if subject_start is not None:
            described = subject_start.embeddings
            initial = torch.cat([initial[: max(0, len(initial) - len(described))], described])
        self.subject = nn.Parameter(initial, requires_grad=shape.trains_subject)
        self.normalization = FeatureNormalization(photo_features.float())
        starts = {name: _at_noun(base_model, name, self.photos) for name in shape.attributes} | dict(
            attribute_starts or {}
        )
        # A mapper for each text encoder: their word embeddings are of different sizes and mean different things.
        self._encoders = len(base_model.text.encoders)
        self.mappers = nn.ModuleDict(
            {
                _mapper_name(name, encoder): AttributeMapper(
                    int(photo_features.shape[1]), part, shape.mapper, generator, _paces(starts[name])
                )
                for name in shape.attributes
                for encoder, part in enumerate(base_model.text.split(starts[name].embeddings))
            }
        )
        self.layers = tuple(cross_attention_layers(base_model.unet)) if shape.trains_key_values else ()
        self.weights = [
            getattr(module, projection).weight.detach().float()
            for module in cross_attention_layers(base_model.unet).values()
            for projection in ("to_k", "to_v")
        ]
        self.deltas = nn.ParameterList(
            [nn.Parameter(torch.zeros_like(weight)) for weight in self.weights] if shape.trains_key_values else []
        )
        # In units of what the projections make of a token, so that one learning rate serves layers of any scale.
        self._vector_scales = [float(weight.norm()) / weight.shape[0] ** 0.5 for weight in self.weights]
        self.vectors = nn.ParameterList(
            [nn.Parameter(torch.zeros(self.subject_tokens, weight.shape[0])) for weight in self.weights]
            if shape.trains_subject_vectors
            else []
        )
        self._vector_layers = tuple(cross_attention_layers(base_model.unet)) if shape.trains_subject_vectors else ()
        self.to(device)

    @property
    def subject_tokens(self) -> int:
        """S."""
        return int(self.subject.shape[0])

    @property
    def trained_subject(self) -> list[nn.Parameter]:
        """The subject embedding where it is trained."""
        return [self.subject] if self.shape.trains_subject else []

    @property
    def attribute_counts(self) -> Mapping[str, int]:
        """Number of photos with a word, by attribute."""
        return dict.fromkeys(self.shape.attributes, self.photos)

    def attribute_embeddings(self, name: str, features: Tensor, photos: Tensor) -> Tensor:
        """Word embeddings (..., E) of an attribute for image features (..., P) of the photos at positions (...)."""
        normalized = self.normalization(features)
        parts = [self.mappers[_mapper_name(name, encoder)](normalized, photos) for encoder in range(self._encoders)]
        return torch.cat(parts, dim=-1)

    def key_value_deltas(self) -> KeyValueDeltas:
        """The deltas by layer, made of the parameters themselves."""
        return {
            layer: LayerDelta(to_k=FullDelta(self.deltas[2 * index]), to_v=FullDelta(self.deltas[2 * index + 1]))
            for index, layer in enumerate(self.layers)
        }

    def subject_key_value(self) -> KeyValueVectors:
        """What is added to keys and values of the subject's tokens by layer, made of the parameters themselves."""
        scaled = [vector * scale for vector, scale in zip(self.vectors, self._vector_scales, strict=False)]
        return {
            layer: LayerVectors(to_k=scaled[2 * index], to_v=scaled[2 * index + 1])
            for index, layer in enumerate(self._vector_layers)
        }

    def delta_share(self) -> float:
        """Size of the deltas as a share of the projections' own: |dW| / |W|, Frobenius norms over all layers."""
        if not self.layers:
            return 0.0
        squares = [sum(float(t.detach().square().sum()) for t in tensors) for tensors in (self.deltas, self.weights)]
        return float((squares[0] / max(squares[1], 1e-12)) ** 0.5)

    @torch.no_grad()
    def concept(self, reference: str, photo_features: Tensor) -> Concept:
        """The concept as it stands: every mapper is evaluated for every photo and no longer needed.

        Args:
            reference: For people and logs.
            photo_features: (N, P) of the photos as they are.
        """
        photos = torch.arange(len(photo_features), device=photo_features.device)
        return Concept(
            reference=reference,
            class_word=self.class_word,
            subject=self.subject.detach().clone(),
            attributes={
                name: self.attribute_embeddings(name, photo_features, photos).clone() for name in self.shape.attributes
            },
            key_value={
                layer: LayerDelta(
                    **{name: FullDelta(delta.materialized().detach().clone()) for name, delta in each.projections()}
                )
                for layer, each in self.key_value_deltas().items()
            },
            subject_key_value={
                layer: LayerVectors(**{name: tensor.clone() for name, tensor in each.projections()})
                for layer, each in self.subject_key_value().items()
            },
            scope=self.shape.scope,
        )


def class_token_embeddings(base_model: BaseModel, words: str) -> Tensor:
    """Embeddings (k, E) float32 of the k tokens of some plain words, before positions are added."""
    ids = base_model.tokenizer(words, add_special_tokens=False)["input_ids"]
    return base_model.text.token_embeddings(torch.tensor(ids)).detach().float().clone()


def plain_embedding(base_model: BaseModel, words: str) -> Tensor:
    """Mean embedding (E,) float32 of the tokens of some plain words, before positions are added."""
    return class_token_embeddings(base_model, words).mean(dim=0)


def _initial_subject(base_model: BaseModel, words: str, tokens: int, generator: torch.Generator) -> Tensor:
    of_words = class_token_embeddings(base_model, words)
    if tokens == 0:
        return of_words
    if tokens == 1:
        return of_words.mean(dim=0, keepdim=True)
    subject = of_words[torch.arange(tokens) % len(of_words)]
    spread = torch.randn(subject.shape, generator=generator).to(subject.device)
    sizes = [part.square().mean().sqrt().expand(part.shape[1]) for part in base_model.text.split(subject)]
    return subject + _SUBJECT_SPREAD * torch.cat(sizes) * spread


def _mapper_name(attribute: str, encoder: int) -> str:
    """Where the mapper of an attribute for the text encoder at an index is kept."""
    return f"attribute {attribute}" if encoder == 0 else f"attribute {attribute}, encoder {encoder + 1}"


def _at_noun(base_model: BaseModel, attribute: str, photos: int) -> AttributeStart:
    words = attribute.replace("_", " ").replace("-", " ")
    embedding = class_token_embeddings(base_model, words).mean(dim=0)
    return AttributeStart(("",) * photos, embedding.expand(photos, -1))


def _paces(start: AttributeStart) -> Tensor:
    """(N, 1): words that begin at a noun have further to go than those that begin at what they mean."""
    return torch.tensor([[1.0 if word else _PACE_FROM_NOUN] for word in start.words])


def parameters_of(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """All parameters of some modules in their order."""
    return [parameter for module in modules for parameter in module.parameters()]
