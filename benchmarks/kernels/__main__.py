"""`python -m benchmarks.kernels`: measures each kernel against the best that torch has, and writes the results.

Without a GPU nothing of that can be measured: it says so and exits with status 3. `--device cpu` measures what can be
measured there: torch references against the definitions written out, and what the compiler makes of the kernels.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.kernels import (
    geglu,
    group_norm_silu,
    guided_solver_step,
    segmented_attention,
    self_attention,
)
from benchmarks.kernels.contest import Contest, rows_of
from benchmarks.kernels.machine_code import machine_code_rows
from benchmarks.kernels.timing import copy_bandwidth
from benchmarks.kernels.unet_step import rows_of_unet_step
from benchmarks.results_file import ResultRow, at_least, table, write_results
from detex_generator.ops.availability import why_unavailable

NO_GPU_STATUS = 3
CONTESTS: dict[str, Callable[[torch.device, torch.dtype], Iterator[Contest]]] = {
    "self_attention": self_attention.contests,
    "segmented_attention": segmented_attention.contests,
    "geglu": geglu.contests,
    "group_norm_silu": group_norm_silu.contests,
    "guided_solver_step": guided_solver_step.contests,
}
CPU_CONTESTS: dict[str, Callable[[], Iterator[Contest]]] = {
    "self_attention": self_attention.cpu_contests,
    "segmented_attention": segmented_attention.cpu_contests,
    "geglu": geglu.cpu_contests,
    "group_norm_silu": group_norm_silu.cpu_contests,
    "guided_solver_step": guided_solver_step.cpu_contests,
}
UNET_STEP, MACHINE_CODE = "unet_step", "machine_code"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LEAST_BANDWIDTH_SHARE = 0.6
UNIFORM = "4096 positions, 77 tokens: triton"


def main() -> int:
    """Run the measurements that are asked for, all by default; returns the exit status."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    dtype = DTYPES[arguments.dtype]
    if device.type == "cuda":
        reason = "torch finds no GPU here" if not torch.cuda.is_available() else why_unavailable(device, dtype)
        if reason is not None:
            print(
                f"The kernels cannot be timed here: {reason}. Nothing was measured and nothing was written. With "
                "--device cpu the torch references are timed, and the kernels are compiled and looked at.",
                file=sys.stderr,
            )
            return NO_GPU_STATUS
    turns = arguments.turns
    begin = time.perf_counter()
    rows: list[ResultRow] = []
    path: Path | None = None
    for name in arguments.only:
        for row in _rows(name, device, dtype, turns):
            rows.append(row)
            print(f"{time.perf_counter() - begin:6.1f} s  {table([row])}", file=sys.stderr, flush=True)
        path = _write(rows, arguments, device, dtype)  # each part as soon as it is there: the next may be cut off
    print(table(rows))
    print(f"written to {path}")
    return 0


def _write(rows: list[ResultRow], arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Path:
    return write_results(
        "kernels",
        rows,
        module="benchmarks.kernels",
        path=arguments.out,
        settings={
            "device": device.type,
            "dtype": str(dtype if device.type == "cuda" else torch.float32),
            "turns": arguments.turns,
            "threads": torch.get_num_threads(),
        },
    )


def _arguments() -> argparse.Namespace:
    names = [*CONTESTS, UNET_STEP, MACHINE_CODE]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/kernels/<machine>.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what to measure on")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of tensors on a GPU")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these alone")
    parser.add_argument("--turns", type=int, default=25, help="how often each candidate is timed")
    arguments = parser.parse_args()
    if arguments.turns < 1:
        parser.error("--turns: must be at least 1")
    return arguments


def _rows(name: str, device: torch.device, dtype: torch.dtype, turns: int) -> Iterator[ResultRow]:
    on_gpu = device.type == "cuda"
    if name == MACHINE_CODE:
        yield from machine_code_rows()
    elif name == UNET_STEP:
        if on_gpu:
            yield from rows_of_unet_step(device, dtype, turns)
        else:
            yield ResultRow(what="whole denoising step by kernels", value=None, note="needs an NVIDIA GPU")
    elif on_gpu:
        bandwidth = copy_bandwidth(device, turns) if name == "segmented_attention" else None
        for contest in CONTESTS[name](device, dtype):
            with torch.inference_mode():
                for row in rows_of(contest, device, turns):
                    yield row
                    if bandwidth is not None and row.what.endswith(UNIFORM) and row.value is not None:
                        yield _bandwidth_row(contest, row.value, bandwidth)
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        for contest in CPU_CONTESTS[name]():
            with torch.inference_mode():
                yield from rows_of(contest, device, turns)


def _bandwidth_row(contest: Contest, microseconds: float, bandwidth: float) -> ResultRow:
    share = contest.set_bytes / (microseconds * 1e-6) / bandwidth
    return ResultRow(
        what=f"{contest.what}: share of the bandwidth of a copy",
        value=share,
        reach=at_least(LEAST_BANDWIDTH_SHARE),
        note=f"a copy reads and writes {bandwidth / 1e9:.4g} GB/s",
    )


if __name__ == "__main__":
    sys.exit(main())
