"""Where an image comes from, written into its PNG: all that it takes to draw it again."""

import io
import json

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detex_core.errors import invalid_input

PNG_TEXT_KEY = "detex"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ConceptProvenance(_Record):
    """A concept that an image was drawn with: name, version, and the SHA-256 (hex) of its manifest."""

    name: str
    version: str
    manifest_sha256: str


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


def write_png(image: Image.Image, provenance: Provenance | None = None) -> bytes:
    """PNG of an image, with its provenance as JSON in the text chunk `detex` where given."""
    information = PngImagePlugin.PngInfo()
    if provenance is not None:
        # ASCII, because PNG text chunks are Latin-1; JSON escapes the rest.
        information.add_text(PNG_TEXT_KEY, json.dumps(provenance.model_dump(mode="json"), sort_keys=True))
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
        raise invalid_input("png", f"{len(png):,} bytes that are no PNG", "a PNG drawn by the generator") from error
    if not isinstance(text, str):
        raise invalid_input("png", f"a PNG without the text chunk {PNG_TEXT_KEY!r}", "a PNG drawn by the generator")
    try:
        return Provenance.model_validate_json(text)
    except ValidationError as error:
        raise invalid_input("png", f"the text chunk {text!r}", "provenance as the generator writes it") from error
