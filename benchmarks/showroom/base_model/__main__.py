"""Command line of the base model: `python -m benchmarks.showroom.base_model train --device cpu --minutes 90`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import torch

from benchmarks.showroom.base_model.architecture import TINY
from benchmarks.showroom.base_model.device_training import DeviceRun, train_on_device
from benchmarks.showroom.base_model.distillation import Distillation, distill
from benchmarks.showroom.base_model.export import export_model
from benchmarks.showroom.base_model.inspection import draw_losses, draw_reconstructions, draw_samples, probe
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.small_shards import render_small_shards
from benchmarks.showroom.base_model.training import PHASES, TrainingRun, train
from benchmarks.showroom.subject import SPLITS, World

_ROOT: Final = Path(__file__).resolve().parents[3]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.showroom.base_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train all phases, or some, from the last checkpoints on; then export")
    learn.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    learn.add_argument("--minutes", type=float, default=90.0, help="time for all four phases, earlier runs included")
    learn.add_argument("--phases", nargs="+", choices=tuple(PHASES), default=list(PHASES), help="phases to run")
    learn.add_argument("--replicas", type=int, default=1, help="processes with one thread each; best one for each core")
    learn.add_argument("--seed", type=int, default=0)
    learn.add_argument("--start", type=Path, help="on cuda: folder of a model to go on from")
    learn.add_argument("--first-photos", type=int, default=3_000, help="on cuda: photos before training begins")
    render = commands.add_parser("render", help="small shards for a training on cuda, until the time is over")
    render.add_argument("--processes", type=int, default=2, help="one core each")
    render.add_argument("--seconds", type=float, default=600.0)
    render.add_argument("--split", choices=SPLITS, default="train")
    render.add_argument("--world", choices=get_args(World), default="identity", help="what subjects are made of")
    few = commands.add_parser("distill", help="a model that draws in four steps, from one that needs many")
    few.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    few.add_argument("--minutes", type=float, default=100.0, help="for training, earlier runs included")
    few.add_argument("--teacher", type=Path, default=_ROOT / "shared" / "detex_showroom" / "base_model")
    few.add_argument("--guidance-scale", type=float, default=Distillation.guidance_scale, help="of the teacher")
    few.add_argument("--batch", type=int, default=Distillation.batch)
    few.add_argument("--out", type=Path, default=_ROOT / ".work" / "distilled", help="folder to write")
    few.add_argument("--seed", type=int, default=0)
    export = commands.add_parser("export", help="write the last checkpoints as a Stable Diffusion folder")
    sample = commands.add_parser("sample", help="draw the fixed prompts with the last checkpoints")
    sample.add_argument("--guidance-scale", type=float, default=Recipe.guidance_scale)
    sample.add_argument("--steps", type=int, default=Recipe.sampling_steps)
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--png", type=Path, required=True, help="picture to write")
    reconstruct = commands.add_parser("reconstruct", help="put photos through the autoencoder and state the error")
    reconstruct.add_argument("--png", type=Path, required=True, help="picture to write")
    losses = commands.add_parser("losses", help="draw the loss curves")
    losses.add_argument("--png", type=Path, required=True, help="picture to write")
    probes = commands.add_parser("probe", help="what a linear layer reads from the image encoder's features")
    for command in (learn, reconstruct, probes, render, few):
        command.add_argument("--shards", type=Path, default=_ROOT / ".work" / "showroom", help="folder of shards")
    for command in (learn, export):
        command.add_argument("--out", type=Path, default=_ROOT / "shared" / "detex_showroom" / "base_model")
    for command in commands.choices.values():
        command.add_argument("--work", type=Path, default=_ROOT / ".work" / "base_model", help="folder of checkpoints")
        command.add_argument("--tiny", action="store_true", help="sizes for a test")
    return parser


def _run(options: argparse.Namespace) -> None:
    recipe = Recipe()
    if options.tiny:
        recipe = replace(recipe, size=TINY, autoencoder_batch=4, encoder_batch=8, diffusion_batch=8)
    if options.command == "train" and options.device == "cuda":
        _require_cuda(options.device)
        train_on_device(
            DeviceRun(
                recipe=replace(recipe, seed=options.seed),
                shards=options.shards,
                work=options.work,
                out=options.out,
                device=torch.device("cuda"),
                seconds=options.minutes * 60,
                start=options.start,
                first_photos=options.first_photos,
            )
        )
    elif options.command == "render":
        size, world = recipe.size.picture_pixels, options.world
        render_small_shards(options.shards, options.split, size, options.processes, options.seconds, world=world)
    elif options.command == "distill":
        _require_cuda(options.device)
        distill(
            Distillation(
                teacher=options.teacher,
                shards=options.shards,
                work=options.work,
                out=options.out,
                device=torch.device(options.device),
                seconds=options.minutes * 60,
                guidance_scale=options.guidance_scale,
                batch=options.batch,
                seed=options.seed,
            ),
            lambda line: print(line, flush=True),
        )
    elif options.command == "train":
        train(
            TrainingRun(
                recipe=replace(recipe, seed=options.seed),
                shards=options.shards,
                work=options.work,
                out=options.out,
                device=options.device,
                replicas=options.replicas,
                budget_seconds=options.minutes * 60,
                phases=options.phases,
            )
        )
    elif options.command == "export":
        export_model(recipe, options.work, options.out)
    elif options.command == "sample":
        draw_samples(recipe, options.work, options.png, options.guidance_scale, options.steps, options.seed)
    elif options.command == "reconstruct":
        decibels = draw_reconstructions(recipe, options.work, options.shards, options.png)
        print(f"peak signal-to-noise ratio {decibels:.2f} dB")
    elif options.command == "losses":
        draw_losses(options.work, options.png)
    else:
        for factor, accuracy in probe(recipe, options.work, options.shards).items():
            print(f"{factor}: {accuracy:.3f}")


def _require_cuda(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: must be cpu where no CUDA device is available, got cuda")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    try:
        _run(_parser().parse_args(arguments))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
