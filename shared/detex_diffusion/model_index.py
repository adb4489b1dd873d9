"""`model_index.json`: which kind of base model a folder holds, and which parts that has."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detex_diffusion.config_rules import Rule, Rules, check_config, one_of, switch, unread, unsupported
from detex_diffusion.model_files import read_json
from detex_diffusion.scheduler_config import check_scheduler_class

SUPPORTED = "Stable Diffusion 1.x, 2.x and XL (base)"

SIZE_CONDITIONS = 6
"""Numbers on the size that Stable Diffusion XL's UNet takes of each row."""


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


_NOT_READ = "pictures are drawn without it"
_RULES: Rules = {
    "_class_name": one_of(
        None,
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
        reason=f"supported are {SUPPORTED}",
    ),
    "scheduler": Rule(lambda value: True, "a known class"),  # held against the list of classes
    "force_zeros_for_empty_prompt": switch(),
    "requires_aesthetics_score": one_of(False, None, reason="refiners are not supported"),
    "image_encoder": one_of(
        None,
        [None, None],
        ["transformers", "CLIPVisionModelWithProjection"],
        reason="photos are told apart by this kind of encoder alone",
    ),
    **unread(
        "add_watermarker",
        "feature_extractor",
        "is_cosxl_edit",
        "requires_safety_checker",
        "safety_checker",
        "watermark",
        reason=_NOT_READ,
    ),
}


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
            raise unsupported(
                f"Base model in {folder.name!r}",
                f"model_index.json: {part} must be {expected}, got {given!r}; supported are {SUPPORTED}.",
            )
    parts = _CLASSES_OF_XL if is_xl else _CLASSES
    check_config("model_index.json", {key: value for key, value in index.items() if key not in parts}, _RULES)
    if index.get("scheduler") is not None:
        check_scheduler_class("model_index.json", _class_of(index, "scheduler"))
    if not is_xl:
        return ModelIndex(Architecture.STABLE_DIFFUSION)
    return ModelIndex(Architecture.STABLE_DIFFUSION_XL, bool(index.get("force_zeros_for_empty_prompt", True)))


def _class_of(index: dict[str, object], part: str) -> str | None:
    entry = index.get(part)
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    return name if isinstance(name, str) else None
