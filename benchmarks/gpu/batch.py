"""`python -m benchmarks.gpu.batch`: one batch in a process of its own, for `benchmarks.gpu`.

It compiles detex and diffusers, says that it is ready, and waits for a line on its standard input: nothing is timed
while another process compiles, and a fault of the GPU costs one batch. Each line of its output is JSON: what compiling
took, that it is ready, and rows of results.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.full_size.architectures import ARCHITECTURES
from benchmarks.full_size.candidates import DENOISING_STEPS, STEPS_PER_RUN
from benchmarks.full_size.random_folder import DTYPES
from benchmarks.gpu.candidates import CompiledBench
from benchmarks.gpu.correctness import rows_of_correctness
from benchmarks.gpu.throughput import OURS, PEER, UNFUSED, prepared, row_of_swapping, rows_of_batch
from benchmarks.results_file import ResultRow


@torch.inference_mode()
def main() -> int:
    """Compile, wait, measure; returns the exit status."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    bench = CompiledBench(ARCHITECTURES[arguments.model], device, DTYPES[arguments.dtype])
    begin = time.monotonic()
    names = [OURS, PEER, UNFUSED] if arguments.with_unfused else [OURS, PEER]
    runs, refusals = prepared(bench, arguments.images, names)
    if OURS in runs:
        for _ in range(-(-DENOISING_STEPS // STEPS_PER_RUN)):
            runs[OURS]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        _tell(first_picture={"end_time": time.time(), "compiling_seconds": time.monotonic() - begin})
    for name in runs.keys() - {OURS}:
        try:
            runs[name]()
            runs[name]()
        except Exception as error:  # told again with the rows
            print(f"{name}: {error!r}"[:300], file=sys.stderr, flush=True)
    _tell(ready=True)
    if not sys.stdin.readline():
        return 0
    for row in _rows(bench, arguments, runs, refusals):
        _tell(row=row.model_dump(mode="json", exclude={"met"}))
    return 0


def _rows(
    bench: CompiledBench, arguments: argparse.Namespace, runs: dict[str, Any], refusals: dict[str, str]
) -> Iterator[ResultRow]:
    yield from rows_of_batch(bench, arguments.images, runs, refusals, arguments.turns, arguments.reach)
    if arguments.images == 1:
        yield row_of_swapping(bench, arguments.turns)
        yield from rows_of_correctness(bench, 1)


def _tell(**content: object) -> None:
    print(json.dumps(content), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.batch", description=__doc__)
    parser.add_argument("--model", choices=ARCHITECTURES, default="sd15")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--reach", type=float, default=1.0)
    parser.add_argument("--with-unfused", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
