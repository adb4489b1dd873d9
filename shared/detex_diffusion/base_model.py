"""A base model: Stable Diffusion 1.x, 2.x or XL from a folder in diffusers format, frozen.

Legend: B rows, T token positions, E text width, C latent channels, P width of image features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from detex_core.errors import FailedPreconditionError, ResourceExhaustedError
from detex_core.object_store import ObjectStore
from detex_core.settings import BaseModelSettings, state_folder
from detex_diffusion import model_parts as parts
from detex_diffusion.config_rules import unsupported
from detex_diffusion.cross_attention import unsupported_attention
from detex_diffusion.fingerprint import fingerprint
from detex_diffusion.model_folder import check_folder, fingerprinted_files, image_encoder_folder
from detex_diffusion.model_size import weight_bytes
from detex_diffusion.model_source import model_folder
from detex_diffusion.noise_schedule import NoiseSchedule
from detex_diffusion.part_configs import picture_size
from detex_diffusion.text_conditioning import TextConditioning, load_text_conditioning


@dataclass(frozen=True, eq=False)
class BaseModel:
    """All parts of a base model on one device; nothing in it is trained.

    Attributes:
        name: As in the settings.
        fingerprint: SHA-256 (hex) over tokenizers, text encoders, UNet and noise schedule: all that a concept depends
            on.
        folder: Where it was read from.
        text: Tokenizer and text encoders: what sets kinds of base models apart.
        image_encoder: CLIPVisionModelWithProjection, or None.
        image_processor: CLIPImageProcessorPil of the image encoder, or None.
        vae: AutoencoderKL.
        unet: UNet2DConditionModel.
        noise_schedule: The forward process.
        device: Of all parts.
        dtype: Of all parts, but for the VAE of Stable Diffusion XL, which overflows in float16 and is then float32.
        height: Height in pixels of the pictures it was made for.
        width: Width in pixels of the pictures it was made for.
    """

    name: str
    fingerprint: str
    folder: Path
    text: TextConditioning
    image_encoder: Any | None
    image_processor: Any | None
    vae: Any
    unet: Any
    noise_schedule: NoiseSchedule
    device: torch.device
    dtype: torch.dtype
    height: int
    width: int

    @property
    def tokenizer(self) -> Any:
        """CLIPTokenizer; `model_max_length` is T."""
        return self.text.tokenizer

    @property
    def text_encoder(self) -> Any:
        """The first text encoder, a CLIPTextModel; the only one but for Stable Diffusion XL."""
        return self.text.encoders[0].model

    @property
    def prompt_tokens(self) -> int:
        """T, start and end included."""
        return int(self.tokenizer.model_max_length)

    @property
    def embedding_width(self) -> int:
        """E, of all text encoders side by side."""
        return self.text.width

    @property
    def pixels_per_latent(self) -> int:
        """Pixels of a picture along one latent."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_multiple(self) -> int:
        """Heights and widths in pixels are multiples of this."""
        return self.pixels_per_latent

    def latent_shape(self, height: int = 0, width: int = 0) -> tuple[int, int, int]:
        """(C, h, w) of a picture of that size in pixels; 0 means the size it was made for."""
        factor = self.pixels_per_latent
        return int(self.unet.config.in_channels), (height or self.height) // factor, (width or self.width) // factor

    def modules(self) -> tuple[nn.Module, ...]:
        """All parts with weights."""
        given = (*self.text.modules(), self.image_encoder, self.vae, self.unet)
        return tuple(module for module in given if module is not None)

    @property
    def size_bytes(self) -> int:
        """Memory of all weights."""
        return sum(p.numel() * p.element_size() for module in self.modules() for p in module.parameters())

    @torch.no_grad()
    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Features of pictures by the CLIP image encoder: (B, P) float32, not normalised.

        Raises:
            FailedPreconditionError: The base model has no image encoder.
        """
        if self.image_encoder is None or self.image_processor is None:
            raise FailedPreconditionError(
                f"Base model {self.name!r} has no image encoder; set image_encoder_source to a folder of a "
                "CLIPVisionModelWithProjection."
            )
        pixels = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        pixels = pixels.to(device=self.device, dtype=self.dtype)
        features: Tensor = self.image_encoder(pixel_values=pixels).image_embeds
        return features.float()


def load_base_model(
    settings: BaseModelSettings,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    object_store: ObjectStore | None = None,
    *,
    work_folder: Path | None = None,
    allow_downloads: bool = False,
    largest_bytes: int | None = None,
) -> BaseModel:
    """Load a base model.

    Args:
        settings: Name and source, see `BaseModelSettings`.
        device: Where to put it.
        dtype: float32, float16 or bfloat16, whatever the files hold.
        object_store: For sources `store:`.
        work_folder: Where copies of what is not local are kept; by default a folder of the user's state.
        allow_downloads: Whether sources `hub:` may be downloaded.
        largest_bytes: Memory that its weights may take; None for no limit.

    Raises:
        FailedPreconditionError: The source cannot be had here, is of no supported kind, or holds pickles.
        NotFoundError: The object store or the hub has nothing there.
        DataLossError: A file is missing or damaged, or lacks tensors.
        UnavailableError: The object store or the hub does not answer.
        ResourceExhaustedError: Its weights take more than `largest_bytes`; none of them has been read then.
    """
    find = partial(
        model_folder,
        work_folder=work_folder or state_folder(),
        object_store=object_store,
        allow_downloads=allow_downloads,
    )
    folder = find(settings.source)
    index = check_folder(folder)
    if largest_bytes is not None:
        _check_size(settings.name, weight_bytes(folder, index, dtype), largest_bytes, dtype)
    place = torch.device(device)
    text = load_text_conditioning(folder, index, dtype)
    unet = parts.load_unet(folder, dtype)
    vae = parts.load_vae(folder, parts.vae_dtype(folder, index, dtype))
    noise_schedule = parts.load_noise_schedule(folder)
    _check_attention(folder, unet)
    encoder_folder = image_encoder_folder(folder)
    if encoder_folder is None and settings.image_encoder_source is not None:
        encoder_folder = find(settings.image_encoder_source)
    image_encoder = image_processor = None
    if encoder_folder is not None:
        image_encoder, image_processor = parts.load_image_encoder(encoder_folder, folder, dtype)
    for module in (*text.modules(), unet, vae, image_encoder):
        if module is not None:
            module.to(device=place).eval().requires_grad_(False)
    size = picture_size(folder)
    return BaseModel(
        name=settings.name,
        fingerprint=fingerprint(folder, fingerprinted_files(folder, index)),
        folder=folder,
        text=text,
        image_encoder=image_encoder,
        image_processor=image_processor,
        vae=vae,
        unet=unet,
        noise_schedule=noise_schedule,
        device=place,
        dtype=dtype,
        height=size.height,
        width=size.width,
    )


def _check_size(name: str, needed_bytes: int, largest_bytes: int, dtype: torch.dtype) -> None:
    if needed_bytes > largest_bytes:
        raise ResourceExhaustedError(
            f"Base model {name!r} takes {needed_bytes:,} bytes as {str(dtype).removeprefix('torch.')}, and "
            f"{max(0, largest_bytes):,} bytes are left for it; load fewer base models in a process, load them in half "
            "precision, or allow more memory.",
            reason="BASE_MODEL_DOES_NOT_FIT",
        )


def _check_attention(folder: Path, unet: Any) -> None:
    """Raise FailedPreconditionError where the UNet cannot read keys and values computed beforehand."""
    attention = unsupported_attention(unet)
    if attention is not None:
        raise unsupported(f"Base model in {folder.name!r}", f"its UNet is of an unsupported kind: {attention}.")
