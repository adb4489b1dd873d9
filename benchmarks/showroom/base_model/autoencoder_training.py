"""Phase 1: the autoencoder.

Pictures go through the Kullback-Leibler regularised autoencoder of Latent Diffusion (Rombach et al., CVPR 2022) with an absolute
error on pixels and on their differences to the neighbours (edges), both weighted towards the product; no adversary. At first the
latents are also drawn to a linear code of the 8x8 patches (their principal components, partly whitened), which gives the encoder a
direct signal, and the latents an order from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.showroom.base_model.architecture import LATENT_CHANNELS, build_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.schedule import PhaseClock, load_checkpoint, rate_factor, save_checkpoint

CHECKPOINT = "autoencoder.pt"
_PATCH = 8
_WHITENING = 0.6
_CALIBRATION_PHOTOS = 1000


class PatchCode:
    """Linear code of 8x8 patches: principal components, each divided by a power of its deviation; deviation 1 overall."""

    def __init__(self, pictures: Tensor) -> None:
        """Fit to pictures (n, 3, s, s) in [-1, 1]."""
        patches = F.pixel_unshuffle(pictures, _PATCH).permute(0, 2, 3, 1).reshape(-1, 3 * _PATCH**2)
        self._mean = patches.mean(0)
        centred = patches - self._mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        deviation = values[-LATENT_CHANNELS:].flip(0).clamp_min(1e-8).sqrt()
        remaining = deviation ** (1 - _WHITENING)
        scale = deviation**_WHITENING * remaining.square().mean().sqrt()
        self._basis = vectors[:, -LATENT_CHANNELS:].flip(1) / scale

    def __call__(self, pictures: Tensor) -> Tensor:
        """Code (b, 16, s / 8, s / 8) of pictures (b, 3, s, s)."""
        patches = F.pixel_unshuffle(pictures, _PATCH).permute(0, 2, 3, 1)
        return ((patches - self._mean) @ self._basis).permute(0, 3, 1, 2)


def reconstruction_loss(pictures: Tensor, decoded: Tensor, cover: Tensor, edge_weight: float) -> Tensor:
    """Weighted absolute error of pixels and of edges; pictures (b, 3, s, s), cover (b, 1, s, s)."""
    error = decoded - pictures
    weight = 1 + 2 * cover
    pixels = (error.abs() * weight).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    return pixels + edge_weight * (across + down)


def train_autoencoder(
    corpus: Corpus, recipe: Recipe, budget_seconds: float, work: Path, device: torch.device, report: Callable[[str], None]
) -> AutoencoderKL:
    """Train until the budget is used up, from the last checkpoint on; returns the model with its scaling factor set."""
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(recipe.size).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.autoencoder_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    step, worked_seconds, losses = 0, 0.0, []
    state = load_checkpoint(work / CHECKPOINT, device)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, worked_seconds, losses = state["step"], state["worked_seconds"], state["losses"]
    generator = torch.Generator().manual_seed(recipe.seed * 7919 + step)
    calibration = torch.randperm(len(corpus), generator=torch.Generator().manual_seed(recipe.seed))[:_CALIBRATION_PHOTOS]
    unmirrored = torch.zeros(len(calibration), dtype=torch.bool)
    code = PatchCode(corpus.pixels(calibration, unmirrored, device))
    clock = PhaseClock(budget_seconds, worked_seconds)
    while clock.progress < 1:
        progress = clock.progress
        cropped = progress < recipe.autoencoder_crop_share
        batch = recipe.autoencoder_crops if cropped else max(1, recipe.autoencoder_crops // 4)
        index = torch.randint(len(corpus), (batch,), generator=generator)
        mirrored = torch.rand(batch, generator=generator) < 0.5
        pictures, cover = corpus.pixels(index, mirrored, device), corpus.cover(index, mirrored, device)
        if cropped:
            pictures, cover = _crops(pictures, cover, generator)
        for group in optimizer.param_groups:
            group["lr"] = recipe.autoencoder_rate * rate_factor(progress, step, decay_share=0.5)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
            decoded = model.decode(posterior.sample()).sample.float()
        loss = reconstruction_loss(pictures, decoded, cover, recipe.autoencoder_edge_weight)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        guide = recipe.autoencoder_guide_weight * max(0.0, 1 - progress / recipe.autoencoder_guide_share)
        total = loss + recipe.autoencoder_kl_weight * divergence + guide * F.mse_loss(mean, code(pictures))
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            losses.append((step, clock.worked_seconds, loss.item()))
            report(f"autoencoder: step {step}, {progress:.0%}, reconstruction {loss.item():.4f}, divergence {divergence.item():.2f}")
        if step % 300 == 0:
            _save(work, model, optimizer, step, clock, losses)
    model.register_to_config(scaling_factor=_scaling_factor(model, corpus, calibration, device))
    _save(work, model, optimizer, step, clock, losses)
    return model.eval()


def load_autoencoder(recipe: Recipe, work: Path, device: torch.device) -> AutoencoderKL:
    """The autoencoder of the last checkpoint.

    Raises:
        FileNotFoundError: if there is no checkpoint yet.
    """
    state = load_checkpoint(work / CHECKPOINT, device)
    if state is None:
        raise FileNotFoundError(f"{work / CHECKPOINT}: the autoencoder has not been trained yet")
    model = build_autoencoder(recipe.size).to(device, memory_format=torch.channels_last)
    model.load_state_dict(state["model"])
    model.register_to_config(scaling_factor=state["scaling_factor"])
    return model.eval()


def _crops(pictures: Tensor, cover: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One window of half the side from each picture, centred near a point of the product."""
    side = pictures.shape[-1]
    half = side // 2
    flat = cover.flatten(1).cpu() + 1e-3
    centre = torch.multinomial(flat, 1, generator=generator)[:, 0]
    top = (centre // side - half // 2).clamp(0, side - half).tolist()
    left = (centre % side - half // 2).clamp(0, side - half).tolist()
    windows = [(slice(t, t + half), slice(c, c + half)) for t, c in zip(top, left, strict=True)]
    return (
        torch.stack([picture[:, rows, columns] for picture, (rows, columns) in zip(pictures, windows, strict=True)]),
        torch.stack([mask[:, rows, columns] for mask, (rows, columns) in zip(cover, windows, strict=True)]),
    )


@torch.no_grad()
def _scaling_factor(model: AutoencoderKL, corpus: Corpus, index: Tensor, device: torch.device) -> float:
    """Factor that gives the latents of some photos a deviation of 1."""
    latents = []
    for part in index.split(50):
        pictures = corpus.pixels(part, torch.zeros(len(part), dtype=torch.bool), device)
        latents.append(model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean)
    return 1.0 / float(torch.cat(latents).std())


def _save(
    work: Path,
    model: AutoencoderKL,
    optimizer: torch.optim.Optimizer,
    step: int,
    clock: PhaseClock,
    losses: list[tuple[int, float, float]],
) -> None:
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "worked_seconds": clock.worked_seconds,
        "losses": losses,
        "scaling_factor": float(model.config.scaling_factor),
    }
    save_checkpoint(work / CHECKPOINT, state)
