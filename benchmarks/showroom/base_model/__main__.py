"""Command line of the base model: `python -m benchmarks.showroom.base_model train --device cpu --minutes 90`."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from benchmarks.showroom.base_model.architecture import TINY
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.training import PHASES, train

_ROOT: Final = Path(__file__).resolve().parents[3]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.showroom.base_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train all phases, or some, from the last checkpoints on; then export")
    learn.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    learn.add_argument("--minutes", type=float, default=90.0, help="time for all four phases, earlier runs included")
    learn.add_argument("--phases", nargs="+", choices=tuple(PHASES), default=list(PHASES), help="phases to run")
    learn.add_argument("--shards", type=Path, default=_ROOT / ".work" / "showroom", help="folder of rendered shards")
    learn.add_argument("--work", type=Path, default=_ROOT / ".work" / "base_model", help="folder of checkpoints and samples")
    learn.add_argument("--out", type=Path, help="folder to export to; default: the embedded model's")
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--tiny", action="store_true", help="sizes for a test")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    options = _parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: device: got cuda, but no CUDA device is available; accepted here: cpu", file=sys.stderr)
        return 2
    recipe = Recipe(seed=options.seed)
    if options.tiny:
        recipe = replace(recipe, size=TINY, autoencoder_crops=8, encoder_batch=8, diffusion_batch=8)
    out = options.out or _ROOT / "shared" / "detex_showroom" / "base_model"
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - started:7.1f} s] {line}", flush=True)

    try:
        train(
            recipe=recipe,
            shards=options.shards,
            work=options.work,
            out=out,
            device=torch.device(options.device),
            budget_seconds=options.minutes * 60,
            phases=options.phases,
            report=report,
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
