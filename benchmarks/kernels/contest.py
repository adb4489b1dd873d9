"""A kernel against its peers: times, ratio to the fastest peer, error against double precision."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.kernels.timing import Call, Candidate, measure, sets_needed
from benchmarks.results_file import Reach, ResultRow, at_least, at_most, median_row

WORST_ERROR_RATIO = 1.2
BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention": SDPBackend.FLASH_ATTENTION,
    "EFFICIENT": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True)
class Contest:
    """The same work by a kernel and by peers.

    Attributes:
        what: The work and its shape, for the results.
        set_bytes: Bytes that one call reads and writes.
        ours: The kernel's variants by name; the first is the one that is used.
        peers: The peers by name.
        wanted: The result in double precision for the set of index 0, or the first of several results; None where
            errors are tested elsewhere.
        reach: What the ratio of the fastest peer's time to ours is meant to reach; None where it is only reported.
    """

    what: str
    set_bytes: int
    ours: Mapping[str, Call]
    peers: Mapping[str, Call]
    wanted: Callable[[], Tensor] | None = None
    reach: float | None = None


def rows_of(contest: Contest, device: torch.device, turns: int) -> Iterator[ResultRow]:
    """Run a contest.

    Args:
        contest: Which; its calls hold as many sets of inputs as `sets_needed` says.
        device: Where.
        turns: How often each candidate is timed.
    """
    candidates_by_name = {**contest.ours, **contest.peers}
    candidates = [Candidate(name, call) for name, call in candidates_by_name.items()]
    timings = measure(candidates, sets_needed(contest.set_bytes, device), device, turns)
    used = next(iter(contest.ours))
    peer = timings.fastest(list(contest.peers))
    refused = "; ".join(f"{name} cannot: {reason}" for name, reason in timings.refusals.items())
    for name, seconds in timings.seconds.items():
        microseconds = [1e6 * second for second in seconds]
        bandwidth = contest.set_bytes / statistics.median(seconds) / 1e9
        yield median_row(f"{contest.what}: {name}", microseconds, "us", note=f"{bandwidth:.4g} GB/s")
    what = f"{contest.what}: {used} against the fastest peer"
    reach: Reach | None = None if contest.reach is None else at_least(contest.reach)
    if used not in timings.seconds or peer is None:
        yield ResultRow(what=what, value=None, reach=reach, note=refused)
        return
    yield median_row(what, timings.ratios(peer, used), reach=reach, note=f"the fastest is {peer}. {refused}".strip())
    if contest.wanted is not None:
        given = {name: candidates_by_name[name](0) for name in (used, peer)}
        worst = at_most(WORST_ERROR_RATIO) if device.type == "cuda" else None
        yield _error_row(contest.what, contest.wanted(), given, worst)


def backends(call: Call) -> dict[str, Call]:
    """A call of scaled dot-product attention by each backend of torch, forced."""

    def forced(backend: SDPBackend) -> Call:
        def run(index: int) -> object:
            with sdpa_kernel(backend):
                return call(index)

        return run

    return {name: forced(backend) for name, backend in BACKENDS.items()}


Inputs = tuple[Tensor, ...]


def input_sets(make: Callable[[int], Inputs], set_bytes: int, device: torch.device) -> list[Inputs]:
    """As many sets of inputs as exceed the cache; `make` is given the seed of one."""
    return [make(seed) for seed in range(sets_needed(set_bytes, device))]


def _error_row(what: str, wanted: Tensor, given: Mapping[str, object], reach: Reach | None) -> ResultRow:
    """How far the first is from double precision, as a multiple of how far the second is."""
    errors = []
    for result in given.values():
        output = result[0] if isinstance(result, tuple) else result
        if not isinstance(output, Tensor):
            raise TypeError(f"{what} gives {type(output)} and not a tensor")
        errors.append(float((output.double() - wanted).abs().max() / wanted.abs().max()))
    used, peer = given
    return ResultRow(
        what=f"{what}: largest error of {used}, as a multiple of that of {peer}",
        value=errors[0] / errors[1] if errors[1] else None,
        reach=reach,
        note=f"{errors[0]:.3g} and {errors[1]:.3g} of the largest value, against float64",
    )
