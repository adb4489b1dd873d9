"""Times candidates for the same work in one process, taking turns, on inputs that no cache holds.

On a GPU the calls of a turn are captured as one CUDA graph, so that what launching costs in Python is not measured; a
candidate goes round several sets of inputs that together exceed the L2 cache several times over.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

Call = Callable[[int], object]
"""One run of a candidate on the set of inputs of an index."""

L2_ROUNDS = 4
MOST_SETS = 64


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes:
        name: For the results.
        call: Runs it on a set of inputs.
    """

    name: str
    call: Call


@dataclass
class Timings:
    """Seconds per call of each candidate, turn by turn, and why others could not run.

    Attributes:
        seconds: By name; entries of one index are of one turn.
        refusals: By name.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def fastest(self, names: Sequence[str]) -> str | None:
        """The one of these names with the least median, or None where none of them ran."""
        ran = [name for name in names if name in self.seconds]
        return min(ran, key=lambda name: statistics.median(self.seconds[name]), default=None)

    def ratios(self, slow: str, fast: str) -> list[float]:
        """How many times as fast the second is, turn by turn."""
        return [one / other for one, other in zip(self.seconds[slow], self.seconds[fast], strict=True)]


def sets_needed(set_bytes: int, device: torch.device) -> int:
    """Sets of inputs that together exceed the L2 cache several times over.

    Args:
        set_bytes: Bytes that one call reads and writes.
        device: Where it runs; on a CPU two sets are enough to keep results apart.
    """
    if device.type != "cuda":
        return 2
    cache_bytes = int(torch.cuda.get_device_properties(device).L2_cache_size)
    return max(2, min(MOST_SETS, -(-L2_ROUNDS * cache_bytes // set_bytes)))


def measure(candidates: Sequence[Candidate], sets: int, device: torch.device, turns: int) -> Timings:
    """Time candidates.

    Args:
        candidates: Those to compare.
        sets: Sets of inputs.
        device: Where they run.
        turns: How often each is timed, in an order that is drawn anew for each turn.
    """
    timings = Timings()
    runs: dict[str, Callable[[], float]] = {}
    for candidate in candidates:
        try:
            prepare = _on_gpu if device.type == "cuda" else _on_cpu
            runs[candidate.name] = prepare(candidate.call, sets)
            timings.seconds[candidate.name] = []
        except (RuntimeError, ValueError, NotImplementedError) as error:
            timings.refusals[candidate.name] = str(error).splitlines()[0]
    order = random.Random(0)
    for _ in range(turns):
        for name in order.sample(list(runs), len(runs)):
            timings.seconds[name].append(runs[name]())
    return timings


def copy_bandwidth(device: torch.device, turns: int) -> float:
    """Bytes per second that a copy on the device reads and writes, the median of turns."""
    source = torch.empty(2**28, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    timings = measure([Candidate("copy", lambda _: target.copy_(source))], 1, device, turns)
    return 2 * source.numel() * source.element_size() / statistics.median(timings.seconds["copy"])


def _on_gpu(call: Call, sets: int) -> Callable[[], float]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for index in range(sets):
            call(index)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(sets):
            call(index)
    graph.replay()
    torch.cuda.synchronize()

    def run() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000 / sets

    return run


def _on_cpu(call: Call, sets: int) -> Callable[[], float]:
    call(0)

    def run() -> float:
        begin = time.perf_counter()
        for index in range(sets):
            call(index)
        return (time.perf_counter() - begin) / sets

    return run
