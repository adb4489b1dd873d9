"""`python -m benchmarks.full_size`: full-size base models of random weights on a GPU, against diffusers.

Images per second for batches of 1 to 32, one concept and a concept each, with what each technique gives. Without a GPU
it says so and exits with status 3; `--device cpu --model small-xl` is a dry run.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.full_size.architectures import ARCHITECTURES
from benchmarks.full_size.candidates import DENOISING_STEPS, Bench
from benchmarks.full_size.random_folder import DTYPES
from benchmarks.full_size.throughput import Plan, rows_of_throughput
from benchmarks.results_file import ResultRow, table, write_results

NO_GPU_STATUS = 3


def main() -> int:
    """Run the measurements that are asked for; returns the exit status."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here. Nothing was measured and nothing was written.", file=sys.stderr)
        return NO_GPU_STATUS
    begin = time.monotonic()
    rows: list[ResultRow] = []
    for row in _rows(arguments, device, begin):
        rows.append(row)
        print(f"{time.monotonic() - begin:6.1f} s  {table([row])}", file=sys.stderr, flush=True)
    path = write_results(
        "full_size",
        rows,
        module="benchmarks.full_size",
        path=arguments.out,
        settings={
            "device": device.type,
            "dtype": arguments.dtype,
            "kernels": arguments.kernels,
            "turns": arguments.turns,
            "denoising_steps": DENOISING_STEPS,
            "threads": torch.get_num_threads(),
        },
    )
    print(table(rows))
    print(f"written to {path}")
    return 0


def _rows(arguments: argparse.Namespace, device: torch.device, begin: float) -> Iterator[ResultRow]:
    """Base models one after the other, each with an equal share of the time that is left."""
    end = begin + arguments.seconds
    for index, name in enumerate(arguments.model):
        share = (end - time.monotonic()) / (len(arguments.model) - index)
        plan = Plan(
            batches=tuple(arguments.batches),
            compiled_batches=tuple(arguments.compiled_batches),
            breakdown_batch=arguments.breakdown_batch,
            turns=arguments.turns,
            end_time=time.monotonic() + share,
        )
        bench = Bench(ARCHITECTURES[name], device, DTYPES[arguments.dtype], arguments.kernels)
        yield from rows_of_throughput(bench, plan)
        del bench
        if device.type == "cuda":
            torch.compiler.reset()
            torch.cuda.empty_cache()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/full_size/<machine>.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what to measure on")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the weights")
    parser.add_argument("--kernels", default="auto", help="what detex computes by, as DETEX_KERNELS")
    parser.add_argument("--model", nargs="+", choices=ARCHITECTURES, default=["sdxl", "sd15"], help="which shapes")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32], help="images of a batch")
    parser.add_argument(
        "--compiled-batches", nargs="*", type=int, default=[1, 8], help="batches that diffusers is compiled for"
    )
    parser.add_argument("--breakdown-batch", type=int, default=4, help="images of the batch that is taken apart")
    parser.add_argument("--turns", type=int, default=5, help="how often each candidate is timed")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which nothing more is begun")
    arguments = parser.parse_args()
    if min([arguments.turns, arguments.breakdown_batch, *arguments.batches, *arguments.compiled_batches]) < 1:
        parser.error("--turns, --batches, --compiled-batches, --breakdown-batch: must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
