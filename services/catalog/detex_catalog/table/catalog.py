"""The whole catalog: what concepts it wants trained and what pictures it wants drawn."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from detex_catalog.table.photo_files import PhotoFile
from detex_client import PictureRequest, Priority
from detex_core.prompt import parse_prompt


@dataclass(frozen=True)
class ConceptOrder:
    """A concept that pictures are drawn with.

    Attributes:
        name: Name, unique in the catalog.
        row: Row that says how it is learned; the first that names it where none does.
        photos: To learn it from; empty where it must be there already.
        references: Photos that pictures are compared with; those to learn from where none are named.
        version: Version to take of one that is there already; empty for the newest.
        fingerprint: SHA-256 (hex) over photos and settings of the training; of the name and version without photos.
    """

    name: str
    row: int
    photos: tuple[PhotoFile, ...] = ()
    references: tuple[PhotoFile, ...] = ()
    version: str = ""
    class_word: str = ""
    attributes: tuple[str, ...] = ()
    method: str = ""
    training_steps: int = 0
    base_model: str = ""
    fingerprint: str = ""

    def with_fingerprint(self) -> "ConceptOrder":
        """The same with its fingerprint."""
        if not self.photos:
            return replace(self, fingerprint=sha256_of({"concept": self.name, "version": self.version}))
        content = {
            "concept": self.name,
            "photos": [(photo.sha256, photo.mask_sha256) for photo in self.photos],
            "class_word": self.class_word,
            "attributes": self.attributes,
            "method": self.method,
            "training_steps": self.training_steps,
            "base_model": self.base_model,
        }
        return replace(self, fingerprint=sha256_of(content))


@dataclass(frozen=True)
class PictureOrder:
    """A picture to draw.

    Attributes:
        output: Its name below the folder of pictures, which no other picture has.
        row: Row that asks for it.
        concept: Whose product it shows.
        concepts: All concepts of the catalog that its prompt names, `concept` among them.
        seed: Seed of the first try.
        fingerprint: SHA-256 (hex) over all that decides what it shows.
    """

    output: str
    row: int
    sku: str
    concept: str
    prompt: str
    negative_prompt: str
    base_model: str
    width: int
    height: int
    seed: int
    steps: int | None
    guidance_scale: float | None
    min_likeness: float | None
    max_redraws: int | None
    concepts: tuple[str, ...] = ()
    fingerprint: str = ""

    def with_fingerprint(self, concepts: Mapping[str, ConceptOrder]) -> "PictureOrder":
        """The same with its fingerprint and the concepts of the catalog that its prompt names."""
        names = tuple(name for name in parse_prompt(self.prompt).concepts() if name in concepts)
        drawn = asdict(self)
        for name in ("row", "sku", "min_likeness", "max_redraws", "concepts", "fingerprint"):
            del drawn[name]
        drawn["concept_fingerprints"] = {name: concepts[name].fingerprint for name in names}
        return replace(self, concepts=names, fingerprint=sha256_of(drawn))

    def request(self, seed: int, versions: Mapping[str, str]) -> PictureRequest:
        """What the generator is asked for.

        Args:
            seed: Of this try.
            versions: Of its concepts, by name.
        """
        return PictureRequest(
            self.prompt,
            negative_prompt=self.negative_prompt,
            base_model=self.base_model,
            seed=seed,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            width=self.width,
            height=self.height,
            concept_versions=dict(versions),
            priority=Priority.LOW,
        )


@dataclass(frozen=True)
class Catalog:
    """All that a catalog file asks for.

    Attributes:
        path: The file.
        sha256: SHA-256 (hex) of the file.
        concepts: By name.
        pictures: In the order of the file.
    """

    path: Path
    sha256: str
    concepts: dict[str, ConceptOrder]
    pictures: tuple[PictureOrder, ...]

    def only(self, pictures: Iterable[PictureOrder]) -> "Catalog":
        """The part with these pictures and their concepts."""
        kept = tuple(pictures)
        names = {name for picture in kept for name in picture.concepts}
        concepts = {name: concept for name, concept in self.concepts.items() if name in names}
        return replace(self, concepts=concepts, pictures=kept)


def sha256_of(content: object) -> str:
    """SHA-256 (hex) over a value of JSON, equal for equal values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
