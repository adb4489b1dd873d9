"""Rendered photos as the judge learns from them: two of each subject, some as the base model's VAE gives them back.

Legend: N photos, two of each of the S = N / 2 subjects, next to each other; s side in pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.renderer import PhotoLabels
from benchmarks.showroom.shards import PHOTOS_PER_SUBJECT, load_shards
from detex_diffusion.latents import decode_latents, encode_images

LARGEST_LATENT_NOISE: Final = 0.25
"""Deviation of the noise on latents before they are decoded: a UNet's latents are not quite those of an encoder."""
_LARGEST_SHIFT: Final = 0.1  # of half the picture's side
_LARGEST_ZOOM: Final = 0.15
_LARGEST_TURN: Final = 0.08  # radians
_DECODING_BATCH: Final = 50


@dataclass(frozen=True)
class JudgePhotos:
    """Photos of one split.

    Attributes:
        images: (N, 3, s, s) uint8.
        masks: (N, 1, s, s) uint8.
        reconstructions: (R, 3, s, s) uint8, the first R photos after encoding and decoding; R from 0 to N.
        factors: Word numbers (N,) by factor.
        shapes: (N, shape parameters).
        colours: (N, 6), linear RGB of main and accent colour.
    """

    images: Tensor
    masks: Tensor
    reconstructions: Tensor
    factors: dict[str, Tensor]
    shapes: Tensor
    colours: Tensor

    @property
    def subjects(self) -> int:
        """S."""
        return len(self.images) // PHOTOS_PER_SUBJECT


def load_photos(paths: Sequence[Path]) -> JudgePhotos:
    """Read shards, without reconstructions; raises as `load_shards`."""
    photos = load_shards(paths)
    images = torch.from_numpy(photos.images).permute(0, 3, 1, 2).contiguous()
    return JudgePhotos(
        images=images,
        masks=torch.from_numpy(photos.masks)[:, None].contiguous(),
        reconstructions=images[:0],
        factors={
            name: torch.tensor([words.index(factor_word(labels, name)) for labels in photos.labels])
            for name, words in FACTORS.items()
        },
        shapes=torch.tensor([labels.subject.shape for labels in photos.labels]),
        colours=torch.tensor([(*labels.subject.main_rgb, *labels.subject.accent_rgb) for labels in photos.labels]),
    )


def factor_word(labels: PhotoLabels, factor: str) -> str:
    """The word of a factor in the labels of a photo."""
    words = {
        "class": labels.subject.class_word,
        "pose": labels.view.pose,
        "scene": labels.view.scene,
        "main colour": labels.subject.main_colour,
        "accent colour": labels.subject.accent_colour,
        "pattern": labels.subject.pattern,
    }
    return words[factor]


def reconstruct(vae: Any, images: Tensor, largest_noise: float, report: Callable[[str], None]) -> Tensor:
    """Images (N, 3, s, s) uint8 through a VAE, with noise on the latents of a deviation from 0 to `largest_noise`."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for start in range(0, len(images), _DECODING_BATCH):
        pixels = images[start : start + _DECODING_BATCH].float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            latents = encode_images(vae, pixels).float()
            deviation = largest_noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
            noise = torch.randn(latents.shape, generator=generator)
            decoded = decode_latents(vae, latents + deviation * noise)
        parts.append(((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
        if start % (10 * _DECODING_BATCH) == 0:
            report(f"reconstructed {start + len(pixels)} of {len(images)} photos")
    return torch.cat(parts)


def subject_batches(classes: Tensor, per_class: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Batches of subject numbers (classes * per_class,) of one epoch, each with the same number of every class.

    Several subjects of one class in a batch make telling them apart worth learning.

    Args:
        classes: Class number (S,) of each subject.
        per_class: Subjects of each class in a batch.
        seed: With the epoch, decides the order.
        epoch: Counted from 0.
    """
    rng = np.random.default_rng([seed, epoch])
    members = [rng.permutation(np.flatnonzero(classes.numpy() == number)) for number in np.unique(classes.numpy())]
    for start in range(0, min(map(len, members)) - per_class + 1, per_class):
        yield torch.from_numpy(np.concatenate([each[start : start + per_class] for each in members]))


def varied(photos: JudgePhotos, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Photos at an index (B,) as pixels (B, 3, s, s) in -1 to 1 and masks (B, 1, s, s), lightly varied.

    A photo that has a reconstruction is taken from there half of the time. Mirrored, shifted, nearer or
    further, slightly turned, blurred, of other brightness and contrast, with grain: what a generated picture may be
    without being another one.
    """
    rows = len(index)
    use = (index < len(photos.reconstructions)) & (torch.rand(rows, generator=generator) < 0.5)
    images = photos.images[index].float()
    if bool(use.any()):
        images[use] = photos.reconstructions[index[use]].float()
    pixels = torch.cat([images / 127.5 - 1, photos.masks[index].float() / 255], dim=1)
    pixels = _moved(pixels, generator)
    pictures, masks = pixels[:, :3], pixels[:, 3:]
    blur = torch.rand(rows, 1, 1, 1, generator=generator) * (torch.rand(rows, 1, 1, 1, generator=generator) < 0.4)
    smooth = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pictures = torch.lerp(pictures, smooth, blur)
    gain = 1 + 0.1 * torch.randn(rows, 1, 1, 1, generator=generator).clamp(-2, 2)
    offset = 0.06 * torch.randn(rows, 1, 1, 1, generator=generator)
    grain = 0.04 * torch.rand(rows, 1, 1, 1, generator=generator) * torch.randn(pictures.shape, generator=generator)
    return (pictures * gain + offset + grain).clamp(-1, 1), masks


def _moved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each row (B, c, s, s) mirrored or not, shifted, zoomed and turned a little; what comes in repeats the edge."""
    rows = len(pixels)
    draws = 2 * torch.rand(rows, 4, generator=generator) - 1
    turn, zoom = _LARGEST_TURN * draws[:, 0], 1 + _LARGEST_ZOOM * draws[:, 1]
    side = 1 - 2 * (torch.rand(rows, generator=generator) < 0.5).float()
    shift = _LARGEST_SHIFT * draws[:, 2:]
    first = torch.stack([side * zoom * turn.cos(), -zoom * turn.sin(), shift[:, 0]], dim=1)
    second = torch.stack([side * zoom * turn.sin(), zoom * turn.cos(), shift[:, 1]], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
