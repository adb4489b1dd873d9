"""`python -m benchmarks.serving`: measures the generator's engine and the peer, and writes the results."""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

# As the generator's own process does it, before torch is imported; see detex_generator.server.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.results_file import ResultRow, table, write_results
from benchmarks.serving.arrivals import Asks
from benchmarks.serving.latencies import alone_rows, cold_rows, joining_rows
from benchmarks.serving.mixtures import mixture_rows, working_set_rows
from benchmarks.serving.peer import Peer
from benchmarks.serving.poisson_load import poisson_rows
from benchmarks.serving.precision import precision_rows
from benchmarks.serving.scale import FULL, QUICK
from benchmarks.serving.setting import Setting
from benchmarks.serving.size_memory import size_memory_rows
from benchmarks.serving.sizes import size_rows
from benchmarks.serving.steadiness import company_rows, memory_rows
from benchmarks.serving.synthetic_concepts import publish_concepts
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import load_base_model
from detex_generator.compute.memory_allocator import keep_freed_memory

MEASUREMENTS = {
    "memory": memory_rows,  # first, while the process has freed little
    "mixture": mixture_rows,
    "working_set": working_set_rows,
    "poisson": poisson_rows,
    "joining": joining_rows,
    "cold": cold_rows,
    "alone": alone_rows,
    "company": company_rows,
    "precision": precision_rows,
    "sizes": size_rows,
    "size_memory": size_memory_rows,
}


def main() -> None:
    """Run the measurements that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/serving/<machine>.json")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that shows that all parts work")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), help="these alone")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the engine's weights")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    keep_freed_memory()
    begin = time.perf_counter()

    def report(line: str) -> None:
        print(f"{time.perf_counter() - begin:6.1f} s  {line}", file=sys.stderr, flush=True)

    base_model = load_base_model(BaseModelSettings(name="showroom", source="embedded"))
    rows: list[ResultRow] = []
    with tempfile.TemporaryDirectory(prefix="detex-serving-") as folder:
        work_folder = Path(folder)
        concepts = publish_concepts(
            FolderStore(work_folder / "store"), base_model, range(max(scale.concepts, *scale.working_sets))
        )
        report(f"{len(concepts)} concepts published")
        setting = Setting(
            scale=scale,
            base_model=base_model,
            concepts=concepts,
            store_folder=work_folder / "store",
            work_folder=work_folder,
            peer=Peer(base_model.folder, concepts, batch=scale.batch, steps=scale.steps),
            asks=Asks(),
            options={"dtype": arguments.dtype},
            report=report,
        )
        setting.options["denoising_threads"] = setting.fastest_threads(torch.get_num_threads())
        settings = asdict(scale) | {"engine_dtype": arguments.dtype, "peer_dtype": "float32", "quick": arguments.quick}
        settings |= {"engine_threads": setting.options["denoising_threads"], "peer_threads": setting.peer.threads}
        for name in arguments.only:
            report(name)
            for row in MEASUREMENTS[name](setting):
                rows.append(row)
                report(table([row]))
            # After each measurement: a run that is cut off leaves what it has.
            path = write_results("serving", rows, module="benchmarks.serving", path=arguments.out, settings=settings)
    print(table(rows))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
