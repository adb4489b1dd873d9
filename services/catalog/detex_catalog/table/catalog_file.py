"""From a catalog file to a catalog; everything that is wrong with it is found before anything starts."""

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from detex_catalog.table import output_names
from detex_catalog.table.catalog import Catalog, ConceptOrder, PictureOrder
from detex_catalog.table.catalog_row import MAX_SEED, CatalogRow, read_row, unknown_columns
from detex_catalog.table.faults import CatalogFaultsError, Fault, shown
from detex_catalog.table.photo_files import PhotoFiles
from detex_catalog.table.prompts import prompts_of
from detex_catalog.table.table_file import read_table
from detex_client import Method
from detex_core.prompt import AttributeWord, parse_prompt

Value = TypeVar("Value")
_SEEDS_PER_ROW = 2**16
MAX_PHOTOS = 64
DEFAULT_ATTRIBUTES = ("pose", "background")


def load_catalog(path: Path, *, encoding: str = "utf-8", known_photos: Collection[str] = ()) -> Catalog:
    """Read and check a catalog file.

    Args:
        path: CSV, JSONL or Parquet; paths of photos in it are relative to its folder.
        encoding: Of CSV and JSONL.
        known_photos: SHA-256 of photos that were decoded before.

    Raises:
        CatalogFaultsError: With every fault by row and column.
    """
    records = read_table(path, encoding=encoding)
    faults = unknown_columns(records)
    rows: list[CatalogRow] = []
    for record in records:
        row, found = read_row(record)
        faults += found
        if row is not None:
            rows.append(row)
    if not records:
        faults.append(Fault(0, "", "must have at least one row"))
    catalog = _Assembly(faults, PhotoFiles(path.parent, known_photos)).catalog(path, rows)
    if faults:
        raise CatalogFaultsError(faults)
    return catalog


def concept_name_of(sku: str) -> str:
    """The name of a concept that a row with photos gives no name: the SKU as concepts can be called."""
    name = re.sub(r"[^a-z0-9]+", "-", sku.lower()).strip("-")
    return (name if name[:1].isalpha() else f"sku-{name}")[:63].rstrip("-")


def default_seed(sku: str) -> int:
    """The seed of a row that names none, which stays the same from night to night."""
    return int.from_bytes(hashlib.sha256(sku.encode()).digest()[:4], "big") % (MAX_SEED - _SEEDS_PER_ROW)


