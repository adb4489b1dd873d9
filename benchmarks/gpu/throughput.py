"""Images per second of one batch: detex with a concept each against diffusers compiled for one concept."""

import statistics
from collections.abc import Callable, Iterator, Mapping

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


@torch.inference_mode()
def rows_of_batch(
    bench: CompiledBench, images: int, turns: int, reach: float, *, with_unfused: bool = False
) -> Iterator[ResultRow]:
    """Measure one batch.

    Args:
        bench: Of one UNet.
        images: Of the batch.
        turns: How often each candidate is timed, in an order drawn anew for each turn.
        reach: What detex, compiled and with a concept each, is meant to reach against diffusers compiled for one.
        with_unfused: Whether compiled steps whose projections are not fused are timed too.
    """
    what = f"{bench.architecture.name}, {bench.architecture.pixels} px, batch of {images}"
    mixed, one = bench.workload(images, images), bench.workload(images, 1)
    refusals: dict[str, str] = {}
    runs: dict[str, Run] = {}
    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: bench.detex_compiled(bench.compiled_steps, mixed),
        PEER: lambda: bench.diffusers_compiled(one),
        UNCOMPILED: lambda: bench.detex(bench.steps[GRAPHS], mixed),
        EAGER: lambda: bench.diffusers(bench.plain, one),
    }
    if with_unfused:
        makers[UNFUSED] = lambda: bench.detex_compiled(bench.unfused_steps, mixed)
    for name, make in makers.items():
        try:
            runs[name] = make()
        except Exception as error:  # whatever a compiler raises costs one candidate
            refusals[name] = str(error)[:200]
    seconds, refused = timed(runs, turns, bench.device)
    speeds = {name: [images / (DENOISING_STEPS * second) for second in found] for name, found in seconds.items()}
    for name in makers:
        if name in speeds:
            note = f"{1000 * statistics.median(seconds[name]):.4g} ms a step"
            yield median_row(f"{what}: {name}", speeds[name], "images/s", note=note)
        else:
            note = (refusals | refused).get(name, "")
            yield ResultRow(what=f"{what}: {name}", value=None, unit="images/s", note=note)
    yield _ratio(
        f"{what}: detex compiled, a concept each, against diffusers compiled, one concept", speeds, OURS, PEER, reach
    )
    if with_unfused:
        yield _ratio(f"{what}: detex compiled, projections fused against not fused", speeds, OURS, UNFUSED)
        yield _ratio(f"{what}: {UNFUSED}, against {PEER}", speeds, UNFUSED, PEER)
    yield _ratio(f"{what}: detex, compiled against not compiled", speeds, OURS, UNCOMPILED)
    yield _ratio(
        f"{what}: detex not compiled, a concept each, against diffusers, one concept", speeds, UNCOMPILED, EAGER
    )
    for steps in bench.steps.values():
        steps.clear()  # a graph keeps the keys and values of its batch


@torch.inference_mode()
def swapping_row(bench: CompiledBench, images: int, ours: float, alone: float, turns: int) -> ResultRow:
    """Against the peer at its best for a concept each: one image at a time, weights swapped before each.

    Args:
        bench: Of one UNet.
        images: Of the batch of detex.
        ours: Images per second of detex, compiled.
        alone: Images per second of diffusers, compiled, one image at a time.
        turns: How often swapping is timed.
    """
    swaps, _ = timed({"swap": bench.swap()}, turns, bench.device)
    swap_seconds = statistics.median(swaps["swap"]) * STEPS_PER_RUN
    peer = 1 / (1 / alone + swap_seconds)
    return ResultRow(
        what=f"{bench.architecture.name}, {bench.architecture.pixels} px, batch of {images}: detex compiled, a concept "
        "each, against diffusers compiled that swaps concepts image by image",
        value=ours / peer,
        reach=at_least(LEAST_AGAINST_SWAPPING),
        note=f"{1000 * swap_seconds:.3g} ms to swap a concept's weights",
    )


def _ratio(what: str, speeds: Mapping[str, list[float]], ours: str, peer: str, reach: float | None = None) -> ResultRow:
    wanted = None if reach is None else at_least(reach)
    if ours not in speeds or peer not in speeds:
        return ResultRow(what=what, value=None, reach=wanted, note="one of the two was not measured")
    ratios = [one / other for one, other in zip(speeds[ours], speeds[peer], strict=True)]
    return median_row(what, ratios, reach=wanted)
