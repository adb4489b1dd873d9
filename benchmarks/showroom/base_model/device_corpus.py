"""The photos of a training that lie on its device, with all that steps read of them; more arrive while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from benchmarks.showroom.base_model.architecture import LATENT_CHANNELS
from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.base_model.small_shards import CAPTIONS
from benchmarks.showroom.base_model.tokenizer import MAX_TOKENS

_LOOK_EVERY_SECONDS: Final = 5.0
_ENCODED_AT_ONCE: Final = 256


class DeviceCorpus:
    """Photos, masks, captions, factors, and the latents of photos and of their mirror images."""

    def __init__(
        self,
        folder: Path,
        size_pixels: int,
        device: torch.device,
        most_photos: int,
        translate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Empty.

        Args:
            folder: Of the shards.
            size_pixels: Side of the photos.
            device: Where to keep them.
            most_photos: Room; about 110 kB each at 128 pixels.
            translate: Token ids (n, 16, 48) of shards as another tokenizer has them; None to leave them as they are.
        """
        self._translate = translate
        side = size_pixels // 8
        self._folder, self._pattern = folder, f"train_{size_pixels}px_small_*.npz"
        self._seen: set[Path] = set()
        self._looked = -_LOOK_EVERY_SECONDS
        self._device = device
        self.photos = 0
        self.encoded = 0
        self.images = torch.empty(most_photos, 3, size_pixels, size_pixels, dtype=torch.uint8, device=device)
        self.masks = torch.empty(most_photos, 1, size_pixels, size_pixels, dtype=torch.uint8, device=device)
        self._tokens = torch.empty(most_photos, CAPTIONS, MAX_TOKENS, dtype=torch.int16, device=device)
        self.factors = torch.empty(most_photos, len(FACTORS), dtype=torch.int16, device=device)
        self.latents = torch.empty(2, most_photos, LATENT_CHANNELS, side, side, device=device)
        """By whether they are mirrored."""
        self.cover = torch.empty(2, most_photos, 1, side, side, device=device)
        self._encode: Callable[[Tensor], Tensor] | None = None

    def read_by(self, autoencoder: AutoencoderKL) -> None:
        """Keep latents of this autoencoder, whose encoder does not change any more."""

        def encode(pixels: Tensor) -> Tensor:
            latents: Tensor = autoencoder.encode(pixels).latent_dist.mean * autoencoder.config.scaling_factor
            return latents

        self._encode = encode
        self._encode_new()

    def look(self, report: Callable[[str], None] | None = None) -> None:
        """Take in what has been rendered since, every few seconds at most."""
        if time.monotonic() - self._looked < _LOOK_EVERY_SECONDS:
            return
        self._looked = time.monotonic()
        for path in sorted(set(self._folder.glob(self._pattern)) - self._seen):
            with np.load(path) as arrays:
                images, masks, tokens, factors = (
                    torch.from_numpy(arrays[name]).to(self._device) for name in ("images", "masks", "tokens", "factors")
                )
            self._seen.add(path)
            if self.photos + len(images) > len(self.images):
                continue
            place = slice(self.photos, self.photos + len(images))
            self.images[place] = images.permute(0, 3, 1, 2)
            self.masks[place, 0] = masks
            self._tokens[place] = tokens if self._translate is None else self._translate(tokens)
            self.factors[place] = factors
            self.photos += len(images)
        if report is not None:
            report(f"{self.photos} photos")
        self._encode_new()

    def pixels(self, index: Tensor, mirrored: Tensor) -> Tensor:
        """Pictures (b, 3, s, s) in [-1, 1]; those marked in `mirrored` (b,) are flipped left to right."""
        return _flipped(self.images[index].float() / 127.5 - 1, mirrored)

    def cover_pixels(self, index: Tensor, mirrored: Tensor) -> Tensor:
        """Foreground masks (b, 1, s, s) in [0, 1], flipped as their pictures."""
        return _flipped(self.masks[index].float() / 255, mirrored)

    def tokens(self, index: Tensor) -> Tensor:
        """Token ids (b, 48) of one of each photo's captions."""
        drawn = torch.randint(CAPTIONS, (len(index),), device=self._device)
        return self._tokens[index, drawn].long()

    @torch.no_grad()
    def _encode_new(self) -> None:
        while self._encode is not None and self.encoded < self.photos:
            index = torch.arange(self.encoded, min(self.encoded + _ENCODED_AT_ONCE, self.photos), device=self._device)
            for side in (0, 1):
                mirrored = torch.full((len(index),), bool(side), device=self._device)
                pixels = self.pixels(index, mirrored).contiguous(memory_format=torch.channels_last)
                self.latents[side, index] = self._encode(pixels)
                self.cover[side, index] = functional.avg_pool2d(self.cover_pixels(index, mirrored), 8)
            self.encoded += len(index)


def _flipped(pictures: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
