"""What must not change: an image in whatever company, and memory over thousands of requests."""

import ctypes
import gc
import io
import threading
from collections.abc import Iterator

import numpy as np
import psutil
from PIL import Image

from benchmarks.results_file import ResultRow, at_least, at_most
from benchmarks.serving.running_engine import RunningEngine, message_of
from benchmarks.serving.setting import Setting
from detex_protos.v1 import generator_pb2

_SOLVERS = (
    generator_pb2.SOLVER_DPM_SOLVER_PP_2M,
    generator_pb2.SOLVER_DDIM,
    generator_pb2.SOLVER_EULER,
)
HIGHEST_DECIBELS = 120.0
_MOST_WARM_UP_TENTHS = 6


def company_rows(setting: Setting) -> Iterator[ResultRow]:
    """The same requests one after the other, and all together with others that differ in everything."""
    scale = setting.scale
    requests = [
        message_of(setting.asks.ask(index), scale.steps, solver=_SOLVERS[index % 3]) for index in range(scale.company)
    ]
    strangers = [
        message_of(
            setting.asks.ask(index),
            max(1, scale.steps - 3 * index),
            solver=_SOLVERS[index % 3],
            guidance_scale=1.0 if index % 2 else 9.0,
            count=1 + index % 2,
        )
        for index in range(scale.company)
    ]
    with setting.engine() as engine:
        alone = [engine.draw_one(message).pngs[0] for message in requests]
        mixed = [message for pair in zip(strangers, requests, strict=True) for message in pair]
        together, _ = engine.draw_all(mixed)
    decibels = [signal_to_noise_decibels(one, drawn.pngs[0]) for one, drawn in zip(alone, together[1::2], strict=True)]
    yield ResultRow(
        what="PSNR of an image drawn alone and in company, worst",
        value=min(decibels),
        unit="dB",
        reach=at_least(50),
        runs=tuple(decibels),
        note=f"8-bit PNGs, {scale.steps} steps; company of other concepts, prompts, solvers, steps and guidance; equal "
        f"images count as {HIGHEST_DECIBELS:g} dB",
    )


def memory_rows(setting: Setting) -> Iterator[ResultRow]:
    """Resident memory of an engine at work: before many requests against after them.

    The first look comes when nothing is left that is got once and kept: both caches are full and evict, manifests are
    remembered, and every thread has computed. The last matters most: MKL keeps buffers for each thread that multiplies
    (here 8 to 15 MB), and the pools of the engine begin their threads as they are needed.
    """
    scale = setting.scale
    most = max(scale.working_sets)
    capacity_bytes = max(1, scale.cached_concepts // 2) * setting.concept_bytes
    in_flight = 2 * scale.slots
    # Small caches, which are full soon.
    with setting.engine(concept_cache_bytes=capacity_bytes, prompt_cache_bytes=8 * 1024**2) as engine:
        for name in setting.concepts:  # manifests are remembered too, the rare ones' as well
            engine.generator.concepts.resolve("default", name)
        tenth = max(1, scale.memory_requests // 10)

        def draw() -> None:
            engine.draw_in_turn([message_of(ask, 2) for ask in setting.asks.zipf(most, tenth)], in_flight)

        warm_up, threads = 0, -1
        while warm_up < _MOST_WARM_UP_TENTHS and not (_evicts(engine) and threads == threading.active_count()):
            threads = threading.active_count()
            draw()
            warm_up += 1
        sizes = [_resident_bytes()]
        for look in range(1, 11):
            draw()
            sizes.append(_resident_bytes())
            setting.report(f"memory after {look * tenth} requests: {sizes[-1] / 1024**2:.0f} MiB")
    yield ResultRow(
        what=f"growth of host memory over {scale.memory_requests:,} requests",
        value=sizes[-1] / sizes[0] - 1,
        reach=at_most(0.02),
        runs=tuple(float(size) for size in sizes),
        note="resident bytes of the process at the beginning and after each tenth of the requests, without what the C "
        f"library keeps of freed memory; {warm_up * tenth:,} requests before that filled the caches, until both "
        f"evicted and no thread was new; grown by {(sizes[-1] - sizes[0]) / 1024**2:.1f} MiB in all",
    )


def _evicts(engine: RunningEngine) -> bool:
    """Whether both caches have had to make room."""
    concepts = engine.metric("concept_cache_evictions_total", level="host")
    return min(concepts, engine.metric("prompt_cache_evictions_total")) > 0


def _resident_bytes() -> int:
    """Resident memory without what the C library keeps of freed memory, which would hide growth."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return int(psutil.Process().memory_info().rss)


def signal_to_noise_decibels(one: bytes, other: bytes) -> float:
    """PSNR of two PNGs with 8 bits, `HIGHEST_DECIBELS` where they are equal."""
    first, second = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float64) for png in (one, other))
    error = float(np.mean((first - second) ** 2))
    return HIGHEST_DECIBELS if error == 0 else min(HIGHEST_DECIBELS, 10 * float(np.log10(255**2 / error)))
