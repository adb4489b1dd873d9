"""`python -m benchmarks.gpu --seconds N`: what tells most on a GPU, in that time; most telling first.

Stable Diffusion 1.5 at 512 pixels, 25 steps with guidance: detex, compiled and with a concept each, against diffusers
compiled for one concept, for each batch; against swapping concepts; whether what was compiled is right; the first
pictures with a cold and a warm cache of the compiler; kernels; Stable Diffusion XL. Each part writes its results as
soon as it has them; what no time is left for is named. It needs neither weights nor a network. Without a GPU it says so
and exits with status 3; `--dry-run` goes through all parts on a CPU, on tiny shapes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.full_size.candidates import DENOISING_STEPS
from benchmarks.gpu.plan import Plan, cache_environment
from benchmarks.gpu.processes import BatchProcess, FirstPicture, first_picture
from benchmarks.gpu.throughput import OURS, PEER, SWAP, row_against_swapping
from benchmarks.results_file import ResultRow, at_most, table, write_results

NO_GPU_STATUS = 3
REACHES = {1: 1.15, 8: 1.1, 32: 1.1}
REACH_OF_SECOND = 1.05
MOST_WARM_SECONDS = 15.0
SECONDS_OF_A_BATCH = 20.0
SECONDS_OF_KERNELS = 40.0
SECONDS_OF_SECOND = 110.0


class Results:
    """Rows that are written to their file as soon as they are there."""

    def __init__(self, plan: Plan) -> None:
        """None yet."""
        self.rows: list[ResultRow] = []
        self._plan = plan
        self._begin = time.monotonic()

    def add(self, rows: Iterator[ResultRow]) -> None:
        """Take rows as they come; a part that fails is named and costs no other."""
        try:
            for row in rows:
                self.rows.append(row)
                print(f"{time.monotonic() - self._begin:6.1f} s  {table([row])}", file=sys.stderr, flush=True)
                self._write()
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            self.rows.append(ResultRow(what="a part that failed", value=None, note=f"{type(error).__name__}: {reason}"))
            print(f"{time.monotonic() - self._begin:6.1f} s  failed: {error!r}"[:2000], file=sys.stderr, flush=True)
            self._write()

    def left_out(self, what: str) -> None:
        """Name what no time is left for."""
        self.add(iter([ResultRow(what=what, value=None, note="left out: the time for all was over")]))

    def value(self, what: str) -> float | None:
        """The value of the row of that name."""
        return next((row.value for row in self.rows if row.what == what), None)

    def _write(self) -> None:
        plan = self._plan
        write_results(
            "gpu",
            self.rows,
            module="benchmarks.gpu",
            path=plan.path("gpu"),
            settings={
                "device": plan.device.type,
                "dtype": plan.dtype,
                "denoising_steps": DENOISING_STEPS,
                "turns": plan.turns,
            },
        )


def main() -> int:
    """Run what time allows; returns the exit status."""
    arguments = _arguments()
    if not arguments.dry_run and not torch.cuda.is_available():
        print("torch finds no GPU here. Nothing was measured and nothing was written.", file=sys.stderr)
        return NO_GPU_STATUS
    end_time = time.monotonic() + arguments.seconds
    out = arguments.out
    if arguments.dry_run:
        out = out or Path(tempfile.mkdtemp(prefix="detex-dry-run-"))
        plan = Plan("tiny", (2, 1, 3), "", torch.device("cpu"), "float32", 2, end_time, out, arguments.with_unfused)
    else:
        sizes, device = (8, 1, 32), torch.device("cuda")
        plan = Plan("sd15", sizes, "sdxl", device, arguments.dtype, 25, end_time, out, arguments.with_unfused)
    results = Results(plan)
    with tempfile.TemporaryDirectory(prefix="detex-compiled-") as folder:
        os.environ.update(cache_environment(arguments.cache or Path(folder)))
        cold = arguments.cache is None or not arguments.cache.exists() or not any(arguments.cache.iterdir())
        _measure(plan, results, cold=cold)
    print("\nWhat there is to reach:")
    print(table([row for row in results.rows if row.reach is not None]))
    return 0


def _measure(plan: Plan, results: Results, *, cold: bool) -> None:
    processes = _started(plan, plan.model, plan.batches, REACHES)
    ready = _ready(plan, processes)
    for process in ready:
        results.add(process.rows(plan.left_seconds))
    for images in plan.batches:
        results.add(_against_swapping(plan, results, images))
    for process in processes:
        if process not in ready:
            results.left_out(process.name)
    alone = next((process.first_picture for process in processes if process.name.endswith("batch of 1")), None)
    results.add(_first_pictures(plan, alone if cold else None, len(processes)))
    _kernels(plan, results)
    if plan.second_model:
        _second(plan, results)


def _started(plan: Plan, model: str, batches: Sequence[int], reaches: Mapping[int, float]) -> list[BatchProcess]:
    """A process for each batch, which compile side by side."""
    environment = cache_environment(Path(os.environ["TRITON_CACHE_DIR"]).parent, len(batches))
    turns = {images: max(3, plan.turns // (1 if images == 1 else 2 if images <= 8 else 3)) for images in batches}
    return [
        BatchProcess(plan, model, images, turns[images], reaches.get(images, 1.0), environment) for images in batches
    ]


def _ready(plan: Plan, processes: Sequence[BatchProcess]) -> list[BatchProcess]:
    """Those that have compiled while there is time to measure them; the others are ended."""
    ready = []
    for number, process in enumerate(processes, start=1):
        if process.wait_until_ready(plan.left_seconds - number * SECONDS_OF_A_BATCH):
            ready.append(process)
        print(f"{process.name}: {process.first_picture or 'not compiled'}", file=sys.stderr, flush=True)
    return ready


def _against_swapping(plan: Plan, results: Results, images: int) -> Iterator[ResultRow]:
    shapes = plan.shapes(plan.model)
    what = f"{shapes.name}, {shapes.pixels} px, batch of"
    ours, alone = (results.value(f"{what} {images}: {OURS}"), results.value(f"{what} 1: {PEER}"))
    swap = results.value(f"{shapes.name}: {SWAP}")
    if ours is not None and alone is not None and swap is not None:
        yield row_against_swapping(f"{what} {images}", ours, alone, swap)


def _first_pictures(plan: Plan, cold: FirstPicture | None, processes: int) -> Iterator[ResultRow]:
    what = f"{plan.shapes(plan.model).name}: seconds of a fresh process to its first compiled picture"
    if cold is not None:
        yield ResultRow(
            what=f"{what}, cold cache of the compiler",
            value=cold.process_seconds,
            unit="s",
            note=f"{cold.compiling_seconds:.3g} s of it to compile and draw; {processes} processes did so at the same "
            "time; the service draws meanwhile without what is compiled",
        )
    what = f"{what}, warm cache of the compiler"
    if plan.left_seconds < SECONDS_OF_A_BATCH:
        yield ResultRow(what=what, value=None, unit="s", note="left out: the time for all was over")
        return
    environment = cache_environment(Path(os.environ["TRITON_CACHE_DIR"]).parent)
    warm = first_picture(plan, plan.model, environment, plan.left_seconds)
    yield ResultRow(
        what=what,
        value=None if warm is None else warm.process_seconds,
        unit="s",
        reach=at_most(MOST_WARM_SECONDS),
        note="" if warm is None else f"{warm.compiling_seconds:.3g} s of it to compile and draw",
    )


def _kernels(plan: Plan, results: Results) -> None:
    """The kernels by themselves, by `benchmarks.kernels`, which writes a file of its own."""
    if plan.left_seconds < SECONDS_OF_KERNELS:
        results.left_out("kernels")
        return
    command = [sys.executable, "-m", "benchmarks.kernels", "--device", plan.device.type, "--turns", "5"]
    command += ["--only", "segmented_attention", "self_attention", "group_norm_silu", "geglu", "guided_solver_step"]
    path = plan.path("kernels")
    command += [] if path is None else ["--out", str(path)]
    try:
        subprocess.run(command, check=False, timeout=plan.left_seconds, cwd=Path(__file__).parents[2])
    except subprocess.TimeoutExpired:
        print("kernels: cut off; what was measured is in their file", file=sys.stderr)


def _second(plan: Plan, results: Results) -> None:
    name = plan.shapes(plan.second_model).name
    if plan.left_seconds < SECONDS_OF_SECOND:
        results.left_out(name)
        return
    for process in _ready(plan, _started(plan, plan.second_model, (1,), {1: REACH_OF_SECOND})):
        results.add(process.rows(plan.left_seconds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=500.0, help="for all together")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="of tensors")
    parser.add_argument("--out", type=Path, help="folder of the results; by default benchmarks/results/<benchmark>/")
    parser.add_argument("--cache", type=Path, help="folder of what compilers made, kept; by default one that goes")
    parser.add_argument("--with-unfused", action="store_true", help="time what fusing projections gives, too")
    parser.add_argument("--dry-run", action="store_true", help="go through all parts on a CPU, on tiny shapes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
