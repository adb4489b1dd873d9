"""Command line of the judge: `python -m benchmarks.quality.judge train` and `... accuracy`."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.quality.judge.accuracy import RETRIEVAL_SUBJECTS, accuracies
from benchmarks.quality.judge.judge import WEIGHTS_PATH, load_judge, save_judge
from benchmarks.quality.judge.network import JudgeNetwork
from benchmarks.quality.judge.photos import LARGEST_LATENT_NOISE, JudgePhotos, load_photos, reconstruct
from benchmarks.quality.judge.training import JudgeRecipe, train_judge
from benchmarks.results_file import ResultRow, at_least, table, write_results
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import load_base_model

_ROOT: Final = Path(__file__).resolve().parents[3]
_REACH: Final = {"class": 0.97, "scene": 0.97, "identity retrieval": 0.9}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        if options.command == "train":
            _train(options)
        else:
            _write_accuracies(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.judge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train from the last checkpoint on, then write weights and accuracies")
    train.add_argument("--steps", type=int, default=JudgeRecipe.steps, help="optimisation steps")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--reconstructions", type=int, default=3_000, help="photos seen through the VAE as well")
    train.add_argument("--work", type=Path, default=_ROOT / ".work" / "judge", help="folder of the checkpoint")
    accuracy = commands.add_parser("accuracy", help="measure the judge on photos of subjects that it never saw")
    for command in (train, accuracy):
        command.add_argument("--shards", type=Path, default=_ROOT / ".work" / "showroom", help="folder of shards")
        command.add_argument("--weights", type=Path, default=WEIGHTS_PATH, help="file of the weights")
        command.add_argument("--base-model", default="embedded", help="source of the base model, for its VAE")
        command.add_argument("--out", type=Path, help="result file; by default the one of this machine")
        command.add_argument("--threads", type=int, default=1, help="threads of torch")
    return parser


def _train(options: argparse.Namespace) -> None:
    recipe = replace(JudgeRecipe(), steps=options.steps, seed=options.seed)
    photos = load_photos(_shards(options.shards, "train", recipe.size.picture_pixels))
    photos = replace(photos, reconstructions=_reconstructions(options, photos))
    network = train_judge(photos, recipe, options.work / "checkpoint.pt", _report)
    card = {"recipe": asdict(recipe), "photos": len(photos.images), "reconstructions": len(photos.reconstructions)}
    save_judge(network, options.weights, card)
    _report(f"wrote {options.weights}, {options.weights.stat().st_size / 1e6:.2f} MB")
    _write_accuracies(options)


def _reconstructions(options: argparse.Namespace, photos: JudgePhotos) -> Tensor:
    """The first photos through the VAE, kept beside the checkpoint."""
    wanted = photos.images[: options.reconstructions]
    path = options.work / "reconstructions.pt"
    if path.exists():
        kept: Tensor = torch.load(path, weights_only=True)
        if len(kept) == len(wanted):
            return kept
    found = reconstruct(_vae(options), wanted, LARGEST_LATENT_NOISE, _report)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(found, path)
    return found


def _write_accuracies(options: argparse.Namespace) -> None:
    """Accuracies on held-out photos as they are, and as the base model's VAE gives them back."""
    network: JudgeNetwork = load_judge(options.weights).network
    photos = load_photos(_shards(options.shards, "validation", network.size.picture_pixels))
    rows = []
    seen = {"photos": photos.images, "photos through the VAE": reconstruct(_vae(options), photos.images, 0, _report)}
    for kind, images in seen.items():
        for name, value in accuracies(network, photos, images).items():
            reach = at_least(_REACH[name]) if name in _REACH else None
            note = f"top-1 among {RETRIEVAL_SUBJECTS} subjects" if name == "identity retrieval" else ""
            rows.append(ResultRow(what=f"{name}, {kind}", value=round(value, 4), reach=reach, note=note))
    settings = {"subjects": photos.subjects, "photos": len(photos.images), "split": "validation"}
    path = write_results("judge", rows, module="benchmarks.quality.judge", path=options.out, settings=settings)
    print(table(rows))
    _report(f"wrote {path}")


def _shards(folder: Path, split: str, side: int) -> list[Path]:
    found = sorted(folder.glob(f"{split}_{side}px_*.npz"))
    if not found:
        raise ValueError(f"shards: found no {split} shard of {side} pixels in {folder}")
    return found


def _vae(options: argparse.Namespace) -> Any:
    return load_base_model(BaseModelSettings(name="showroom", source=options.base_model)).vae


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
