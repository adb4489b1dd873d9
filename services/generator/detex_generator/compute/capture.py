"""Steps that are captured as CUDA graphs: launched once by the host, and by one launch from then on."""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

import torch

from detex_generator.compute.denoising_step import StepResults

WARM_UPS = 2
"""Passes before a capture, in which libraries choose algorithms and kernels are compiled."""

Step = Callable[[], StepResults]


class Capture(Protocol):
    """Makes a step that is run again and again of one that reads and writes the same tensors each time."""

    def __call__(self, step: Step) -> Step:
        """The replay; what it gives may be overwritten by any later replay."""


class CudaCapture:
    """Captures CUDA graphs that share one pool of memory; for one thread."""

    def __init__(self) -> None:
        """Nothing is captured yet."""
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, step: Step) -> Step:
        """Capture a step on the current device."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        # cuBLAS keeps a workspace for each stream, and captures take turns on one stream: left alone, a graph would
        # read one that lies in the memory of another graph, or that somebody else gives back. Its own one it has for
        # itself, as long as it lives.
        torch._C._cuda_clearCublasWorkspaces()
        graph = torch.cuda.CUDAGraph()
        # Replays follow one another, and what one gives is read before the next; so all graphs may share their memory.
        # A pool that no graph holds any more must not be asked for again.
        pool = next((other.pool() for other in self._graphs), None)
        # Other threads encode and decode meanwhile, and may take memory of the device: that is their own affair.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = step()
        torch._C._cuda_clearCublasWorkspaces()
        self._graphs.add(graph)

        def replay() -> StepResults:
            graph.replay()
            return results

        return replay


def eager(step: Step) -> Step:
    """No capture: every replay runs the step again."""
    return step
