"""Training within a time limit, on a set of shards that may still grow.

Legend: B pictures of a batch, whole shards: families with their strangers; D width of the embedding.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.identity_judge.families import FamilyPlan
from benchmarks.quality.identity_judge.network import IdentityJudgeNetwork, IdentityJudgeSize, IdentityOutput
from benchmarks.quality.identity_judge.photos import FamilyPhotos, load_families, varied
from benchmarks.showroom.base_model.corpus import FACTORS

_TEMPERATURE: Final = 0.08
_WARM_UP_SHARE: Final = 0.05
_RESCAN_SECONDS: Final = 10.0
_CORNER_NOISE: Final = 0.03
_WEIGHTS: Final = {"mask": 2.0, "identity": 2.0, "shape": 12.0, "colours": 12.0, "corners": 8.0, "bits": 4.0}


@dataclass(frozen=True)
class IdentityRecipe:
    """What training depends on, beside its time.

    Attributes:
        size: Of the network.
        seconds: Of training; the learning rate follows the time.
        families: Shards in a batch.
        learning_rate: Highest, after 5 % of warm-up and before a cosine decay to 0.
        weight_decay: Of AdamW.
        seed: Of weights, order and variation.
    """

    size: IdentityJudgeSize = field(default_factory=IdentityJudgeSize)
    seconds: float = 200.0
    families: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


class GrowingShards:
    """The shards of a plan on a device, read as they appear."""

    def __init__(self, plan: FamilyPlan, device: torch.device, vae: Any | None) -> None:
        self._plan, self._device, self._vae = plan, device, vae
        self._seen: set[Path] = set()
        self.shards: list[FamilyPhotos] = []

    def rescan(self, deadline: float = math.inf) -> None:
        """Read what is new, until a deadline of `time.monotonic`."""
        for path in sorted(self._plan.folder.glob(self._plan.path(0).name.replace("00000", "*"))):
            if path not in self._seen and time.monotonic() < deadline:
                self._seen.add(path)
                self.shards.append(load_families([path], self._device, self._vae))


def train_identity_judge(
    shards: GrowingShards, recipe: IdentityRecipe, device: torch.device, report: Callable[[str], None]
) -> IdentityJudgeNetwork:
    """Train until the recipe's time is over; it begins when the first batch of shards is there.

    Raises:
        ValueError: After the whole time there are too few shards for a batch.
    """
    start = time.monotonic()
    end = start + recipe.seconds
    torch.manual_seed(recipe.seed)
    network = IdentityJudgeNetwork(recipe.size).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    scanned, step, told = -math.inf, 0, start
    network.train()
    while (now := time.monotonic()) < end:
        if now - scanned > _RESCAN_SECONDS:
            shards.rescan(end)
            scanned = time.monotonic()
        if len(shards.shards) < recipe.families:
            time.sleep(0.2)
            continue
        step += 1
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        chosen = torch.randperm(len(shards.shards), generator=generator)[: recipe.families]
        photos = joined([shards.shards[number] for number in chosen.tolist()])
        pixels, masks, corners = varied(photos, generator)
        with torch.autocast(device.type, torch.bfloat16):
            output = network(pixels, _look_at(corners, photos.badge, generator))
        losses = identity_losses(output, photos, masks, corners)
        total = torch.stack([_WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate_share((time.monotonic() - start) / recipe.seconds)
        optimizer.step()
        if time.monotonic() - told > 10:
            told = time.monotonic()
            each = ", ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            report(f"{told - start:.0f} s, step {step}, {len(shards.shards)} shards: {each}")
    if step == 0:
        raise ValueError(f"shards: found {len(shards.shards)}, too few for a batch of {recipe.families}")
    report(f"trained {step} steps")
    return network.eval()


def joined(shards: list[FamilyPhotos]) -> FamilyPhotos:
    """Shards one after the other; numbers of subjects and families are kept apart."""
    names = FamilyPhotos.__dataclass_fields__
    found = {name: torch.cat([getattr(shard, name) for shard in shards]) for name in names}
    for name in ("subject", "family"):
        found[name] = torch.cat([getattr(shard, name) + 10_000 * n for n, shard in enumerate(shards)])
    return FamilyPhotos(**found)


def identity_losses(output: IdentityOutput, photos: FamilyPhotos, masks: Tensor, corners: Tensor) -> dict[str, Tensor]:
    """Losses by name, scalars.

    Args:
        output: Of the photos.
        photos: Their labels.
        masks: (B, 1, s, s) as the pictures were varied.
        corners: (B, 4, 2) as the pictures were varied.
    """
    losses = {
        name: functional.cross_entropy(output.logits[name], photos.factors[:, place])
        for place, name in enumerate(FACTORS)
    }
    side = output.mask_logits.shape[-1]
    losses["mask"] = functional.binary_cross_entropy_with_logits(
        output.mask_logits, functional.avg_pool2d(masks, masks.shape[-1] // side)
    )
    losses["identity"] = contrast(output.identity, photos.subject)
    own = output.shape[torch.arange(len(photos)), photos.factors[:, list(FACTORS).index("class")]]
    losses["shape"] = functional.mse_loss(own, photos.shape)
    losses["colours"] = functional.smooth_l1_loss(output.colours, photos.colours, beta=0.05)
    losses["variants"] = torch.stack(
        [
            # The sum over none is 0; the mean would be no number.
            functional.cross_entropy(logits, truth, ignore_index=-1, reduction="sum") / (truth >= 0).sum().clamp_min(1)
            for logits, truth in zip(output.variants, photos.variants.unbind(dim=1), strict=True)
        ]
    ).mean()
    losses["badge"] = functional.binary_cross_entropy_with_logits(output.badge_logits, photos.badge)
    seen = (photos.legible & (photos.badge > 0)).float()
    count = seen.sum().clamp_min(1)
    away = functional.smooth_l1_loss(output.corners, corners, beta=0.05, reduction="none").mean(dim=(1, 2))
    losses["corners"] = (away * seen).sum() / count
    wrong = functional.binary_cross_entropy_with_logits(output.bit_logits, photos.bits, reduction="none").mean(dim=1)
    losses["bits"] = (wrong * seen).sum() / count
    return losses


def contrast(identity: Tensor, subject: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, equation 2) of (B, D) with (B,) numbers.

    The siblings of a subject are among its negatives, so words alone cannot tell it from them.
    """
    similarity = identity @ identity.T / _TEMPERATURE
    self_pairs = torch.eye(len(subject), dtype=torch.bool, device=subject.device)
    logs = similarity.masked_fill(self_pairs, -torch.inf).log_softmax(dim=1)
    partners = (subject[:, None] == subject) & ~self_pairs
    return -(logs.masked_fill(~partners, 0).sum(dim=1) / partners.sum(dim=1).clamp_min(1)).mean()


def _look_at(corners: Tensor, badge: Tensor, generator: torch.Generator) -> Tensor:
    """Where the reader looks: for half of the badges where they are, but not quite; else (nan) where they are found."""
    rows = len(corners)
    noise = (_CORNER_NOISE * torch.randn(corners.shape, generator=generator)).to(corners.device)
    given = (torch.rand(rows, generator=generator) < 0.5).to(corners.device) & (badge > 0)
    return torch.where(given[:, None, None], corners + noise, torch.nan)


def _rate_share(share: float) -> float:
    """Share of the highest learning rate when a share of the time is over."""
    if share < _WARM_UP_SHARE:
        return max(share, 1e-3) / _WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - _WARM_UP_SHARE) / (1 - _WARM_UP_SHARE))))
