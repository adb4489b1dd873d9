"""Requests for pictures, the news of them and the pictures themselves."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypedDict

from PIL import Image

from detex_client.concept import ConceptReference
from detex_client.errors import refused
from detex_client.picture_content import Edit, EditProvenance, Region, RegionMode, RegionProvenance
from detex_client.wire_enum import Priority, Solver
from detex_client.wire_message import wire_message
from detex_protos.v1 import generator_pb2


class PictureOptions(TypedDict, total=False):
    """All of a request but its prompt, as keyword arguments; documented at PictureRequest."""

    negative_prompt: str
    base_model: str
    count: int
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    guidance_interval: tuple[float, float] | None
    solver: Solver | None
    width: int
    height: int
    preview_interval_steps: int
    concept_versions: dict[str, str]
    regions: tuple[Region, ...]
    region_mode: RegionMode | None
    edit: Edit | None
    priority: Priority | None


@dataclass(frozen=True)
class PictureRequest:
    """What to draw.

    Attributes:
        prompt: What to draw, with words of concepts in square brackets.
        negative_prompt: What to keep away from.
        base_model: Base model by name; empty means the generator's default.
        count: Pictures to draw, 1 to 64; picture i takes seed + i.
        seed: Seed of the first picture; None lets the generator choose.
        steps: Denoising steps, 1 to 500; None takes the default of the base model.
        guidance_scale: 0 to 50, 1 and below draws without guidance; None takes the default of the base model.
        guidance_interval: Start and end, in shares of the steps from 0 to 1, of those that are guided; None guides all.
        solver: How to solve; None takes the base model's default.
        width: In pixels, a multiple of 8; 0 means the base model's.
        height: In pixels, a multiple of 8; 0 means the base model's.
        preview_interval_steps: A preview every so many steps; 0 means none.
        concept_versions: Versions by concept; a concept that is not listed takes its newest.
        regions: Places of subjects, at most 8; none lets them stand where they like.
        region_mode: How the prompt is read where there are regions; None takes the generator's default.
        edit: A photo to begin from or to keep a part of; None draws from nothing.
        priority: Which requests go first; None takes the generator's default, normal.
    """

    prompt: str
    negative_prompt: str = ""
    base_model: str = ""
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    solver: Solver | None = None
    width: int = 0
    height: int = 0
    preview_interval_steps: int = 0
    concept_versions: dict[str, str] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    region_mode: RegionMode | None = None
    edit: Edit | None = None
    priority: Priority | None = None

    def to_wire(self) -> generator_pb2.GenerateRequest:
        """The message of the contract.

        Raises:
            DetexClientError: INVALID_ARGUMENT for a value that its field cannot carry at all, a negative count for
                example, and for a file that cannot be read; all other limits are the generator's.
        """
        message = generator_pb2.GenerateRequest()
        for name in ("prompt", "negative_prompt", "base_model", "count", "seed", "steps", "guidance_scale", "width"):
            self._set(message, name)
        for name in ("height", "preview_interval_steps"):
            self._set(message, name)
        if self.guidance_interval is not None:
            start, end = self.guidance_interval
            message.guidance_interval.CopyFrom(wire_message(generator_pb2.GuidanceInterval, start=start, end=end))
        if self.solver is not None:
            message.solver = self.solver.number()
        versions = wire_message(generator_pb2.GenerateRequest, concept_versions=self.concept_versions)
        message.MergeFrom(versions)
        message.regions.extend(region.to_wire(index) for index, region in enumerate(self.regions))
        if self.region_mode is not None:
            message.region_mode = self.region_mode.number()
        if self.edit is not None:
            message.edit.CopyFrom(self.edit.to_wire())
        if self.priority is not None:
            message.priority = self.priority.number()
        return message

    def files(self) -> dict[str, Path]:
        """The files that are sent along, by the paths of their fields in the contract."""
        files = {
            f"regions[{index}].mask": region.place
            for index, region in enumerate(self.regions)
            if isinstance(region.place, Path)
        }
        if self.edit is not None:
            sources = {"edit.image": self.edit.image, "edit.mask": self.edit.mask}
            files |= {name: source for name, source in sources.items() if isinstance(source, Path)}
        return files

    def _set(self, message: generator_pb2.GenerateRequest, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        try:
            setattr(message, name, value)
        except (TypeError, ValueError):
            kind = "a text" if isinstance(getattr(message, name), str) else "a non-negative number"
            raise refused(name, repr(value), kind) from None


@dataclass(frozen=True)
class Queued:
    """The request has been taken.

    Attributes:
        request_id: Id given by the generator, for its logs.
        queue_position: Pictures ahead of this request.
    """

    request_id: str
    queue_position: int


@dataclass(frozen=True)
class DenoisingProgress:
    """How far a picture has come.

    Attributes:
        image_index: Picture of the request, from 0.
        step: Denoising steps done.
        total_steps: Denoising steps in all.
    """

    image_index: int
    step: int
    total_steps: int


@dataclass(frozen=True)
class PicturePreview:
    """A picture on its way, as the model guesses it now.

    Attributes:
        image_index: Picture of the request, from 0.
        step: Denoising steps done.
        png: The picture as PNG.
    """

    image_index: int
    step: int
    png: bytes


@dataclass(frozen=True)
class ConceptProvenance:
    """A concept that a picture was drawn with.

    Attributes:
        reference: Name and version.
        manifest_sha256: SHA-256 (hex) of its manifest.
    """

    reference: ConceptReference
    manifest_sha256: str


@dataclass(frozen=True)
class Provenance:
    """All that it takes to draw a picture again; fields as `detex.v1.Provenance` documents them."""

    prompt: str
    negative_prompt: str
    base_model: str
    base_model_fingerprint: str
    concepts: tuple[ConceptProvenance, ...]
    seed: int
    steps: int
    guidance_scale: float
    solver: Solver
    width: int
    height: int
    generator_version: str
    regions: tuple[RegionProvenance, ...] = ()
    region_mode: RegionMode | None = None
    edit: EditProvenance | None = None
    guidance_interval: tuple[float, float] | None = None

    @classmethod
    def from_wire(cls, provenance: generator_pb2.Provenance) -> Self:
        """From the message of the contract."""
        interval = provenance.guidance_interval
        return cls(
            prompt=provenance.prompt,
            negative_prompt=provenance.negative_prompt,
            base_model=provenance.base_model,
            base_model_fingerprint=provenance.base_model_fingerprint,
            concepts=tuple(
                ConceptProvenance(ConceptReference.from_wire(concept.reference), concept.manifest_sha256)
                for concept in provenance.concepts
            ),
            seed=provenance.seed,
            steps=provenance.steps,
            guidance_scale=provenance.guidance_scale,
            solver=Solver.from_number(provenance.solver),
            width=provenance.width,
            height=provenance.height,
            generator_version=provenance.generator_version,
            regions=tuple(map(RegionProvenance.from_wire, provenance.regions)),
            region_mode=RegionMode.from_number(provenance.region_mode) if provenance.region_mode else None,
            edit=EditProvenance.from_wire(provenance.edit) if provenance.HasField("edit") else None,
            guidance_interval=(interval.start, interval.end) if provenance.HasField("guidance_interval") else None,
        )


@dataclass(frozen=True)
class GeneratedPicture:
    """A finished picture.

    Attributes:
        image_index: Picture of the request, from 0.
        png: The picture as PNG, with its provenance inside.
        seed: Seed of this picture.
        provenance: All that it takes to draw it again.
    """

    image_index: int
    png: bytes
    seed: int
    provenance: Provenance

    def image(self) -> Image.Image:
        """The picture as a Pillow image."""
        image = Image.open(io.BytesIO(self.png))
        image.load()
        return image

    def save(self, path: str | Path) -> Path:
        """Write the PNG as it came, with its provenance; an existing file is overwritten."""
        target = Path(path)
        target.write_bytes(self.png)
        return target


GenerationEvent = Queued | DenoisingProgress | PicturePreview | GeneratedPicture


def event_from_wire(response: generator_pb2.GenerateResponse) -> GenerationEvent | None:
    """News of a request; None for a kind that this client does not know."""
    match response.WhichOneof("event"):
        case "queued":
            return Queued(response.queued.request_id, response.queued.queue_position)
        case "progress":
            progress = response.progress
            return DenoisingProgress(progress.image_index, progress.step, progress.total_steps)
        case "preview":
            return PicturePreview(response.preview.image_index, response.preview.step, response.preview.png)
        case "image":
            image = response.image
            return GeneratedPicture(image.image_index, image.png, image.seed, Provenance.from_wire(image.provenance))
        case _:
            return None
