"""Command line of the judge of identity.

python -m benchmarks.quality.identity_judge render --split train --processes 2 --seconds 600
python -m benchmarks.quality.identity_judge train --device cuda --seconds 200 --processes 6 --base-model FOLDER
python -m benchmarks.quality.identity_judge accuracy --split test
"""

import argparse
import multiprocessing
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.quality.identity_judge.accuracy import LARGEST_SIBLING_SHARE, REACHES_AT_LEAST, identity_accuracies
from benchmarks.quality.identity_judge.families import FamilyPlan, render_families
from benchmarks.quality.identity_judge.network import IdentityJudgeSize
from benchmarks.quality.identity_judge.photos import load_families
from benchmarks.quality.identity_judge.training import GrowingShards, IdentityRecipe, train_identity_judge
from benchmarks.quality.identity_judge.weights import load_identity_judge, save_identity_judge
from benchmarks.results_file import Reach, ResultRow, at_least, at_most, table, write_results
from benchmarks.showroom.subject import SPLITS, Split
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import load_base_model

_ROOT: Final = Path(__file__).resolve().parents[3]
_SIZES: Final[dict[str, tuple[int, int]]] = {"train": (8, 8), "validation": (50, 6), "test": (50, 6)}
"""Members and strangers of a shard: the galleries of the held-out splits have 50 subjects."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        {"render": _render, "train": _train, "accuracy": _write_accuracies}[options.command](options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.identity_judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="photos of families")
    render.add_argument("--count", type=int, default=100_000, help="shards at most")
    train = commands.add_parser("train", help="train for a time, rendering beside it if asked")
    train.add_argument("--families", type=int, default=IdentityRecipe.families, help="shards in a batch")
    train.add_argument("--seed", type=int, default=0)
    accuracy = commands.add_parser("accuracy", help="measure it on families that it never saw")
    for command in (render, train):
        command.add_argument("--seconds", type=float, default=200.0, help="time after which nothing further is begun")
    render.add_argument("--processes", type=int, default=1, help="that render side by side")
    train.add_argument("--processes", type=int, default=0, help="that render photos beside the training")
    for command in (render, accuracy):
        command.add_argument("--split", choices=SPLITS, default="train" if command is render else "validation")
    for command in (train, accuracy):
        command.add_argument("--device", default="cpu")
        command.add_argument("--weights", type=Path, default=_ROOT / ".work" / "identity_judge" / "weights.safetensors")
        command.add_argument("--base-model", help="source of the base model whose VAE shows the photos as well")
    accuracy.add_argument("--out", type=Path, help="result file; by default the one of this machine")
    for command in (render, train, accuracy):
        command.add_argument("--shards", type=Path, default=_ROOT / ".work" / "families", help="folder of shards")
        command.add_argument("--size", type=int, default=128, help="side of the photos in pixels")
        command.add_argument("--members", type=int, help="of each family")
        command.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _plan(options: argparse.Namespace, split: Split) -> FamilyPlan:
    members, strangers = _SIZES[split]
    return FamilyPlan(options.shards, split, options.members or members, strangers, options.size)


def _render(options: argparse.Namespace) -> None:
    render_families(_plan(options, options.split), options.processes, options.seconds, options.count)


def _train(options: argparse.Namespace) -> None:
    device, plan = torch.device(options.device), _plan(options, "train")
    size = IdentityJudgeSize(picture_pixels=options.size)
    recipe = IdentityRecipe(size, seconds=options.seconds, families=options.families, seed=options.seed)
    end = time.monotonic() + options.seconds
    renderers = None
    if options.processes > 0:
        context = multiprocessing.get_context("spawn")
        renderers = context.Process(target=render_families, args=(plan, options.processes, options.seconds))
        renderers.start()
    shards = GrowingShards(plan, device, _vae(options, device))
    network = train_identity_judge(shards, recipe, device, _report)
    photos = sum(len(shard) for shard in shards.shards)
    save_identity_judge(network, options.weights, {"recipe": asdict(recipe), "photos": photos})
    _report(f"wrote {options.weights}, {options.weights.stat().st_size / 1e6:.2f} MB")
    if renderers is not None:
        # They begin nothing after the time is over; what is under way takes less than a second.
        renderers.join(max(0.0, end - time.monotonic()) + 10)


def _write_accuracies(options: argparse.Namespace) -> None:
    device, plan = torch.device(options.device), _plan(options, options.split)
    network = load_identity_judge(options.weights).to(device)
    vae = _vae(options, device)
    photos = load_families(sorted(plan.folder.glob(plan.path(0).name.replace("00000", "*"))), device, vae)
    seen = {"photos": photos.images}
    if vae is not None:
        seen["photos through the VAE"] = photos.reconstructions
    rows = []
    for kind, images in seen.items():
        for name, value in identity_accuracies(network, photos, images).items():
            unit = "CIE76" if name.startswith("Delta E") else ""
            rows.append(ResultRow(what=f"{name}, {kind}", value=round(value, 4), unit=unit, reach=_reach(name)))
    subjects = len(set(photos.subject.tolist()))
    settings = {"subjects": subjects, "photos": len(photos), "split": options.split, "members": plan.members}
    path = write_results("identity_judge", rows, module=f"{__package__}", path=options.out, settings=settings)
    print(table(rows))
    _report(f"wrote {path}")


def _reach(name: str) -> Reach | None:
    if name == "similarity of siblings":
        return at_most(LARGEST_SIBLING_SHARE)
    return at_least(REACHES_AT_LEAST[name]) if name in REACHES_AT_LEAST else None


def _vae(options: argparse.Namespace, device: torch.device) -> Any | None:
    if options.base_model is None:
        return None
    return load_base_model(BaseModelSettings(name="showroom", source=options.base_model)).vae.to(device)


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
