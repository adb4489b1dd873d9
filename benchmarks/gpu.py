"""`python -m benchmarks.gpu`: all that is measured on a GPU, one after the other, within twenty minutes.

Kernels first, then base models of full size in the time that is left. Each writes its results under
`benchmarks/results/`. Without a GPU it says so and exits with status 3.
"""

import argparse
import subprocess
import sys
import time

import torch

NO_GPU_STATUS = 3
LEAST_SECONDS = 120.0


def main() -> int:
    """Run all; returns the exit status of the first that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1140.0, help="for all together")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="of tensors")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no GPU here. Nothing was measured and nothing was written.", file=sys.stderr)
        return NO_GPU_STATUS
    begin = time.monotonic()
    first = _run("benchmarks.kernels", "--dtype", arguments.dtype, "--turns", "15")
    left = max(LEAST_SECONDS, arguments.seconds - (time.monotonic() - begin))
    second = _run("benchmarks.full_size", "--dtype", arguments.dtype, "--seconds", f"{left:.0f}")
    return first or second


def _run(module: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