class _Assembly:
    """Rows on their way to a catalog; what is wrong goes to `faults`."""

    def __init__(self, faults: list[Fault], photos: PhotoFiles) -> None:
        self._faults = faults
        self._photos = photos
        self._concepts: dict[str, ConceptOrder] = {}
        self._outputs: dict[str, int] = {}

    def catalog(self, path: Path, rows: list[CatalogRow]) -> Catalog:
        self._check_skus(rows)
        named = [replace(row, concept=row.concept or self._concept_name(row)) for row in rows]
        for row in named:
            self._add_concept(row)
        concepts = {name: concept.with_fingerprint() for name, concept in self._concepts.items()}
        pictures = [picture.with_fingerprint(concepts) for row in named for picture in self._pictures(row)]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return Catalog(path, sha256, concepts, tuple(pictures))

    def _check_skus(self, rows: list[CatalogRow]) -> None:
        first: dict[str, int] = {}
        for row in rows:
            seen = first.setdefault(output_names.identity(row.sku), row.row)
            if seen != row.row:
                self._fault(row, "sku", f"must stand there once, got {shown(row.sku)} as in row {seen}")

    def _concept_name(self, row: CatalogRow) -> str:
        told = any(fault.row == row.row and fault.column in ("concept", "photos") for fault in self._faults)
        if not row.photos and not told:
            self._fault(row, "concept", "must name a concept, or photos must be given to learn one from")
        return concept_name_of(row.sku)

    def _add_concept(self, row: CatalogRow) -> None:
        order = ConceptOrder(
            name=row.concept,
            row=row.row,
            photos=self._tried(row, "photos", lambda: self._photos.find(row.photos) if row.photos else (), ()),
            references=self._tried(row, "references", lambda: self._photos.find(row.references), ())
            if row.references
            else (),
            version=row.concept_version,
            class_word=row.class_word,
            base_model=row.base_model,
        )
        if row.photos:
            order = replace(order, attributes=row.attributes, method=row.method, training_steps=row.training_steps)
            self._check_training(row, order)
        known = self._concepts.get(row.concept)
        self._concepts[row.concept] = order if known is None else self._joined(row, known, order, bool(row.photos))

    def _check_training(self, row: CatalogRow, order: ConceptOrder) -> None:
        if not row.class_word:
            self._fault(row, "class_word", "must say what the product is, for example mug, where there are photos")
        if row.concept_version:
            self._fault(row, "concept_version", "must be empty where there are photos to learn from")
        if len(order.photos) > MAX_PHOTOS:
            self._fault(row, "photos", f"must be at most {MAX_PHOTOS} photos, got {len(order.photos)}")
        if row.method == Method.DETEX and len(order.photos) == 1:
            self._fault(row, "photos", "must be 2 to 64 photos for method detex, got 1")

    def _joined(self, row: CatalogRow, known: ConceptOrder, order: ConceptOrder, trains: bool) -> ConceptOrder:
        """What two rows say of one concept; of rows that train it, all must say the same."""
        if known.base_model != order.base_model:
            self._fault(row, "base_model", f"must be that of row {known.row} for concept {row.concept}")
        if known.version and order.version and known.version != order.version:
            self._fault(row, "concept_version", f"must be that of row {known.row} for concept {row.concept}")
        if known.photos and order.version:
            self._fault(row, "concept_version", f"must be empty: row {known.row} trains concept {row.concept}")
        references = known.references + tuple(each for each in order.references if each not in known.references)
        if not trains:
            return replace(known, references=references, version=known.version or order.version)
        if known.photos and known.with_fingerprint().fingerprint != order.with_fingerprint().fingerprint:
            self._fault(row, "photos", f"must be as in row {known.row}, which trains concept {row.concept} otherwise")
        if not known.photos and known.version:
            self._fault(row, "photos", f"must be empty: row {known.row} takes a version of concept {row.concept}")
        return replace(order, references=references)

    def _pictures(self, row: CatalogRow) -> list[PictureOrder]:
        class_word = row.class_word or self._concepts[row.concept].class_word
        nothing: list[str] = []
        prompts = self._tried(
            row, "template", lambda: prompts_of(row.template, row.scenes, row.concept, class_word), nothing
        )
        self._check_attributes(row, prompts)
        seed = default_seed(row.sku) if row.seed is None else row.seed
        if len(prompts) * row.count > _SEEDS_PER_ROW:
            self._fault(row, "count", f"must give at most {_SEEDS_PER_ROW:,} pictures per row")
            return []
        if seed + len(prompts) * row.count > MAX_SEED:
            self._fault(row, "seed", f"must leave a seed for each picture below 2^32, got {seed}")
            return []
        pictures: list[PictureOrder] = []
        for scene, prompt in enumerate(prompts, start=1):
            for _ in range(row.count):
                output = self._output(row, scene, len(pictures) + 1)
                if output is None:
                    return []
                pictures.append(_picture(row, output, prompt, seed + len(pictures)))
        return pictures

    def _check_attributes(self, row: CatalogRow, prompts: list[str]) -> None:
        """Attribute words of concepts that are still to be trained; of others, the generator knows."""
        words = {part for prompt in prompts for part in parse_prompt(prompt).parts if isinstance(part, AttributeWord)}
        for word in sorted(words, key=str):
            concept = self._concepts.get(word.concept)
            if concept is None or not concept.photos:
                continue
            names = (concept.attributes or DEFAULT_ATTRIBUTES) if concept.method == Method.DETEX else ()
            if word.attribute not in names or word.photo_index >= len(concept.photos):
                said = f"attributes {', '.join(names) or 'none'} of {len(concept.photos)} photos, counted from 0"
                given = f"{word.attribute}:{word.photo_index}"
                self._fault(row, "template", f"must use what concept {concept.name} will have, {said}; got {given}")

    def _output(self, row: CatalogRow, scene: int, number: int) -> str | None:
        """The name of a picture; None where its pattern is refused, which is told once."""
        values = {"sku": row.sku, "concept": row.concept, "scene": str(scene), "number": f"{number:03d}"}
        pattern = row.output or output_names.DEFAULT_PATTERN
        output = self._tried(row, "output", lambda: output_names.expand(pattern, values), None)
        if output is None:
            return None
        identity = output_names.identity(output)
        if identity in self._outputs:
            first = self._outputs[identity]
            said = "as an earlier picture of the row; use {number}" if first == row.row else f"as in row {first}"
            self._fault(row, "output", f"must name each picture once, got {shown(output)} {said}")
            return None
        self._outputs[identity] = row.row
        return output

    def _tried(self, row: CatalogRow, column: str, call: Callable[[], Value], otherwise: Value) -> Value:
        try:
            return call()
        except ValueError as error:
            self._fault(row, column, str(error))
            return otherwise

    def _fault(self, row: CatalogRow, column: str, message: str) -> None:
        self._faults.append(Fault(row.row, column, message))


def _picture(row: CatalogRow, output: str, prompt: str, seed: int) -> PictureOrder:
    width, height = row.size
    return PictureOrder(
        output=output,
        row=row.row,
        sku=row.sku,
        concept=row.concept,
        prompt=prompt,
        negative_prompt=row.negative_prompt,
        base_model=row.base_model,
        width=width,
        height=height,
        seed=seed,
        steps=row.steps,
        guidance_scale=row.guidance_scale,
        min_likeness=row.min_likeness,
        max_redraws=row.max_redraws,
    )
