"""Photos on their way from a request into latents, and back into the finished picture.

Legend: C latent channels, h and w latent height and width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from detex_core.errors import invalid_input
from detex_core.images import decode_mask, decode_photo
from detex_diffusion.base_model import BaseModel
from detex_diffusion.editing import Keeping, flattened, held_latents, keeping, photo_latents, put_together
from detex_diffusion.solver import StepTable
from detex_generator.engine.intake.picture_memory import PictureMemory
from detex_generator.request.picture_content import Edit, EditKind


@dataclass(frozen=True, eq=False)
class PhotoLatents:
    """A photo as an image begins from it.

    Attributes:
        clean: (C, h, w) float32, the photo's latents.
        held: (1, h, w) float32, 1 where the photo's latents are held on to; None where nowhere.
    """

    clean: Tensor
    held: Tensor | None


@dataclass(frozen=True, eq=False)
class PhotoHold:
    """Puts a part of a photo back into the latents of one image after each step, with the noise of that step.

    Attributes:
        table: Coefficients of the run.
        clean: (C, h, w), the photo's latents.
        held: (1, h, w), 1 where they are put back.
        noise: (C, h, w), standard normal, that the run began with.
    """

    table: StepTable
    clean: Tensor
    held: Tensor
    noise: Tensor

    def apply(self, latents: Tensor, step: int) -> Tensor:
        """Latents (C, h, w) after so many steps."""
        return torch.where(self.held > 0, self.table.noised(self.clean, self.noise, step), latents)


class PhotoEditing:
    """The edit of one request. Files are decoded where they are needed and not kept, latents once and kept."""

    def __init__(self, edit: Edit, base_model: BaseModel, width: int, height: int, memory: PictureMemory) -> None:
        """Draw for this edit in so many pixels.

        Raises:
            InvalidInputError: The photo or the mask does not decode, or nothing tells what to keep.
        """
        self.edit = edit
        self._base_model = base_model
        self._size = (width, height)
        self._memory = memory
        with self._decoded() as (photo, kept):
            self._check(photo, kept)

    def _check(self, photo: Image.Image, kept: Keeping) -> None:
        edit = self.edit
        if edit.kind is EditKind.KEEP_PRODUCT and not edit.mask and photo.mode != "RGBA":
            raise invalid_input(
                "edit.mask",
                "neither",
                "a mask that is white where the product is, or empty for a photo with transparent pixels",
            )
        if edit.keeps and not (kept < 1).any():
            raise invalid_input("edit.mask", "a mask that leaves nothing to draw", "a mask of part of the photo")

    @cached_property
    @torch.inference_mode()
    def latents(self) -> PhotoLatents:
        """The photo in latents; the same for all images of the request."""
        with self._decoded() as (photo, kept):
            clean = photo_latents(self._base_model.vae, flattened(photo), self._size, cut=not self.edit.keeps)
            held = None
            if self.edit.keeps:
                held = held_latents(kept, *clean.shape[-2:]).to(clean.device)
            return PhotoLatents(clean, held)

    def prepare(self) -> None:
        """Compute what a slot needs, so that the step loop need not wait for the VAE."""
        _ = self.latents

    def begin(self, table: StepTable, noise: Tensor) -> Tensor:
        """Latents (C, h, w) before the first step, from standard normal noise of that shape.

        A run of all steps begins from noise alone where a part of the photo is held on to, for what is redrawn is to
        owe nothing to the photo.
        """
        if self.edit.keeps and self.edit.strength >= 1:
            return noise * table.initial_noise_scale
        return table.noised(self.latents.clean, noise, 0)

    def hold(self, table: StepTable, noise: Tensor) -> PhotoHold | None:
        """What puts the photo back after each step; None where no part of it stays."""
        photo = self.latents
        return None if photo.held is None else PhotoHold(table, photo.clean, photo.held, noise)

    def finish(self, drawn: Image.Image) -> Image.Image:
        """The finished picture: what was drawn, with the photo where it is kept."""
        if not self.edit.keeps:
            return drawn
        with self._decoded() as (photo, kept):
            return put_together(photo.convert("RGB"), drawn, kept, shadow=self.edit.shadow)

    @contextmanager
    def _decoded(self) -> Iterator[tuple[Image.Image, Keeping]]:
        """Photo and what is kept of it, for the time of a block."""
        with self._memory.decoding({"edit.image": self.edit.image, "edit.mask": self.edit.mask}):
            photo = decode_photo(self.edit.image, field="edit.image")
            mask = decode_mask(self.edit.mask, field="edit.mask", size=photo.size) if self.edit.mask else None
            yield photo, keeping(photo, mask, repaint=self.edit.kind is EditKind.INPAINT)
