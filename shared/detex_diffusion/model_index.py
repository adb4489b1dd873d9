"""`model_index.json`: which kind of base model a folder holds, and which parts that has."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detex_core.errors import FailedPreconditionError
from detex_diffusion.model_files import read_json

SUPPORTED = "Stable Diffusion 1.x, 2.x and XL (base)"


class Architecture(StrEnum):
    """Kinds of base models; what differs is how text conditions the UNet."""

    STABLE_DIFFUSION = "stable_diffusion"
    """1.x and 2.x (Rombach et al. 2022, arXiv 2112.10752): one text encoder."""

    STABLE_DIFFUSION_XL = "stable_diffusion_xl"
    """Podell et al. 2023 (arXiv 2307.01952): two text encoders, a pooled embedding, and conditions on the size."""


_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
_CLASSES_OF_XL = {**_CLASSES, "text_encoder_2": "CLIPTextModelWithProjection", "tokenizer_2": "CLIPTokenizer"}


@dataclass(frozen=True)
class ModelIndex:
    """What a folder says of itself.

    Attributes:
        architecture: Kind of base model.
        zeros_when_unconditional: Whether the UNet reads zeros in place of an empty negative prompt
            (`force_zeros_for_empty_prompt` of StableDiffusionXLPipeline).
    """

    architecture: Architecture
    zeros_when_unconditional: bool = False

    @property
    def text_parts(self) -> tuple[tuple[str, str], ...]:
        """Folders of tokenizer and text encoder, by pairs."""
        first = ("tokenizer", "text_encoder")
        if self.architecture is Architecture.STABLE_DIFFUSION:
            return (first,)
        return first, ("tokenizer_2", "text_encoder_2")


def read_model_index(folder: Path) -> ModelIndex:
    """Read `model_index.json`.

    Raises:
        FailedPreconditionError: It names parts of another kind of model.
        DataLossError: It is missing or cannot be read.
    """
    index = read_json(folder / "model_index.json")
    is_xl = _class_of(index, "text_encoder_2") is not None
    for part, expected in (_CLASSES_OF_XL if is_xl else _CLASSES).items():
        given = _class_of(index, part)
        # Folders written by older releases name the fast tokenizer.
        if given not in (expected, f"{expected}Fast"):
            raise FailedPreconditionError(
                f"Base model in {folder.name!r}: model_index.json gives {given!r} as {part}, not "
                f"{expected}; accepted are {SUPPORTED}."
            )
    if not is_xl:
        return ModelIndex(Architecture.STABLE_DIFFUSION)
    return ModelIndex(Architecture.STABLE_DIFFUSION_XL, bool(index.get("force_zeros_for_empty_prompt", True)))


def _class_of(index: dict[str, object], part: str) -> str | None:
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None
