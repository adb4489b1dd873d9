"""What a request says of its picture beyond words: places of subjects, and a photo to edit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from detex_client.errors import refused
from detex_client.wire_enum import WireEnum
from detex_client.wire_message import wire_message
from detex_protos.v1 import generator_pb2


class RegionMode(WireEnum):
    """How a prompt is read where subjects have places."""

    BLEND = "blend"
    JOINT = "joint"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return generator_pb2.RegionMode, "REGION_MODE_"


class EditKind(WireEnum):
    """What becomes of a photo."""

    IMAGE_TO_IMAGE = "image_to_image"
    INPAINT = "inpaint"
    KEEP_PRODUCT = "keep_product"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return generator_pb2.EditKind, "EDIT_KIND_"


@dataclass(frozen=True)
class Box:
    """A rectangle in shares of the picture's sides: 0 <= left < right <= 1, 0 <= top < bottom <= 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Region:
    """The place of a subject.

    Attributes:
        concept: Name of a concept whose subject word stands in the prompt; empty where `prompt` is given instead.
        place: A rectangle, or a mask, white on black: a file, or the bytes of one.
        weight: How much it counts against the rest of the prompt inside its region, above 0 and at most 10.
        prompt: What the region reads with RegionMode.BLEND; empty takes the prompt without the other subjects.
    """

    concept: str
    place: Box | Path | bytes
    weight: float = 1.0
    prompt: str = ""

    def to_wire(self, index: int = 0) -> generator_pb2.Region:
        """The message of the contract; raises DetexClientError for a mask that cannot be read.

        Args:
            index: Position among the regions of its request, for errors.
        """
        region = wire_message(generator_pb2.Region, concept=self.concept, weight=self.weight, prompt=self.prompt)
        if isinstance(self.place, Box):
            place = self.place
            region.box.CopyFrom(
                wire_message(generator_pb2.Box, left=place.left, top=place.top, right=place.right, bottom=place.bottom)
            )
        else:
            region.mask = _content(self.place, f"regions[{index}].mask")
        return region


@dataclass(frozen=True)
class Edit:
    """A photo to begin from or to keep a part of.

    Attributes:
        kind: What becomes of it.
        image: The photo: a file, or the bytes of one.
        mask: Of the photo's size: white is redrawn with INPAINT, and stays with KEEP_PRODUCT. None leaves
            KEEP_PRODUCT to the photo's transparent pixels.
        strength: How far the picture may leave the photo where it is redrawn, above 0 and at most 1; None takes 0.8
            with IMAGE_TO_IMAGE and 1 otherwise.
        shadow: Opacity of a contact shadow below the product, 0 to 1, with KEEP_PRODUCT.
    """

    kind: EditKind
    image: Path | bytes
    mask: Path | bytes | None = None
    strength: float | None = None
    shadow: float = 0.0

    def to_wire(self) -> generator_pb2.Edit:
        """The message of the contract; raises DetexClientError for a file that cannot be read."""
        mask = b"" if self.mask is None else _content(self.mask, "edit.mask")
        return wire_message(
            generator_pb2.Edit,
            kind=self.kind.number(),
            image=_content(self.image, "edit.image"),
            mask=mask,
            strength=self.strength,
            shadow=self.shadow,
        )


@dataclass(frozen=True)
class RegionProvenance:
    """The place of a subject that a picture was drawn with; fields as `detex.v1.RegionProvenance` documents them."""

    concept: str
    box: Box | None
    mask_sha256: str
    weight: float
    prompt: str

    @classmethod
    def from_wire(cls, region: generator_pb2.RegionProvenance) -> Self:
        """From the message of the contract."""
        box = None
        if region.HasField("box"):
            box = Box(region.box.left, region.box.top, region.box.right, region.box.bottom)
        return cls(region.concept, box, region.mask_sha256, region.weight, region.prompt)


@dataclass(frozen=True)
class EditProvenance:
    """What became of a photo; fields as `detex.v1.EditProvenance` documents them."""

    kind: EditKind
    image_sha256: str
    mask_sha256: str
    strength: float
    shadow: float

    @classmethod
    def from_wire(cls, edit: generator_pb2.EditProvenance) -> Self:
        """From the message of the contract."""
        kind = EditKind.from_number(edit.kind)
        return cls(kind, edit.image_sha256, edit.mask_sha256, edit.strength, edit.shadow)


def _content(source: Path | bytes, field: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise refused(field, f"{source} ({error.strerror})", "a readable file") from None
