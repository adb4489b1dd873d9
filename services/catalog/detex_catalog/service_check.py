"""What only the services know of a catalog: whether concepts are there, and whether they take its prompts and sizes.

Each distinct prompt is drawn once with one denoising step at a size of 64 pixels, and each distinct size once with a
plain prompt, at the lowest priority: so the generator itself says what it would refuse. Words of concepts that are
still to be trained are counted as their class words.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import grpc

from detex_catalog.run.drawing import worth_another_try
from detex_catalog.table.catalog import Catalog, ConceptOrder, PictureOrder
from detex_catalog.table.faults import Fault
from detex_client import DetexClientError, GeneratorClient, PictureRequest, Priority, RequestFailed, TrainerClient
from detex_core.prompt import AttributeWord, Prompt, SubjectWord, Text, parse_prompt

_SMALL_SIDE = 64
_COLUMNS = {"prompt": "template", "negative_prompt": "negative_prompt", "width": "size", "height": "size"}


@dataclass(frozen=True)
class _Probe:
    row: int
    request: PictureRequest


def published_versions(trainer: TrainerClient, concepts: Iterable[ConceptOrder]) -> tuple[dict[str, str], list[Fault]]:
    """Versions of concepts that a catalog does not train, by name, and a fault for each that is not there.

    Raises:
        DetexClientError: The trainer does not answer.
    """
    versions: dict[str, str] = {}
    faults: list[Fault] = []
    for order in concepts:
        try:
            versions[order.name] = trainer.concept(order.name, order.version).reference.version
        except DetexClientError as error:
            if worth_another_try(error):
                raise
            column = "concept_version" if order.version else "concept"
            faults.append(Fault(order.row, column, f"must be a concept that is there ({error.message})"))
    return versions, faults


def refused_pictures(
    generator: GeneratorClient, catalog: Catalog, pictures: Iterable[PictureOrder], there: dict[str, str]
) -> list[Fault]:
    """A fault for each prompt, size or other setting of pictures that the generator refuses.

    Args:
        generator: The generator.
        catalog: What the pictures belong to.
        pictures: Those that are to be drawn.
        there: Versions of concepts that are published, by name.

    Raises:
        DetexClientError: The generator does not answer.
    """
    probes = list(_probes(catalog, pictures, there))
    faults: list[Fault] = []
    for news in generator.generate_many(probe.request for probe in probes):
        if isinstance(news.event, RequestFailed):
            error, row = news.event.error, probes[news.request_index].row
            if worth_another_try(error):
                raise error
            found = error.violations
            faults += [Fault(row, _COLUMNS.get(each.field, each.field), each.description) for each in found]
            if not found:
                column = "base_model" if error.code is grpc.StatusCode.FAILED_PRECONDITION else "template"
                faults.append(Fault(row, column, error.message))
    return faults


def _probes(catalog: Catalog, pictures: Iterable[PictureOrder], there: dict[str, str]) -> Iterable[_Probe]:
    seen: set[object] = set()
    for picture in pictures:
        prompt = _spoken(picture.prompt, catalog, there)
        versions = {name: there[name] for name in picture.concepts if name in there}
        text = (prompt, picture.negative_prompt, picture.base_model, picture.guidance_scale, *versions.items())
        size = (picture.width, picture.height, picture.base_model)
        if text not in seen:
            seen.add(text)
            yield _Probe(picture.row, _request(picture, prompt, (_SMALL_SIDE, _SMALL_SIDE), versions))
        if size not in seen:
            seen.add(size)
            yield _Probe(picture.row, _request(picture, "a photo", (picture.width, picture.height), {}))


def _request(picture: PictureOrder, prompt: str, size: tuple[int, int], versions: dict[str, str]) -> PictureRequest:
    return PictureRequest(
        prompt,
        negative_prompt=picture.negative_prompt,
        base_model=picture.base_model,
        seed=0,
        steps=1,
        guidance_scale=picture.guidance_scale,
        width=size[0],
        height=size[1],
        concept_versions=versions,
        priority=Priority.LOW,
    )


def _spoken(prompt: str, catalog: Catalog, there: dict[str, str]) -> str:
    """The prompt with plain words in the place of words of concepts that are still to be trained."""
    parts: list[Text | SubjectWord | AttributeWord] = []
    for part in parse_prompt(prompt).parts:
        if isinstance(part, Text) or part.concept in there or part.concept not in catalog.concepts:
            parts.append(part)
        else:
            word = catalog.concepts[part.concept].class_word if isinstance(part, SubjectWord) else part.attribute
            parts.append(Text(word))
    return str(Prompt(tuple(parts)))
