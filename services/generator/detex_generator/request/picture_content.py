"""What a request says of its picture beyond words: places of subjects, and a photo to edit."""

from dataclasses import dataclass, field
from enum import StrEnum

from detex_core.prompt import Prompt
from detex_diffusion.regions import Box, RegionMode


@dataclass(frozen=True)
class Region:
    """The place of a subject.

    Attributes:
        concept: Whose subject word stands in the prompt; empty for a region of plain words.
        place: A rectangle, or a mask as a file.
        weight: How much it counts against the rest of the prompt, above 0 and at most 10.
        prompt: What it reads where regions are blended.
    """

    concept: str
    place: Box | bytes = field(repr=False)
    weight: float
    prompt: Prompt


@dataclass(frozen=True)
class Composition:
    """Where subjects stand.

    Attributes:
        regions: One or more.
        mode: How the prompt is read.
    """

    regions: tuple[Region, ...]
    mode: RegionMode


class EditKind(StrEnum):
    """What becomes of a photo."""

    IMAGE_TO_IMAGE = "image_to_image"
    INPAINT = "inpaint"
    KEEP_PRODUCT = "keep_product"


@dataclass(frozen=True)
class Edit:
    """A photo as part of a request; the files stay as they came until they are needed, for they are small so.

    Attributes:
        kind: What becomes of it.
        image: The photo as a file.
        mask: The mask as a file; empty without one.
        strength: Share of the denoising steps that is done, above 0 and at most 1.
        shadow: Opacity of a contact shadow, 0 to 1.
    """

    kind: EditKind
    image: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    strength: float
    shadow: float

    @property
    def keeps(self) -> bool:
        """Whether a part of the photo stays as it is, which gives the picture the photo's size."""
        return self.kind is not EditKind.IMAGE_TO_IMAGE

    def first_step(self, steps: int) -> int:
        """Which of so many denoising steps is the first that is done; `steps` where none would be."""
        return steps - min(int(steps * self.strength), steps)
