"""`python -m benchmarks.training`: measures training and the peers, and writes the results.

On a machine with a GPU that is training at the full size of Stable Diffusion 1.5 with random weights, elsewhere all
that concerns the embedded base model; `--only` takes others. `--only full_size --model small-xl --device cpu --quick`
is a dry run of the first.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.full_size.architectures import ARCHITECTURES
from benchmarks.results_file import ResultRow, table, write_results
from benchmarks.training.full_size import full_size_rows
from benchmarks.training.scale import FULL, QUICK, Scale
from benchmarks.training.speed import packing_rows, peer_rows
from benchmarks.training.whole_job import checkpoint_rows, job_rows
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.frozen import freeze_base_model
from detex_trainer.learning.training.memory import free_memory_bytes

MEASUREMENTS: dict[str, Callable[[BaseModel, Scale], Iterator[ResultRow]]] = {
    "peers": peer_rows,
    "packing": packing_rows,
    "checkpoints": checkpoint_rows,
    "job": lambda _, scale: job_rows(scale),
}

_FULL_SIZE = "full_size"


def main() -> None:
    """Run the measurements that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/training/<machine>.json")
    parser.add_argument("--quick", action="store_true", help="a short run that shows that all parts work")
    parser.add_argument("--only", nargs="+", choices=[*MEASUREMENTS, _FULL_SIZE], help="these alone")
    has_gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if has_gpu else "cpu", help="of full_size")
    parser.add_argument("--model", choices=ARCHITECTURES, default="sd15", help="shapes of full_size")
    arguments = parser.parse_args()
    only = arguments.only or ([_FULL_SIZE] if has_gpu else list(MEASUREMENTS))
    scale = QUICK if arguments.quick else FULL
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    base_model = load_base_model(BaseModelSettings(name="showroom", source="embedded"))
    freeze_base_model(base_model, free_memory_bytes(base_model.device))  # as the worker does it
    load_before = os.getloadavg()[0]  # what else ran on the machine: seconds of whole jobs depend on it
    began = time.perf_counter()
    rows: list[ResultRow] = []
    for name in only:
        if name == _FULL_SIZE:
            found = full_size_rows(arguments.model, torch.device(arguments.device), scale)
        else:
            found = MEASUREMENTS[name](base_model, scale)
        for row in found:
            rows.append(row)
            print(f"{time.perf_counter() - began:6.1f} s  {table([row])}", file=sys.stderr, flush=True)
    settings = asdict(scale) | {
        "load_average_before": load_before,
        "load_average_after": os.getloadavg()[0],
        "base_model": base_model.fingerprint,
        "dtype": str(base_model.dtype),
        "threads": torch.get_num_threads(),
        # Not set, as whoever runs the peers has it, unless whoever runs this has set it; workers take PASSIVE.
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
    }
    path = write_results(
        "training",
        rows,
        module="benchmarks.training",
        path=arguments.out,
        settings=settings,
        further_packages=["psutil"],
    )
    print(table(rows))
    print(path)


if __name__ == "__main__":
    main()
