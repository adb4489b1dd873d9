"""Photos of a training set as tensors: cropped, varied and encoded once, before the first step.

Legend: N photos, V versions of each (0 is the photo as it is), C latent channels, (h, h) latent size, P width of image
features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detex_core.errors import invalid_input
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import encode_images, to_pixels
from detex_trainer.domain.prompts import random_view
from detex_trainer.intake.masks import Mask, downsample_masks, subject_box
from detex_trainer.learning.photos.crops import Augmentation, Crop, cut, resized_crop, subject_crop, varied_crop
from detex_trainer.learning.resumable import PartState

_ENCODING_BATCH = 16
_ENCODING_PIXELS = _ENCODING_BATCH * 512**2  # for which a VAE takes gigabytes


@dataclass(frozen=True)
class MaskedPhoto:
    """A photo whose subject is known.

    Attributes:
        picture: RGB, W x H.
        mask: (H, W) from 0 to 1.
        caption: What the user says of it; may be empty.
        subject: (H, W) from 0 to 1, where the subject is, for reports on methods that take the whole photo as `mask`;
            None where it is `mask`.
    """

    picture: Image.Image
    mask: Mask
    caption: str = ""
    subject: Mask | None = None


@dataclass(frozen=True)
class Batch:
    """Photos of one step.

    Attributes:
        photo_indices: B positions in the set.
        latents: (B, C, h, h).
        masks: (B, 1, h, h).
        valid: (B, 1, h, h).
        features: (B, P) of the same versions, or (B, 0) where none were wanted.
        views: B, what is to be said of how they are shown, for example `far away`; empty for as they are.
    """

    photo_indices: tuple[int, ...]
    latents: Tensor
    masks: Tensor
    valid: Tensor
    features: Tensor
    views: tuple[str, ...]


@dataclass(frozen=True)
class PhotoSet:
    """All photos in all versions, on the base model's device.

    Attributes:
        latents: (N, V, C, h, h).
        masks: (N, V, 1, h, h), share of each cell that the subject covers.
        valid: (N, V, 1, h, h), 0 where the picture was filled up.
        features: (N, V, P), or (N, V, 0) where none were wanted.
        captions: N, may be empty.
        pictures: N crops as they are, for reports.
        subjects: N grey crops, white where the subject is, for reports; whether or not `masks` tell it.
        views: N by V, what is to be said of how they are shown; empty where nothing ever is.
    """

    latents: Tensor
    masks: Tensor
    valid: Tensor
    features: Tensor
    captions: tuple[str, ...]
    pictures: tuple[Image.Image, ...]
    subjects: tuple[Image.Image, ...] = ()
    views: tuple[tuple[str, ...], ...] = ()

    @property
    def photos(self) -> int:
        """N."""
        return int(self.latents.shape[0])

    @property
    def versions(self) -> int:
        """V."""
        return int(self.latents.shape[1])

    def batch(self, photo_indices: Sequence[int], versions: Sequence[int]) -> Batch:
        """The given versions of the given photos."""
        at = (list(photo_indices), list(versions))
        views = [self.views[i][v] if self.views else "" for i, v in zip(photo_indices, versions, strict=True)]
        return Batch(
            tuple(photo_indices), self.latents[at], self.masks[at], self.valid[at], self.features[at], tuple(views)
        )

    def report_batch(self, photo_indices: Sequence[int]) -> Batch:
        """Photos as they are with the masks of their subjects, whether or not the method looks at them."""
        batch = self.batch(photo_indices, [0] * len(photo_indices))
        if not self.subjects:
            return batch
        masks = downsample_masks(_grey([self.subjects[i] for i in photo_indices]), *batch.masks.shape[-2:])
        return replace(batch, masks=masks.to(batch.masks.device))


def training_side(base_model: BaseModel, resolution: int) -> int:
    """Side in pixels of the square that photos are brought to.

    Args:
        base_model: Whose own size is the default.
        resolution: As in the hyperparameters; 0 takes the base model's shorter side.

    Raises:
        InvalidInputError: The base model's UNet cannot take that size; field `hyperparameters.resolution`.
    """
    multiple = base_model.pixels_per_latent * 2 ** (len(base_model.unet.config.block_out_channels) - 1)
    if resolution % multiple:
        raise invalid_input(
            "hyperparameters.resolution", resolution, f"0, or a multiple of {multiple} for base model {base_model.name}"
        )
    return resolution or min(base_model.height, base_model.width)


def prepare_photos(
    photos: Sequence[MaskedPhoto],
    base_model: BaseModel,
    side: int,
    versions: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    with_features: bool = True,
    resizes: bool = False,
) -> PhotoSet:
    """Crop, vary and encode photos.

    Args:
        photos: At least one.
        base_model: Whose VAE and image encoder.
        side: Side of the crops in pixels, see `training_side`.
        versions: V, at least 1; the first is the photo as it is.
        augmentation: How the others vary.
        generator: Source of the variation.
        with_features: Whether to run the image encoder; attribute mappers need it.
        resizes: Whether the others show the photo small and from near, in place of `augmentation`.

    Raises:
        FailedPreconditionError: Features are wanted, and the base model has no image encoder.
    """
    crops: list[Crop] = []
    subjects: list[Image.Image] = []
    views: list[list[str]] = []
    for photo in photos:
        subject = subject_box(photo.mask)
        box = subject_crop(*photo.picture.size, subject)
        crops.append(cut(photo.picture, photo.mask, box, side))
        whole = crops[-1].mask
        subjects.append(whole if photo.subject is None else cut(photo.picture, photo.subject, box, side).mask)
        views.append([""])
        for _ in range(versions - 1):
            if resizes:
                resized, view = resized_crop(box, generator)
                crops.append(cut(photo.picture, photo.mask, resized, side))
                views[-1].append(random_view(view, generator))
                continue
            views[-1].append("")
            varied = varied_crop(box, subject, augmentation, generator)
            mirrored = augmentation.mirror and bool(torch.rand((), generator=generator) < 0.5)
            crops.append(cut(photo.picture, photo.mask, varied, side, mirrored=mirrored))
    latents, features = [], []
    batch = max(1, min(_ENCODING_BATCH, _ENCODING_PIXELS // side**2))
    for start in range(0, len(crops), batch):
        pictures = [crop.picture for crop in crops[start : start + batch]]
        latents.append(encode_images(base_model.vae, to_pixels(pictures)).float())
        features.append(base_model.image_features(pictures) if with_features else torch.zeros(len(pictures), 0))
    encoded = torch.cat(latents)
    shape = (len(photos), versions)
    height, width = encoded.shape[-2:]
    masks = downsample_masks(_grey([crop.mask for crop in crops]), height, width)
    valid = downsample_masks(_grey([crop.valid for crop in crops]), height, width)
    return PhotoSet(
        latents=encoded.view(*shape, *encoded.shape[1:]),
        masks=masks.view(*shape, 1, height, width).to(encoded.device),
        valid=valid.view(*shape, 1, height, width).to(encoded.device),
        features=torch.cat(features).view(*shape, -1).to(encoded.device),
        captions=tuple(photo.caption for photo in photos),
        pictures=tuple(crops[index * versions].picture for index in range(len(photos))),
        subjects=tuple(subjects),
        views=tuple(tuple(each) for each in views) if resizes else (),
    )


class PhotoBatches:
    """Batches without end: every photo comes once before any comes again, each time in a random version."""

    def __init__(self, photo_set: PhotoSet, batch_size: int, generator: torch.Generator) -> None:
        """Draws from a CPU generator."""
        self._photo_set = photo_set
        self._batch_size = batch_size
        self._generator = generator
        self._pending: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while len(self._pending) < self._batch_size:
            self._pending += torch.randperm(self._photo_set.photos, generator=self._generator).tolist()
        chosen, self._pending = self._pending[: self._batch_size], self._pending[self._batch_size :]
        versions = torch.randint(0, self._photo_set.versions, (self._batch_size,), generator=self._generator).tolist()
        return self._photo_set.batch(chosen, versions)

    def state(self) -> PartState:
        """The photos still to come before any comes again; the generator is somebody else's."""
        return PartState(values={"pending": list(self._pending)})

    def restore(self, state: PartState) -> None:
        """Go back to a state."""
        self._pending = [int(photo) for photo in state.values["pending"]]


def _grey(images: Sequence[Image.Image]) -> Tensor:
    """(B, 1, H, W) from 0 to 1."""
    arrays = [np.asarray(image, dtype=np.float32) / 255 for image in images]
    return torch.from_numpy(np.stack(arrays)).unsqueeze(1)
