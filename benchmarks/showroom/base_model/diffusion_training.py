"""Phase 3: the UNet, and with it the text encoder at a lower rate.

Velocity prediction on a schedule with zero terminal signal-to-noise ratio; timesteps are stratified over the batch;
the squared error of each latent cell is weighted by how much of it the product covers, and divided by the batch's mean
weight. The latents of all photos and of their mirror images are computed once. Exported is the moving average of the
weights.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.showroom.base_model.architecture import LATENT_CHANNELS, build_scheduler, build_text_encoder, build_unet
from benchmarks.showroom.base_model.autoencoder_training import load_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.encoder_training import load_encoders
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.replicas import Replicas
from benchmarks.showroom.base_model.schedule import PhaseClock, load_checkpoint, rate_factor, save_checkpoint

CHECKPOINT = "diffusion.pt"
LATENTS = "latents.pt"
_ENCODING_BATCH = 50
_SAVE_EVERY_SECONDS = 150.0


@dataclass(frozen=True)
class Denoiser:
    """The two parts that turn noise and a caption into a velocity."""

    unet: UNet2DConditionModel
    text: CLIPTextModelWithProjection

    def parameters(self) -> list[nn.Parameter]:
        """Those of both parts."""
        return [*self.unet.parameters(), *self.text.text_model.parameters()]


@dataclass(frozen=True)
class LatentCorpus:
    """Latents (2, n, 16, h, w) and product cover (2, n, 1, h, w) of all photos and of their mirror images."""

    latents: Tensor
    cover: Tensor


def train_diffusion(
    corpus: Corpus,
    tokenizer: CLIPTokenizer,
    recipe: Recipe,
    budget_seconds: float,
    work: Path,
    device: torch.device,
    replicas: Replicas,
    report: Callable[[str], None],
) -> Denoiser:
    """Train until the budget is used up, from the last checkpoint on; returns the moving average.

    Raises:
        FileNotFoundError: if the autoencoder or the encoders have no checkpoint.
    """
    data = encode_corpus(corpus, load_autoencoder(recipe, work, device), work, replicas)
    data = LatentCorpus(data.latents.to(device), data.cover.to(device))
    report(f"diffusion: latents deviate by {float(data.latents.std()):.3f}")
    torch.manual_seed(recipe.seed + 2)
    model = Denoiser(
        build_unet(recipe.size).to(device, memory_format=torch.channels_last),
        load_encoders(recipe, tokenizer, work, device).text,
    )
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.unet.parameters()), "peak": recipe.diffusion_rate},
            {"params": list(model.text.text_model.parameters()), "peak": recipe.diffusion_text_rate},
        ],
        recipe.diffusion_rate,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=True,
    )
    average = copy.deepcopy(model)
    step, worked_seconds, losses = 0, 0.0, []
    state = load_checkpoint(work / CHECKPOINT, device)
    if state is not None:
        for part, name in ((model, "model"), (average, "average")):
            part.unet.load_state_dict(state[name]["unet"])
            part.text.load_state_dict(state[name]["text"])
        optimizer.load_state_dict(state["optimizer"])
        step, worked_seconds, losses = state["step"], state["worked_seconds"], state["losses"]
    rng = np.random.default_rng([recipe.seed, step, replicas.rank])
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    averaged: list[Tensor] = [*average.parameters()]
    current: list[Tensor] = [*model.parameters()]
    signal = build_scheduler().alphas_cumprod.to(device)
    batch = max(1, recipe.diffusion_batch // replicas.count)
    clock = PhaseClock(budget_seconds, worked_seconds)
    last_saved, smooth = clock.worked_seconds, losses[-1][2] if losses else 1.0
    while (progress := replicas.agree(clock.progress)) < 1:
        index = torch.randint(len(corpus), (batch,), generator=generator)
        side = torch.randint(2, (batch,), generator=generator)
        tokens = corpus.tokens(index, rng).to(device)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(progress, step, decay_share=recipe.diffusion_decay_share)
        loss = velocity_loss(
            model,
            data.latents[side, index],
            data.cover[side, index],
            tokens,
            signal,
            recipe.diffusion_mask_weight,
            generator,
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        replicas.average_gradients(model.parameters())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if not replicas.leads:
            continue
        decay = min(recipe.diffusion_average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - decay)
        smooth += 0.02 * (loss.item() - smooth)
        if step % 50 == 0:
            losses.append((step, clock.worked_seconds, smooth))
            seen = step * batch * replicas.count
            report(f"diffusion: step {step}, {progress:.1%}, {seen} samples seen, loss {smooth:.4f}")
        if clock.worked_seconds - last_saved > _SAVE_EVERY_SECONDS:
            last_saved = clock.worked_seconds
            _save(work, model, average, optimizer, step, clock, losses)
    if replicas.leads:
        _save(work, model, average, optimizer, step, clock, losses)
    return average


def velocity_loss(
    model: Denoiser,
    latents: Tensor,
    cover: Tensor,
    tokens: Tensor,
    signal: Tensor,
    mask_weight: float,
    generator: torch.Generator,
) -> Tensor:
    """Masked denoising loss of one batch.

    Args:
        model: UNet and text encoder.
        latents: (b, 16, h, w), deviation 1.
        cover: (b, 1, h, w), share of each cell that the product covers.
        tokens: (b, 48) token ids.
        signal: (1000,) cumulative products of alpha.
        mask_weight: a cell weighs 1 + mask_weight * cover, over the batch's mean of that.
        generator: source of timesteps and noise, on the CPU.
    """
    batch, device = len(latents), latents.device
    # One timestep from each of b equal slices of the schedule, in random order: less variance than independent draws.
    offset = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
    timesteps = (offset * len(signal)).long().clamp(max=len(signal) - 1).to(device)
    kept = signal[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    # On a CPU, the plain product form of attention trains 1.6 times as fast as the fused kernel at these sizes.
    attention = SDPBackend.MATH if device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(attention):
        states = model.text.text_model(input_ids=tokens).last_hidden_state
        predicted = model.unet(noisy.contiguous(memory_format=torch.channels_last), timesteps, states).sample
    weight = 1 + mask_weight * cover
    return (functional.mse_loss(predicted.float(), velocity, reduction="none") * weight).mean() / weight.mean()


@torch.no_grad()
def encode_corpus(corpus: Corpus, autoencoder: AutoencoderKL, work: Path, replicas: Replicas) -> LatentCorpus:
    """Latents of all photos and their mirror images, on the CPU; every replica encodes its share of them.

    They are kept in the work folder, for the next run on the same photos with the same encoder.
    """
    key = _fingerprint(corpus, autoencoder)
    kept = load_checkpoint(work / LATENTS, torch.device("cpu"))
    if kept is not None and kept["key"] == key:
        return LatentCorpus(kept["latents"], kept["cover"])
    device = next(autoencoder.parameters()).device
    side = corpus.images.shape[-1] // 8
    latents = torch.zeros(2, len(corpus), LATENT_CHANNELS, side, side)
    cover = torch.zeros(2, len(corpus), 1, side, side)
    for first in range(replicas.rank * _ENCODING_BATCH, len(corpus), replicas.count * _ENCODING_BATCH):
        index = torch.arange(first, min(first + _ENCODING_BATCH, len(corpus)))
        for mirrored in (0, 1):
            flags = torch.full((len(index),), bool(mirrored))
            pictures = corpus.pixels(index, flags, device).contiguous(memory_format=torch.channels_last)
            latents[mirrored, index] = autoencoder.encode(pictures).latent_dist.mean.cpu()
            cover[mirrored, index] = functional.avg_pool2d(corpus.cover(index, flags, device), 8).cpu()
    latents *= autoencoder.config.scaling_factor
    latents, cover = replicas.sum(latents), replicas.sum(cover)
    if replicas.leads:
        save_checkpoint(work / LATENTS, {"key": key, "latents": latents, "cover": cover})
    return LatentCorpus(latents, cover)


def _fingerprint(corpus: Corpus, autoencoder: AutoencoderKL) -> str:
    """What the latents depend on: the photos and the encoder's weights."""
    digest = hashlib.sha256(corpus.images.numpy().tobytes())
    for tensor in (*autoencoder.encoder.state_dict().values(), *autoencoder.quant_conv.state_dict().values()):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_denoiser(recipe: Recipe, tokenizer: CLIPTokenizer, work: Path, device: torch.device) -> Denoiser:
    """The moving average of the last checkpoint.

    Raises:
        FileNotFoundError: if there is no checkpoint yet.
    """
    state = load_checkpoint(work / CHECKPOINT, device)
    if state is None:
        raise FileNotFoundError(f"{work / CHECKPOINT}: the UNet has not been trained yet")
    unet = build_unet(recipe.size).to(device, memory_format=torch.channels_last)
    unet.load_state_dict(state["average"]["unet"])
    text = build_text_encoder(recipe.size, tokenizer).to(device)
    text.load_state_dict(state["average"]["text"])
    return Denoiser(unet.eval(), text.eval())


def _save(
    work: Path,
    model: Denoiser,
    average: Denoiser,
    optimizer: torch.optim.Optimizer,
    step: int,
    clock: PhaseClock,
    losses: list[tuple[int, float, float]],
) -> None:
    state: dict[str, Any] = {
        name: {"unet": part.unet.state_dict(), "text": part.text.state_dict()}
        for name, part in (("model", model), ("average", average))
    }
    state |= {
        "optimizer": optimizer.state_dict(),
        "step": step,
        "worked_seconds": clock.worked_seconds,
        "losses": losses,
    }
    save_checkpoint(work / CHECKPOINT, state)
