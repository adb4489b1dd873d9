"""Where the time of a run goes, by kinds of operations."""

import re

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.full_size.candidates import Run

KINDS = {
    "attention": r"attention|flash|fmha|sdpa|segmented",
    "convolutions": r"conv|implicit|wgrad|dgrad|fprop",
    "matrix products": r"gemm|matmul|cutlass|addmm|aten::mm|bmm|linear|nvjet|wgmma",
    "norms": r"norm|welford",
}
"""What names of kernels and operators tell, the first that matches; names of libraries differ between releases."""


def shares_of_kernel_time(run: Run, device: torch.device) -> dict[str, float]:
    """Share of each kind, and of the rest, in the time of all kernels of a GPU or of all operators of a CPU."""
    on_gpu = device.type == "cuda"
    run()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
    times = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in profiled.key_averages():
        if on_gpu and not str(event.device_type).endswith("CUDA"):
            continue
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key.lower())), "the rest")
        times[kind] += float(spent)
    total = sum(times.values())
    return {kind: spent / total for kind, spent in times.items()} if total else {}
