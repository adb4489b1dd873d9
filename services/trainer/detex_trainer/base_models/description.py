"""What callers learn of a base model."""

import functools
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from detex_core.artifact.manifest import Sha256
from detex_core.object_store import open_object_store
from detex_core.settings import BaseModelSettings, ObjectStoreSettings
from detex_trainer.domain.base_model_family import BaseModelFamily, family_of
from detex_trainer.domain.job_size import UNetShape, unet_shape
from detex_trainer.intake.text_limits import TextReader


class BaseModelDescription(BaseModel):
    """A base model without its weights.

    Attributes:
        name: As in the settings.
        fingerprint: SHA-256 (hex) over all that a concept depends on.
        width: Width in pixels that it was trained at.
        height: Height in pixels that it was trained at.
        prediction_type: `epsilon` or `v_prediction`.
        size_multiple: What sides in pixels must be multiples of.
        has_image_encoder: Whether it tells photos apart, which attribute words are learned by.
        tokenizer: Its (first) tokenizer, as JSON of the library tokenizers.
        text_tokens: Tokens of a prompt that it reads, without start and end.
        unet: What its UNet takes of memory.
        family: By which defaults are chosen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fingerprint: Sha256
    width: int
    height: int
    prediction_type: str
    size_multiple: int
    has_image_encoder: bool
    tokenizer: str
    text_tokens: int
    unet: UNetShape
    family: BaseModelFamily

    def text_reader(self) -> TextReader:
        """How it reads text."""
        tokenizer = _opened(self.tokenizer)
        return TextReader(
            self.name, lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids), self.text_tokens
        )


@functools.lru_cache(8)
def _opened(content: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class DescriptionRequest(BaseModel):
    """What is to be described, and where it may be fetched from; secrets come through the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: BaseModelSettings
    object_store_url: str
    work_folder: Path
    allow_downloads: bool


class DescriptionAnswer(BaseModel):
    """The description, or the reason why there is none.

    Attributes:
        description: None where there is none.
        refusal: Why, human-readable.
        reason: The same for machines, as of errors of the domain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: BaseModelDescription | None = None
    refusal: str = ""
    reason: str = ""


def describe(request: DescriptionRequest) -> BaseModelDescription:
    """Read configurations and hashes of a base model; raises DetexError where it cannot be had."""
    # Imported here because they bring transformers, which the process that serves calls does without.
    from detex_diffusion.model_source import model_folder

    source = request.base_model.source
    folder = model_folder(
        source,
        work_folder=request.work_folder,
        object_store=(
            open_object_store(ObjectStoreSettings(url=request.object_store_url), create=False)
            if source.startswith("store:")
            else None
        ),
        allow_downloads=request.allow_downloads,
    )
    from detex_diffusion.fingerprint import fingerprint
    from detex_diffusion.model_files import read_json
    from detex_diffusion.model_folder import check_folder, fingerprinted_files, image_encoder_folder
    from detex_diffusion.part_configs import picture_size
    from detex_diffusion.scheduler_config import prediction_type
    from detex_diffusion.tokenizer import load_tokenizer

    index = check_folder(folder)
    size = picture_size(folder)
    factor = size.pixels_per_latent
    unet_config = read_json(folder / "unet" / "config.json")
    shape = unet_shape(unet_config, pixels_per_latent=factor)
    tokenizer = load_tokenizer(*(folder / part for part in index.text_parts[0]))
    return BaseModelDescription(
        name=request.base_model.name,
        fingerprint=fingerprint(folder, fingerprinted_files(folder, index)),
        width=size.width,
        height=size.height,
        prediction_type=prediction_type(read_json(folder / "scheduler" / "scheduler_config.json")),
        size_multiple=factor * 2 ** (len(shape.channels) - 1),
        has_image_encoder=bool(request.base_model.image_encoder_source) or image_encoder_folder(folder) is not None,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        text_tokens=int(tokenizer.model_max_length) - 2,
        unet=shape,
        family=family_of(unet_config),
    )
