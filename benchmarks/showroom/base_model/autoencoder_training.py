"""Phase 1: the autoencoder.

The encoder computes the linear patch code and needs no training (see `patch_code`). The decoder learns the way back
with an absolute error on pixels and on their differences to the neighbours (edges), both weighted towards the product;
no adversary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.showroom.base_model.architecture import build_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.patch_code import PatchCode, install_patch_code
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.replicas import Replicas
from benchmarks.showroom.base_model.schedule import PhaseClock, load_checkpoint, rate_factor, save_checkpoint

CHECKPOINT = "autoencoder.pt"
_CALIBRATION_PHOTOS = 1000


def reconstruction_loss(pictures: Tensor, decoded: Tensor, cover: Tensor, edge_weight: float) -> Tensor:
    """Weighted absolute error of pixels and of edges; pictures (b, 3, s, s), cover (b, 1, s, s)."""
    error = decoded - pictures
    weight = 1 + 2 * cover
    pixels = (error.abs() * weight).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    return pixels + edge_weight * (across + down)


def train_autoencoder(
    corpus: Corpus,
    recipe: Recipe,
    budget_seconds: float,
    work: Path,
    device: torch.device,
    replicas: Replicas,
    report: Callable[[str], None],
) -> AutoencoderKL:
    """Train until the budget is used up, from the last checkpoint on; returns the model with its scaling factor set."""
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(recipe.size).to(device, memory_format=torch.channels_last)
    trained = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(trained, recipe.autoencoder_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    step, worked_seconds, losses = 0, 0.0, []
    state = load_checkpoint(work / CHECKPOINT, device)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, worked_seconds, losses = state["step"], state["worked_seconds"], state["losses"]
    else:
        install_patch_code(model, _fit_code(corpus, recipe, report))
    model.register_to_config(scaling_factor=1.0)
    if state is None and replicas.leads:
        _save(work, model, optimizer, 0, PhaseClock(budget_seconds), losses)
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    generator = torch.Generator().manual_seed((recipe.seed * 7919 + step) * 64 + replicas.rank)
    clock = PhaseClock(budget_seconds, worked_seconds)
    batch = max(1, recipe.autoencoder_batch // replicas.count)
    smooth = losses[-1][2] if losses else 1.0
    while (progress := replicas.agree(clock.progress)) < 1:
        index = torch.randint(len(corpus), (batch,), generator=generator)
        mirrored = torch.rand(batch, generator=generator) < 0.5
        pictures, cover = corpus.pixels(index, mirrored, device), corpus.cover(index, mirrored, device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.autoencoder_rate * rate_factor(progress, step, decay_share=0.6)
        with torch.no_grad():
            latents = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean
            latents += recipe.autoencoder_noise * torch.randn(latents.shape, generator=generator).to(device)
        loss = reconstruction_loss(pictures, model.decode(latents).sample, cover, recipe.autoencoder_edge_weight)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        replicas.average_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        smooth += 0.05 * (loss.item() - smooth)
        if step % 50 == 0:
            losses.append((step, clock.worked_seconds, smooth))
            report(f"autoencoder: step {step}, {progress:.0%}, reconstruction {smooth:.4f}")
        if step % 200 == 0 and replicas.leads:
            _save(work, model, optimizer, step, clock, losses)
    if replicas.leads:
        _save(work, model, optimizer, step, clock, losses)
    return model.eval()


def _fit_code(corpus: Corpus, recipe: Recipe, report: Callable[[str], None]) -> PatchCode:
    """The patch code of a thousand photos."""
    cpu = torch.device("cpu")
    order = torch.randperm(len(corpus), generator=torch.Generator().manual_seed(recipe.seed))
    index = order[:_CALIBRATION_PHOTOS]
    unmirrored = torch.zeros(len(index), dtype=torch.bool)
    code = PatchCode(corpus.pixels(index, unmirrored, cpu), corpus.cover(index, unmirrored, cpu))
    report(f"autoencoder: the code holds {code.explained:.1%} of the patches' weighted variance")
    return code


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
    model.register_to_config(scaling_factor=1.0)
    return model.eval()


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
    }
    save_checkpoint(work / CHECKPOINT, state)
