"""`python -m benchmarks.gpu.first_picture`: how long a fresh process takes to its first compiled pictures.

It draws random weights on the device, compiles the step of one size and denoises all steps once; no text, no VAE. What
the compiler made stays in the folder that the environment names, for later processes. Prints one line of JSON.
"""

import argparse
import json
import sys
import time

import torch

from benchmarks.full_size.architectures import ARCHITECTURES
from benchmarks.full_size.candidates import DENOISING_STEPS, STEPS_PER_RUN
from benchmarks.full_size.random_folder import DTYPES
from benchmarks.gpu.candidates import CompiledBench
from benchmarks.gpu.plan import CANDIDATES, OURS, PEER


@torch.inference_mode()
def main() -> int:
    """Draw the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.first_picture", description=__doc__)
    parser.add_argument("--model", choices=ARCHITECTURES, default="sd15")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--candidate", choices=CANDIDATES, default=OURS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = CompiledBench(ARCHITECTURES[arguments.model], device, DTYPES[arguments.dtype])
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.monotonic()
    if arguments.candidate == PEER:
        run = bench.diffusers_compiled(bench.workload(arguments.images, 1))
    else:
        steps = bench.compiled_steps if arguments.candidate == OURS else bench.unfused_steps
        run = bench.detex_compiled(steps, bench.workload(arguments.images, arguments.images))
    for _ in range(-(-DENOISING_STEPS // STEPS_PER_RUN)):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    compiled = time.monotonic() - begin
    print(json.dumps({"end_time": time.time(), "compiling_and_drawing_seconds": compiled}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
