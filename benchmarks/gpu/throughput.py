"""Images per second of one batch: detex with a concept each against diffusers compiled for one concept."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from benchmarks.full_size.candidates import DENOISING_STEPS, STEPS_PER_RUN, Run
from benchmarks.full_size.throughput import GRAPHS, timed
from benchmarks.gpu.candidates import CompiledBench
from benchmarks.results_file import ResultRow, at_least, median_row

OURS = "detex compiled, a concept each"
UNFUSED = "detex compiled, projections not fused, a concept each"
UNCOMPILED = "detex not compiled, a concept each"
PEER = "diffusers compiled, one concept"
EAGER = "diffusers, one concept"
LEAST_AGAINST_SWAPPING = 2.0


def prepared(bench: CompiledBench, images: int, names: Sequence[str]) -> tuple[dict[str, Run], dict[str, str]]:
    """Runs of candidates, those of detex compiled now, and why others cannot be had.

    Args:
        bench: Of one UNet.
        images: Of the batch.
        names: Which of the compiled ones; the others are always there.
    """
    mixed, one = bench.workload(images, images), bench.workload(images, 1)
    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: bench.detex_compiled(bench.compiled_steps, mixed),
        UNFUSED: lambda: bench.detex_compiled(bench.unfused_steps, mixed),
        PEER: lambda: bench.diffusers_compiled(one),
        UNCOMPILED: lambda: bench.detex(bench.steps[GRAPHS], mixed),
        EAGER: lambda: bench.diffusers(bench.plain, one),
    }
    runs: dict[str, Run] = {}
    refusals: dict[str, str] = {}
    for name in (*names, UNCOMPILED, EAGER):
        try:
            runs[name] = makers[name]()
        except Exception as error:  # whatever a compiler raises costs one candidate
            refusals[name] = str(error)[:200]
    return runs, refusals


@torch.inference_mode()
def rows_of_batch(
    bench: CompiledBench, images: int, runs: Mapping[str, Run], refusals: Mapping[str, str], turns: int, reach: float
) -> Iterator[ResultRow]:
    """Measure one batch.

    Args:
        bench: Of one UNet.
        images: Of the batch.
        runs: Of `prepared`.
        refusals: Of `prepared`.
        turns: How often each candidate is timed, in an order drawn anew for each turn.
        reach: What detex, compiled and with a concept each, is meant to reach against diffusers compiled for one.
    """
    what = f"{bench.architecture.name}, {bench.architecture.pixels} px, batch of {images}"
    seconds, refused = timed(runs, turns, bench.device)
    speeds = {name: [images / (DENOISING_STEPS * second) for second in found] for name, found in seconds.items()}
    ratio = f"{what}: {OURS}, against {PEER}"
    yield _ratio(ratio, speeds, OURS, PEER, reach)
    for name in (*runs, *refusals):
        if name in speeds:
            note = f"{1000 * statistics.median(seconds[name]):.4g} ms a step"
            yield median_row(f"{what}: {name}", speeds[name], "images/s", note=note)
        else:
            note = ({**refusals, **refused}).get(name, "")
            yield ResultRow(what=f"{what}: {name}", value=None, unit="images/s", note=note)
    if UNFUSED in speeds:
        yield _ratio(f"{what}: detex compiled, projections fused against not fused", speeds, OURS, UNFUSED)
        yield _ratio(f"{what}: {UNFUSED}, against {PEER}", speeds, UNFUSED, PEER)
    yield _ratio(f"{what}: detex, compiled against not compiled", speeds, OURS, UNCOMPILED)
    yield _ratio(f"{what}: {UNCOMPILED}, against {EAGER}", speeds, UNCOMPILED, EAGER)


SWAP = "to swap a concept's weights into diffusers"


@torch.inference_mode()
def row_of_swapping(bench: CompiledBench, turns: int) -> ResultRow:
    """How long it takes to put a concept's weights into diffusers' UNet."""
    swaps, _ = timed({"swap": bench.swap()}, turns, bench.device)
    milliseconds = [1000 * STEPS_PER_RUN * second for second in swaps["swap"]]
    return median_row(f"{bench.architecture.name}: {SWAP}", milliseconds, "ms")


def row_against_swapping(what: str, ours: float, alone: float, swap_milliseconds: float) -> ResultRow:
    """Against the peer at its best for a concept each: one image at a time, weights swapped before each.

    Args:
        what: The shapes and the batch.
        ours: Images per second of detex, compiled.
        alone: Images per second of diffusers, compiled, one image at a time.
        swap_milliseconds: To swap weights.
    """
    return ResultRow(
        what=f"{what}: {OURS}, against diffusers compiled that swaps concepts image by image",
        value=ours * (1 / alone + swap_milliseconds / 1000),
        reach=at_least(LEAST_AGAINST_SWAPPING),
    )


def _ratio(what: str, speeds: Mapping[str, list[float]], ours: str, peer: str, reach: float | None = None) -> ResultRow:
    wanted = None if reach is None else at_least(reach)
    if ours not in speeds or peer not in speeds:
        return ResultRow(what=what, value=None, reach=wanted, note="one of the two was not measured")
    ratios = [one / other for one, other in zip(speeds[ours], speeds[peer], strict=True)]
    return median_row(what, ratios, reach=wanted)
