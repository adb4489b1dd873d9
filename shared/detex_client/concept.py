"""Concepts and base models as the services describe them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from detex_client.errors import refused
from detex_client.wire_enum import Method
from detex_client.wire_message import wire_message
from detex_core.prompt import CONCEPT_NAMES
from detex_protos.v1 import common_pb2, trainer_pb2


@dataclass(frozen=True)
class ConceptReference:
    """One version of a concept.

    Attributes:
        name: Name, as in prompts.
        version: Version; empty means the newest.
    """

    name: str
    version: str = ""

    @property
    def word(self) -> str:
        """The subject in prompts: `[name]`."""
        return f"[{self.name}]"

    def attribute_word(self, attribute: str, photo_index: int) -> str:
        """An attribute of one photo in prompts: `[name:attribute:photo_index]`."""
        return f"[{self.name}:{attribute}:{photo_index}]"

    @classmethod
    def from_wire(cls, reference: common_pb2.ConceptReference) -> Self:
        """From the message of the contract."""
        return cls(reference.name, reference.version)

    def to_wire(self) -> common_pb2.ConceptReference:
        """The message of the contract."""
        return wire_message(common_pb2.ConceptReference, name=self.name, version=self.version)


@dataclass(frozen=True)
class ConceptAttribute:
    """An attribute that has a word per photo.

    Attributes:
        name: For example `pose`.
        count: Number of photos; the words are `[concept:pose:0]` to `[concept:pose:<count - 1>]`.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Concept:
    """A published concept; fields as `detex.v1.Concept` documents them."""

    reference: ConceptReference
    method: Method
    class_word: str
    attributes: tuple[ConceptAttribute, ...]
    base_model: str
    base_model_fingerprint: str
    create_time: datetime
    size_bytes: int
    manifest_sha256: str

    @classmethod
    def from_wire(cls, concept: trainer_pb2.Concept) -> Self:
        """From the message of the contract."""
        return cls(
            reference=ConceptReference.from_wire(concept.reference),
            method=Method.from_number(concept.method),
            class_word=concept.class_word,
            attributes=tuple(ConceptAttribute(found.name, found.count) for found in concept.attributes),
            base_model=concept.base_model,
            base_model_fingerprint=concept.base_model_fingerprint,
            create_time=concept.create_time.ToDatetime(tzinfo=UTC),
            size_bytes=concept.size_bytes,
            manifest_sha256=concept.manifest_sha256,
        )


@dataclass(frozen=True)
class DeletedConcepts:
    """What a deletion took away.

    Attributes:
        references: The versions that are gone.
        keys: The objects that are gone from the store.
    """

    references: tuple[ConceptReference, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class BaseModel:
    """A Stable Diffusion that a service has available; fields as `detex.v1.BaseModel` documents them."""

    name: str
    fingerprint: str
    width: int
    height: int
    prediction_type: str
    is_default: bool
    family: str = ""

    @classmethod
    def from_wire(cls, base_model: common_pb2.BaseModel) -> Self:
        """From the message of the contract."""
        return cls(
            name=base_model.name,
            fingerprint=base_model.fingerprint,
            width=base_model.width,
            height=base_model.height,
            prediction_type=base_model.prediction_type,
            is_default=base_model.is_default,
            family=base_model.family,
        )


def check_concept_name(name: str) -> None:
    """Refuse what no concept can be called, before anything is uploaded for it."""
    if not CONCEPT_NAMES.is_name(name):
        raise refused("concept_name", CONCEPT_NAMES.given(name), CONCEPT_NAMES.accepted)
