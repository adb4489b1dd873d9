"""Training the judge: factors by cross-entropy, the foreground by its mask, identity by contrast between two photos.

Legend: B pictures, the first and the second photo of B / 2 subjects one after the other; D width of the embedding.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from time import monotonic
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.judge.network import JudgeNetwork, JudgeOutput, JudgeSize
from benchmarks.quality.judge.photos import JudgePhotos, subject_batches, varied
from benchmarks.showroom.shards import PHOTOS_PER_SUBJECT

_TEMPERATURE: Final = 0.1
_WARM_UP_SHARE: Final = 0.05
_CHECKPOINT_INTERVAL_STEPS: Final = 100
_WEIGHTS: Final = {"class": 1.5, "pose": 1.5, "identity": 1.0, "mask": 2.0, "shape": 4.0, "colours": 10.0}


@dataclass(frozen=True)
class JudgeRecipe:
    """What training depends on.

    Attributes:
        size: Of the network.
        steps: Optimisation steps.
        subjects_per_class: Subjects of each class in a batch; each brings two photos.
        learning_rate: Highest, after 5 % of warm-up and before a cosine decay to 0.
        weight_decay: Of AdamW.
        seed: Of weights, order and variation.
    """

    size: JudgeSize = field(default_factory=JudgeSize)
    steps: int = 3_000
    subjects_per_class: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


def train_judge(
    photos: JudgePhotos, recipe: JudgeRecipe, checkpoint: Path, report: Callable[[str], None]
) -> JudgeNetwork:
    """Train to the last step of the recipe, from the checkpoint on where there is one.

    The same recipe, photos, machine and number of threads give the same weights, interrupted or not. A run may go on
    with another number of steps: from there the learning rate follows the new plan.

    Args:
        photos: Of the train split.
        recipe: All choices.
        checkpoint: File that is written every 100 steps.
        report: Told of losses.

    Raises:
        ValueError: The checkpoint is of another recipe (but for the steps), or there are too few photos for a batch.
    """
    torch.manual_seed(recipe.seed)
    network = JudgeNetwork(recipe.size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] | {"steps": recipe.steps} != asdict(recipe):
            raise ValueError(f"work: {checkpoint} is of another recipe; name another folder or remove it")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    started = monotonic()
    network.train()
    for step, subjects in enumerate(islice(_subjects(photos, recipe), done, recipe.steps), done + 1):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        index = torch.cat([subjects * PHOTOS_PER_SUBJECT + view for view in range(PHOTOS_PER_SUBJECT)])
        pixels, masks = varied(photos, index, generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = network(pixels.contiguous(memory_format=torch.channels_last))
        losses = judge_losses(output, photos, index, masks)
        total = torch.stack([_WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_share(step, recipe.steps)
        optimizer.step()
        if step % 50 == 0 or step == recipe.steps:
            told = ", ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            report(f"step {step} of {recipe.steps}, {monotonic() - started:.0f} s: {told}")
        if step % _CHECKPOINT_INTERVAL_STEPS == 0 or step == recipe.steps:
            _save(checkpoint, step, recipe, network, optimizer)
    network.eval()
    return network


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step (1 to `steps`): 5 % of warm-up, then a cosine decay to 0."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step <= warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def judge_losses(output: JudgeOutput, photos: JudgePhotos, index: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Losses by name, scalars: each factor, `mask`, `identity`, `shape`, `colours`.

    Args:
        output: Of the photos at `index`.
        photos: All photos.
        index: (B,), two halves with the same subjects in the same order.
        masks: (B, 1, s, s), varied as the pictures were.
    """
    losses = {
        name: functional.cross_entropy(logits, photos.factors[name][index]) for name, logits in output.logits.items()
    }
    losses["mask"] = functional.binary_cross_entropy_with_logits(
        output.mask_logits, functional.avg_pool2d(masks, masks.shape[-1] // output.mask_logits.shape[-1])
    )
    losses["identity"] = contrast(*output.identity.chunk(2))
    own = output.shape[torch.arange(len(index)), photos.factors["class"][index]]
    losses["shape"] = functional.mse_loss(own, photos.shapes[index])
    losses["colours"] = functional.mse_loss(output.colours, photos.colours[index])
    return losses


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views (n, D) of the same n subjects.

    Every picture must find the other one of its subject among all 2 n - 1 others (Chen et al. 2020, arXiv 2002.05709,
    equation 1).
    """
    both = torch.cat([first, second])
    similarity = both @ both.T / _TEMPERATURE
    similarity.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(both)).roll(len(first))
    return functional.cross_entropy(similarity, partner)


def _subjects(photos: JudgePhotos, recipe: JudgeRecipe) -> chain[Tensor]:
    classes, per_class = photos.factors["class"][::PHOTOS_PER_SUBJECT], recipe.subjects_per_class
    if next(subject_batches(classes, per_class, recipe.seed, 0), None) is None:
        raise ValueError(f"shards: found {photos.subjects} subjects, too few for {per_class} of each class")
    return chain.from_iterable(subject_batches(classes, per_class, recipe.seed, epoch) for epoch in count())


def _save(
    checkpoint: Path, step: int, recipe: JudgeRecipe, network: JudgeNetwork, optimizer: torch.optim.AdamW
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    state = {"step": step, "recipe": asdict(recipe)}
    torch.save(state | {"network": network.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    partial.replace(checkpoint)
