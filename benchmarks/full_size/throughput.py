"""Images per second of a base model of full size, for one concept and for a concept each.

What is timed is denoising with guidance: no text encoding, no VAE. Candidates take turns in an order drawn anew each
time, and medians count.
"""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from benchmarks.full_size.candidates import DENOISING_STEPS, STEPS_PER_RUN, Bench, Run
from benchmarks.full_size.profile import shares_of_kernel_time
from benchmarks.results_file import ResultRow, at_least, median_row

GRAPHS = "and CUDA graphs"
EAGER, COMPILED = "diffusers", "diffusers compiled"
LEAST_FOR_ONE_CONCEPT = 1.0
LEAST_FOR_MIXED = 2.0


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        batches: Images of a batch.
        compiled_batches: Those that diffusers is also compiled for, each anew, which takes a minute or more.
        breakdown_batch: Images of the batch that techniques are taken apart for.
        turns: How often each candidate is timed.
        end_time: Time of `time.monotonic` after which nothing more is begun.
    """

    batches: tuple[int, ...]
    compiled_batches: tuple[int, ...]
    breakdown_batch: int
    turns: int
    end_time: float

    @property
    def is_over(self) -> bool:
        """Whether time has run out."""
        return time.monotonic() > self.end_time


@torch.inference_mode()
def rows_of_throughput(bench: Bench, plan: Plan) -> Iterator[ResultRow]:
    """Measure a base model; what no time is left for is named."""
    name = f"{bench.architecture.name} at {bench.architecture.pixels} by {bench.architecture.pixels} pixels"
    compiled = torch.compile(bench.plain, mode="reduce-overhead", dynamic=False) if plan.compiled_batches else None
    best_alone: dict[str, list[float]] = {}
    for images in plan.batches:
        what = f"{name}, {_counted(images, 'image')}"
        if plan.is_over:
            yield ResultRow(what=what, value=None, unit="images/s", note="left out: the time for all was over")
            continue
        one, mixed = bench.workload(images, 1), bench.workload(images, images)
        runs = {
            "detex, one concept": bench.detex(bench.steps[GRAPHS], one),
            "detex, a concept each": bench.detex(bench.steps[GRAPHS], mixed),
            EAGER: bench.diffusers(bench.plain, one),
        }
        if compiled is not None and images in plan.compiled_batches:
            runs[COMPILED] = bench.diffusers(compiled, one)
        seconds, refusals = timed(runs, plan.turns, bench.device)
        speeds = {each: [images / (DENOISING_STEPS * second) for second in found] for each, found in seconds.items()}
        for each, found in speeds.items():
            yield median_row(f"{what}: {each}", found, "images/s")
        for each, reason in refusals.items():
            yield ResultRow(what=f"{what}: {each}", value=None, unit="images/s", note=reason)
        peers = {each: speeds[each] for each in (EAGER, COMPILED) if each in speeds}
        if images == 1:
            best_alone = peers
        yield from _comparisons(what, speeds, peers)
        if best_alone:
            yield from _mixed_comparison(what, bench, speeds, best_alone, plan)
        for steps in bench.steps.values():
            steps.clear()  # a graph keeps the keys and values of its batch
    if not plan.is_over:
        yield from _breakdown(bench, plan, name)


def _comparisons(what: str, speeds: Mapping[str, list[float]], peers: Mapping[str, list[float]]) -> Iterator[ResultRow]:
    ours = speeds.get("detex, one concept")
    if ours and peers:
        peer = max(peers, key=lambda each: statistics.median(peers[each]))
        ratios = [one / other for one, other in zip(ours, peers[peer], strict=True)]
        yield median_row(
            f"{what}: one concept, detex against the fastest peer",
            ratios,
            reach=at_least(LEAST_FOR_ONE_CONCEPT),
            note=f"the fastest is {peer}",
        )


def _mixed_comparison(
    what: str,
    bench: Bench,
    speeds: Mapping[str, list[float]],
    best_alone: Mapping[str, list[float]],
    plan: Plan,
) -> Iterator[ResultRow]:
    """Against the peer at its best for a concept each: one image at a time, weights swapped before each."""
    ours = speeds.get("detex, a concept each")
    if not ours:
        return
    swaps, _ = timed({"swap": bench.swap()}, plan.turns, bench.device)
    swap_seconds = statistics.median(swaps["swap"]) * STEPS_PER_RUN
    peer, fastest = max(best_alone.items(), key=lambda item: statistics.median(item[1]))
    peer_speed = 1 / (1 / statistics.median(fastest) + swap_seconds)
    yield median_row(
        f"{what}: a concept each, detex against the fastest peer",
        [one / peer_speed for one in ours],
        reach=at_least(LEAST_FOR_MIXED),
        note=f"the fastest is {peer}, image by image, {1000 * swap_seconds:.3g} ms to swap a concept's weights",
    )


def _breakdown(bench: Bench, plan: Plan, name: str) -> Iterator[ResultRow]:
    """What each technique gives, and where the time of the whole goes."""
    images = plan.breakdown_batch
    what = f"{name}, {_counted(images, 'image')}"
    workload = bench.workload(images, images)
    runs = {EAGER: bench.diffusers(bench.plain, workload)}
    runs |= {technique: bench.detex(steps, workload) for technique, steps in bench.steps.items()}
    seconds, refusals = timed(runs, plan.turns, bench.device)
    before = EAGER
    for technique in list(bench.steps):
        if technique not in seconds or before not in seconds:
            note = refusals.get(technique, "")
            yield ResultRow(what=f"{what}: {technique}, against what was before", value=None, note=note)
            continue
        ratios = [one / other for one, other in zip(seconds[before], seconds[technique], strict=True)]
        yield median_row(f"{what}: {technique}, against what was before", ratios, note=f"before: {before}")
        before = technique
    for kind, share in shares_of_kernel_time(runs["and kernels"], bench.device).items():
        yield ResultRow(what=f"{what}: share of {kind} in the time of all operations", value=share)


def timed(runs: Mapping[str, Run], turns: int, device: torch.device) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of a denoising step for each run, turn by turn, and why others could not run."""
    seconds: dict[str, list[float]] = defaultdict(list)
    refusals: dict[str, str] = {}
    ready = dict(runs)
    for name, run in runs.items():
        try:
            for _ in range(2):  # compiles, captures
                run()
            _wait(device)
        except Exception as error:  # whatever a compiler raises costs one candidate
            refusals[name] = (str(error).splitlines() or [type(error).__name__])[0][:200]
            del ready[name]
    order = random.Random(0)
    for _ in range(turns):
        for name in order.sample(list(ready), len(ready)):
            _wait(device)
            begin = time.perf_counter()
            ready[name]()
            _wait(device)
            seconds[name].append((time.perf_counter() - begin) / STEPS_PER_RUN)
    return dict(seconds), refusals


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
