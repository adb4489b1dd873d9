"""Command line of the rendered world: `python -m benchmarks.showroom render ...` and `... shards ...`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

from benchmarks.showroom.photos import write_photos
from benchmarks.showroom.samples import SAMPLE_SUBJECTS, write_samples
from benchmarks.showroom.shards import PHOTOS_PER_SHARD, ShardPlan, render_shards
from benchmarks.showroom.subject import SPLITS, Badges, World


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.showroom", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="photos, masks and labels of some subjects as PNG and JSON files")
    render.add_argument("--subjects", type=int, default=8, help="number of subjects")
    render.add_argument("--photos", type=int, default=4, help="photos of each subject")
    render.add_argument("--world", choices=get_args(World), default="words", help="what subjects are made of")
    render.add_argument("--badges", choices=get_args(Badges), default="some", help="of subjects of the world identity")
    shards = commands.add_parser("shards", help="training shards, resumable")
    shards.add_argument("--shards", type=int, default=80, help=f"number of shards of {PHOTOS_PER_SHARD} photos")
    shards.add_argument("--processes", type=int, default=2, help="processes, one core each")
    samples = commands.add_parser("samples", help="the sample subjects that ship with detex")
    for command in (render, shards, samples):
        command.add_argument("--size", type=int, default=128, help="side of the pictures in pixels")
        command.add_argument("--out", type=Path, required=True, help="folder to write to")
    for command in (render, shards):
        command.add_argument("--split", choices=SPLITS, default="test" if command is render else "train")
        command.add_argument("--seed", type=int, default=0, help="any number from 0")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (2: a bad argument)."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        if options.command == "render":
            total = options.subjects
            done = write_photos(
                options.split,
                options.seed,
                options.subjects,
                options.photos,
                options.size,
                options.out,
                options.world,
                options.badges,
            )
        elif options.command == "samples":
            total = len(SAMPLE_SUBJECTS)
            done = write_samples(options.out, options.size)
        else:
            total = options.shards
            plans = [ShardPlan(options.out, options.split, options.seed, n, options.size) for n in range(total)]
            done = render_shards(plans, options.processes)
        for finished, path in enumerate(done, 1):
            elapsed_seconds = time.monotonic() - started
            left_seconds = elapsed_seconds / finished * (total - finished)
            print(f"{finished}/{total} {path} ({elapsed_seconds:.0f} s, {left_seconds:.0f} s left)", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
