"""Where an image comes from, written into its PNG: all that it takes to draw it again."""

import hashlib
import io
import json

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detex_core.errors import invalid_input
from detex_diffusion.regions import Box, RegionMode
from detex_generator.request.generation_request import GenerationRequest

PNG_TEXT_KEY = "detex"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConceptProvenance(_Record):
    """A concept that an image was drawn with: name, version, and the SHA-256 (hex) of its manifest."""

    name: str
    version: str
    manifest_sha256: str


class RegionProvenance(_Record):
    """The place of a subject.

    Attributes:
        concept: Concept; empty for a region of plain words.
        box: Left, top, right and bottom in shares of the sides; None for a mask.
        mask_sha256: SHA-256 (hex) of the mask as sent; empty for a box.
        weight: How much it counts.
        prompt: What it read; empty where one prompt was read.
    """

    concept: str
    box: tuple[float, float, float, float] | None = None
    mask_sha256: str = ""
    weight: float
    prompt: str


class CompositionProvenance(_Record):
    """Places of subjects, and how the prompt was read: `blend` or `joint`."""

    mode: str
    regions: tuple[RegionProvenance, ...]


class EditProvenance(_Record):
    """What became of a photo: kind by name, SHA-256 (hex) of the files as sent (no mask: empty), and the settings."""

    kind: str
    image_sha256: str
    mask_sha256: str
    strength: float
    shadow: float


class Provenance(_Record):
    """Everything that decides about the pixels of one image.

    It holds no time, no request id and nothing of the machine: the same request and seed give the same bytes.

    Attributes:
        prompt: Prompt as sent.
        negative_prompt: Negative prompt as sent.
        base_model: Base model by name.
        base_model_fingerprint: SHA-256 (hex) of the base model.
        concepts: Concepts in the order of their first word, prompt before negative prompt.
        seed: Seed of this image.
        steps: Denoising steps.
        guidance_scale: Guidance scale.
        solver: Solver by name.
        width: Pixels.
        height: Pixels.
        generator_version: Version of detex.
        composition: Places of subjects; None where they had none.
        edit: What became of a photo; None where the image was drawn from nothing.
        guidance_interval: Start and end, in shares of the steps, of those that were guided; None for all or none.
    """

    prompt: str
    negative_prompt: str
    base_model: str
    base_model_fingerprint: str
    concepts: tuple[ConceptProvenance, ...]
    seed: int = Field(ge=0, lt=2**32)
    steps: int
    guidance_scale: float
    solver: str
    width: int
    height: int
    generator_version: str
    composition: CompositionProvenance | None = None
    edit: EditProvenance | None = None
    guidance_interval: tuple[float, float] | None = None


def composition_provenance(request: GenerationRequest) -> CompositionProvenance | None:
    """The places of subjects of a request."""
    if request.composition is None:
        return None
    blended = request.composition.mode is RegionMode.BLEND
    regions = []
    for region in request.composition.regions:
        place = region.place
        regions.append(
            RegionProvenance(
                concept=region.concept,
                box=(place.left, place.top, place.right, place.bottom) if isinstance(place, Box) else None,
                mask_sha256="" if isinstance(place, Box) else hashlib.sha256(place).hexdigest(),
                weight=region.weight,
                prompt=str(region.prompt) if blended else "",
            )
        )
    return CompositionProvenance(mode=request.composition.mode.value, regions=tuple(regions))


def edit_provenance(request: GenerationRequest) -> EditProvenance | None:
    """The edit of a request."""
    edit = request.edit
    if edit is None:
        return None
    return EditProvenance(
        kind=edit.kind.value,
        image_sha256=hashlib.sha256(edit.image).hexdigest(),
        mask_sha256=hashlib.sha256(edit.mask).hexdigest() if edit.mask else "",
        strength=edit.strength,
        shadow=edit.shadow,
    )


def write_png(image: Image.Image, provenance: Provenance | None = None) -> bytes:
    """PNG of an image, with its provenance as JSON in the text chunk `detex` where given."""
    information = PngImagePlugin.PngInfo()
    if provenance is not None:
        # ASCII, because PNG text chunks are Latin-1; JSON escapes the rest.
        told = provenance.model_dump(mode="json", exclude_none=True)
        information.add_text(PNG_TEXT_KEY, json.dumps(told, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=information)
    return buffer.getvalue()


def read_provenance(png: bytes) -> Provenance:
    """The provenance in a PNG of this service.

    Raises:
        InvalidInputError: `png` is no PNG, carries no provenance, or one that does not parse.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            text = image.info.get(PNG_TEXT_KEY)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise invalid_input("png", f"{len(png):,} bytes that are not a PNG", "a PNG made by the generator") from error
    if not isinstance(text, str):
        raise invalid_input("png", f"a PNG without the text chunk {PNG_TEXT_KEY!r}", "a PNG made by the generator")
    try:
        return Provenance.model_validate_json(text)
    except ValidationError as error:
        raise invalid_input("png", f"the text chunk {text!r}", "a PNG with the generator's provenance") from error
