"""Family photos as tensors on one device, as they are and as a base model's VAE gives them back.

Legend: N photos, two of each subject next to each other, shard after shard; s side in pixels; B rows of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.judge.photos import LARGEST_LATENT_NOISE, factor_word
from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.colours import lab
from benchmarks.showroom.renderer import PhotoLabels
from benchmarks.showroom.subject import BADGE_SIDE, Subject
from detex_diffusion.latents import decode_latents, encode_images

LEGIBLE_PIXELS: Final = 64.0
"""A badge is four cells wide with its rim: below 64 pixels of it a cell has fewer than two by two."""
_VAE_BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class FamilyPhotos:
    """Photos with their labels.

    Attributes:
        images: (N, 3, s, s) uint8.
        reconstructions: The same through a VAE with noise on the latents, or the images again.
        masks: (N, 1, s, s) uint8.
        factors: (N, factors) word numbers in the order of `FACTORS`.
        variants: (N, 3) direction, count and phase of stripes; -1 where the pattern has none.
        shape: (N, shape and profile parameters).
        colours: (N, 6) L*a*b* / 100 of main and accent colour.
        bits: (N, 9) cells of the badge, 0 or 1.
        badge: (N,) 1 where there is a badge.
        legible: (N,) true where at least `LEGIBLE_PIXELS` of it are seen.
        corners: (N, 4, 2) as of `badge_corners`.
        subject: (N,) number of the subject, of its own for each.
        family: (N,) number of the family, of its own for each.
    """

    images: Tensor
    reconstructions: Tensor
    masks: Tensor
    factors: Tensor
    variants: Tensor
    shape: Tensor
    colours: Tensor
    bits: Tensor
    badge: Tensor
    legible: Tensor
    corners: Tensor
    subject: Tensor
    family: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    def at(self, index: Tensor) -> "FamilyPhotos":
        """The photos at an index."""
        return FamilyPhotos(**{each.name: getattr(self, each.name)[index] for each in fields(self)})


def load_families(paths: Sequence[Path], device: torch.device, vae: Any | None = None) -> FamilyPhotos:
    """Read shards; with a VAE, on the same device, each photo is also kept as it gives it back.

    Raises:
        ValueError: `paths` is empty.
    """
    if not paths:
        raise ValueError("shards: got no shard, expected at least one")
    arrays: dict[str, list[np.ndarray[Any, Any]]] = {}
    labels: list[PhotoLabels] = []
    for path in paths:
        with np.load(path) as stored:
            for name in ("images", "masks", "badge_pixels", "corners"):
                arrays.setdefault(name, []).append(stored[name])
        lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
        labels += [PhotoLabels.model_validate_json(line) for line in lines]
    whole = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in arrays.items()}
    images = whole["images"].permute(0, 3, 1, 2).contiguous().to(device)
    subjects = [each.subject for each in labels]
    numbers: dict[Subject, int] = {}
    families: dict[int, int] = {}
    colours = np.array([(each.main_rgb, each.accent_rgb) for each in subjects])
    photos = FamilyPhotos(
        images=images,
        reconstructions=images if vae is None else through_vae(vae, images, LARGEST_LATENT_NOISE),
        masks=whole["masks"][:, None],
        factors=torch.tensor([[words.index(factor_word(x, name)) for name, words in FACTORS.items()] for x in labels]),
        variants=torch.tensor([_variant(each) for each in subjects]),
        shape=torch.tensor([(*each.shape, *each.profile) for each in subjects]),
        colours=torch.from_numpy(lab(colours) / 100).float().flatten(1),
        bits=torch.tensor([each.badge or (False,) * BADGE_SIDE**2 for each in subjects]).float(),
        badge=torch.tensor([bool(each.badge) for each in subjects]).float(),
        legible=whole["badge_pixels"] >= LEGIBLE_PIXELS,
        corners=whole["corners"],
        subject=torch.tensor([numbers.setdefault(each, len(numbers)) for each in subjects]),
        family=torch.tensor([families.setdefault(each.seed, len(families)) for each in subjects]),
    )
    return FamilyPhotos(**{each.name: getattr(photos, each.name).to(device) for each in fields(photos)})


def _variant(subject: Subject) -> tuple[int, int, int]:
    """What `pattern_texture` makes of the variant: only stripes have a direction and a count, dots still a phase."""
    variant = subject.pattern_variant
    if subject.pattern == "striped":
        return variant // 8 % 3, variant % 2, variant // 2 % 4
    return -1, -1, variant // 2 % 4 if subject.pattern == "dotted" else -1


@torch.no_grad()
def through_vae(vae: Any, images: Tensor, largest_noise: float) -> Tensor:
    """Images (N, 3, s, s) uint8 encoded and decoded, with noise on the latents of a deviation up to a largest one."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for part in torch.split(images, _VAE_BATCH):
        with torch.autocast(images.device.type, torch.bfloat16):
            latents = encode_images(vae, part.float() / 127.5 - 1).float()
            deviation = largest_noise * torch.rand(len(latents), 1, 1, 1, generator=generator)
            noise = deviation * torch.randn(latents.shape, generator=generator)
            decoded = decode_latents(vae, latents + noise.to(latents.device))
        parts.append(((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


def varied(photos: FamilyPhotos, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (B, 3, s, s) in -1 to 1, masks (B, 1, s, s) and corners (B, 4, 2) of photos, lightly varied.

    Half of the rows come from the VAE. Never mirrored: a mirrored badge is another badge.
    """
    rows, device = len(photos), photos.images.device

    def draw(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=generator).to(device)

    choice = draw(1, 1, 1) < 0.5
    images = torch.where(choice, photos.reconstructions, photos.images).float() / 127.5 - 1
    turn, zoom = 0.16 * draw() - 0.08, 0.87 + 0.26 * draw()
    shift = 0.2 * draw(2) - 0.1
    first = torch.stack([zoom * turn.cos(), -zoom * turn.sin()], dim=1)
    second = torch.stack([zoom * turn.sin(), zoom * turn.cos()], dim=1)
    matrix = torch.stack([first, second], dim=1)  # from where a point is drawn to where it is taken
    both = torch.cat([images, photos.masks.float() / 255], dim=1)
    grid = functional.affine_grid(torch.cat([matrix, shift[:, :, None]], dim=2), list(both.shape), align_corners=False)
    both = functional.grid_sample(both, grid, padding_mode="border", align_corners=False)
    corners = (photos.corners - shift[:, None]) @ torch.linalg.inv(matrix).transpose(1, 2)
    gain, offset = 1 + 0.12 * (draw(1, 1, 1) - 0.5), 0.1 * (draw(1, 1, 1) - 0.5)
    grain = 0.04 * draw(1, 1, 1) * torch.randn(images.shape, generator=generator).to(device)
    return (both[:, :3] * gain + offset + grain).clamp(-1, 1), both[:, 3:], corners
