"""Phases 2 and 4: the text and image encoders.

Both are trained contrastively (Radford et al., 2021) on freshly drawn captions that name pose and scene among the
other factors. The image encoder also learns to name every factor from its pooled features with one linear layer each,
because the attribute mappers of customization read pose and background from exactly those features. Phase 2 trains
both encoders; phase 4, after the UNet has moved the text encoder, trains the image encoder and the two projections to
the text encoder as it is then (Zhai et al., 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from benchmarks.showroom.base_model.architecture import build_image_encoder, build_text_encoder
from benchmarks.showroom.base_model.corpus import FACTORS, Corpus
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.replicas import Replicas
from benchmarks.showroom.base_model.schedule import PhaseClock, load_checkpoint, rate_factor, save_checkpoint

ENCODERS = "encoders.pt"
ALIGNMENT = "alignment.pt"
_FIRST_TEMPERATURE = 0.07


class EncoderPair(nn.Module):
    """Text encoder, image encoder, the temperature of their contrast, and a linear head for each factor."""

    def __init__(self, recipe: Recipe, tokenizer: CLIPTokenizer) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.text = build_text_encoder(recipe.size, tokenizer)
        self.image = build_image_encoder(recipe.size)
        self.log_scale = nn.Parameter(torch.tensor(1 / _FIRST_TEMPERATURE).log())
        self.heads = nn.ModuleDict(
            {name.replace(" ", "_"): nn.Linear(recipe.size.image_width, len(words)) for name, words in FACTORS.items()}
        )

    def forward(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Similarities (b, b) of pictures (rows) and captions (columns), and logits (b, words) of every factor."""
        seen = self.image(pixel_values=pictures)
        pooled = self.image.vision_model.post_layernorm(seen.last_hidden_state[:, 0])
        read = self.text(input_ids=tokens).text_embeds
        scale = self.log_scale.clamp(max=4.6).exp()
        similarity = scale * functional.normalize(seen.image_embeds, dim=-1) @ functional.normalize(read, dim=-1).T
        return similarity, {name: self.heads[name.replace(" ", "_")](pooled) for name in FACTORS}


@dataclass
class _State:
    step: int = 0
    worked_seconds: float = 0.0
    losses: list[tuple[int, float, float]] = field(default_factory=list)


def train_encoders(
    corpus: Corpus,
    tokenizer: CLIPTokenizer,
    recipe: Recipe,
    budget_seconds: float,
    work: Path,
    device: torch.device,
    replicas: Replicas,
    report: Callable[[str], None],
    text_states: dict[str, Tensor] | None = None,
) -> EncoderPair:
    """Train until the budget is used up, from the last checkpoint on.

    With `text_states`, weights of the text encoder's transformer, this is the alignment phase: the transformer takes
    these weights and stays as it is. It starts from the encoders' checkpoint, or from fresh weights where there is
    none.
    """
    torch.manual_seed(recipe.seed + 1)
    pair = EncoderPair(recipe, tokenizer).to(device)
    aligning = text_states is not None
    name = ALIGNMENT if aligning else ENCODERS
    counts = _State()
    saved = load_checkpoint(work / name, device)
    if saved is None and aligning:
        earlier = load_checkpoint(work / ENCODERS, device)
        if earlier is not None:
            pair.load_state_dict(earlier["pair"])
    if saved is not None:
        pair.load_state_dict(saved["pair"])
        counts = _State(saved["step"], saved["worked_seconds"], saved["losses"])
    if text_states is not None:
        pair.text.text_model.load_state_dict(text_states)
        pair.text.text_model.requires_grad_(False)
    trained = [parameter for parameter in pair.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.encoder_rate, betas=(0.9, 0.98), weight_decay=0.02)
    if saved is not None:
        optimizer.load_state_dict(saved["optimizer"])
    seeds = [recipe.seed, counts.step, replicas.rank, int(aligning)]
    rng = np.random.default_rng(seeds)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    clock = PhaseClock(budget_seconds, counts.worked_seconds)
    batch = max(2, recipe.encoder_batch // replicas.count)
    # On a CPU, the plain product form of attention trains faster than the fused kernel at these sizes.
    attention = SDPBackend.MATH if device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    while (progress := replicas.agree(clock.progress)) < 1:
        index = torch.randint(len(corpus), (batch,), generator=generator)
        mirrored = torch.rand(batch, generator=generator) < 0.5
        pictures = corpus.pixels(index, mirrored, device)
        tokens = corpus.tokens(index, rng, empty_probability=0.0).to(device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.encoder_rate * rate_factor(progress, counts.step, decay_share=0.6)
        with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(attention):
            similarity, logits = pair(pictures, tokens)
        similarity = similarity.float()
        target = torch.arange(batch, device=device)
        contrast = (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)) / 2
        naming = torch.stack(
            [
                functional.cross_entropy(logits[factor].float(), corpus.factors[factor][index].to(device))
                for factor in FACTORS
            ]
        ).mean()
        loss = contrast + recipe.encoder_label_weight * naming
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        replicas.average_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        counts.step += 1
        if counts.step % 25 == 0:
            counts.losses.append((counts.step, clock.worked_seconds, loss.item()))
            report(
                f"{name.removesuffix('.pt')}: step {counts.step}, {progress:.0%}, contrast {contrast.item():.3f}, "
                f"naming {naming.item():.3f}"
            )
        if counts.step % 200 == 0 and replicas.leads:
            _save(work / name, pair, optimizer, counts, clock)
    if replicas.leads:
        _save(work / name, pair, optimizer, counts, clock)
    return pair.eval()


def load_encoders(recipe: Recipe, tokenizer: CLIPTokenizer, work: Path, device: torch.device) -> EncoderPair:
    """The encoders after alignment, or where that has not been, after phase 2.

    Raises:
        FileNotFoundError: if there is neither checkpoint.
    """
    saved = load_checkpoint(work / ALIGNMENT, device) or load_checkpoint(work / ENCODERS, device)
    if saved is None:
        raise FileNotFoundError(f"{work / ENCODERS}: the encoders have not been trained yet")
    pair = EncoderPair(recipe, tokenizer).to(device)
    pair.load_state_dict(saved["pair"])
    return pair.eval()


def _save(path: Path, pair: EncoderPair, optimizer: torch.optim.Optimizer, counts: _State, clock: PhaseClock) -> None:
    state: dict[str, Any] = {
        "pair": pair.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": counts.step,
        "worked_seconds": clock.worked_seconds,
        "losses": counts.losses,
    }
    save_checkpoint(path, state)
