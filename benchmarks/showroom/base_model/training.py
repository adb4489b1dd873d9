"""The four phases in their order: autoencoder, encoders, diffusion, alignment; then the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import torch
from torch.multiprocessing.spawn import start_processes

from benchmarks.showroom.base_model.autoencoder_training import train_autoencoder
from benchmarks.showroom.base_model.corpus import Corpus
from benchmarks.showroom.base_model.diffusion_training import load_denoiser, train_diffusion
from benchmarks.showroom.base_model.encoder_training import train_encoders
from benchmarks.showroom.base_model.export import export_model
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.replicas import Replicas
from benchmarks.showroom.base_model.tokenizer import build_tokenizer

PHASES: Final[dict[str, float]] = {"autoencoder": 0.14, "encoders": 0.06, "diffusion": 0.75, "alignment": 0.05}
"""Phases and their shares of the time."""


@dataclass(frozen=True)
class TrainingRun:
    """One run of the training script. `budget_seconds` counts all phases and all earlier runs."""

    recipe: Recipe
    shards: Path
    work: Path
    out: Path
    device: str
    replicas: int
    budget_seconds: float
    phases: Sequence[str]


def train(run: TrainingRun) -> None:
    """Run the phases from their last checkpoints on.

    Raises:
        ValueError: if there are no shards, or no time.
        FileNotFoundError: if a phase is asked for whose forerunner has no checkpoint.
    """
    if run.budget_seconds <= 0:
        raise ValueError(f"minutes: got {run.budget_seconds / 60}, expected more than 0")
    if not _shards(run):
        raise ValueError(f"shards: found no training shard of {run.recipe.size.picture_pixels} pixels in {run.shards}")
    with TemporaryDirectory() as folder:
        meeting_point = Path(folder) / "replicas"
        if run.replicas == 1:
            _train_replica(0, run, meeting_point)
        else:
            start_processes(  # type: ignore[no-untyped-call]
                _train_replica, (run, meeting_point), nprocs=run.replicas, start_method="spawn"
            )


def _shards(run: TrainingRun) -> list[Path]:
    return sorted(run.shards.glob(f"train_{run.recipe.size.picture_pixels}px_*.npz"))


def _train_replica(rank: int, run: TrainingRun, meeting_point: Path) -> None:
    if run.replicas > 1:
        torch.set_num_threads(1)
    replicas = Replicas(rank, run.replicas, meeting_point)
    started = monotonic()

    def report(line: str) -> None:
        if replicas.leads:
            print(f"[{monotonic() - started:7.1f} s] {line}", flush=True)

    recipe, work, device = run.recipe, run.work, torch.device(run.device)
    tokenizer = build_tokenizer()
    corpus = Corpus(_shards(run), tokenizer)
    report(f"{len(corpus)} photos, {run.replicas} replicas")
    if "autoencoder" in run.phases:
        budget_seconds = PHASES["autoencoder"] * run.budget_seconds
        train_autoencoder(corpus, recipe, budget_seconds, work, device, replicas, report)
    replicas.meet()
    if "encoders" in run.phases:
        train_encoders(
            corpus, tokenizer, recipe, PHASES["encoders"] * run.budget_seconds, work, device, replicas, report
        )
        replicas.meet()
    if "diffusion" in run.phases:
        train_diffusion(
            corpus, tokenizer, recipe, PHASES["diffusion"] * run.budget_seconds, work, device, replicas, report
        )
        replicas.meet()
    if "alignment" in run.phases:
        text_states = load_denoiser(recipe, tokenizer, work, device).text.text_model.state_dict()
        budget_seconds = PHASES["alignment"] * run.budget_seconds
        train_encoders(corpus, tokenizer, recipe, budget_seconds, work, device, replicas, report, text_states)
        if replicas.leads:
            export_model(recipe, work, run.out)
            report(f"exported to {run.out}")
    replicas.leave()
