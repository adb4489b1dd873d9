"""What must not change: an image in whatever company, and memory over thousands of requests."""

import ctypes
import gc
import io
from collections.abc import Iterator

import numpy as np
import psutil
from PIL import Image

from benchmarks.results_file import ResultRow, at_least, at_most
from benchmarks.serving.running_engine import message_of
from benchmarks.serving.setting import Setting
from detex_protos.v1 import generator_pb2

_SOLVERS = (
    generator_pb2.SOLVER_DPM_SOLVER_PP_2M,
    generator_pb2.SOLVER_DDIM,
    generator_pb2.SOLVER_EULER,
)
_HIGHEST_DECIBELS = 120.0


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
    if setting.options.get("dtype") == "bfloat16":
        with setting.engine(dtype="float32") as engine:
            exact = [engine.draw_one(message).pngs[0] for message in requests]
        parity = [_signal_to_noise_decibels(one, other) for one, other in zip(alone, exact, strict=True)]
        yield ResultRow(
            what="PSNR of an image drawn in bfloat16 and in float32, worst",
            value=min(parity),
            unit="dB",
            runs=tuple(parity),
            note="8-bit PNGs of the same requests",
        )
    decibels = [_signal_to_noise_decibels(one, drawn.pngs[0]) for one, drawn in zip(alone, together[1::2], strict=True)]
    yield ResultRow(
        what="PSNR of an image drawn alone and in company, worst",
        value=min(decibels),
        unit="dB",
        reach=at_least(50),
        runs=tuple(decibels),
        note=f"8-bit PNGs, {scale.steps} steps; company of other concepts, prompts, solvers, steps and guidance; equal "
        f"images count as {_HIGHEST_DECIBELS:g} dB",
    )


def memory_rows(setting: Setting) -> Iterator[ResultRow]:
    """Resident memory after a tenth of many requests against after all of them."""
    scale = setting.scale
    most = max(scale.working_sets)
    capacity_bytes = max(1, scale.cached_concepts // 2) * setting.concept_bytes
    # Small caches: they are full long before the first look, and what grows after that is a leak.
    with setting.engine(concept_cache_bytes=capacity_bytes, prompt_cache_bytes=8 * 1024**2) as engine:
        for name in setting.concepts:  # manifests are remembered too, the rare ones' as well
            engine.generator.concepts.resolve("default", name)
        asks = setting.asks.zipf(most, scale.memory_requests)
        messages = [message_of(ask, 2) for ask in asks]
        begin = len(messages) // 10
        engine.draw_in_turn(messages[:begin], 2 * scale.slots)
        sizes = [_resident_bytes()]
        tenth = max(1, (len(messages) - begin) // 9)
        for start in range(begin, len(messages), tenth):
            engine.draw_in_turn(messages[start : start + tenth], 2 * scale.slots)
            sizes.append(_resident_bytes())
            setting.report(f"memory after {start + tenth} requests: {sizes[-1] / 1024**2:.0f} MiB")
    yield ResultRow(
        what=f"growth of host memory over {scale.memory_requests:,} requests",
        value=sizes[-1] / sizes[0] - 1,
        reach=at_most(0.02),
        runs=tuple(float(size) for size in sizes),
        note="resident bytes of the process after each tenth of the requests; the first tenth fills the caches",
    )


def _resident_bytes() -> int:
    """Resident memory without what the C library keeps of freed memory, which would hide growth."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return int(psutil.Process().memory_info().rss)


def _signal_to_noise_decibels(one: bytes, other: bytes) -> float:
    first, second = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.float64) for png in (one, other))
    error = float(np.mean((first - second) ** 2))
    return _HIGHEST_DECIBELS if error == 0 else min(_HIGHEST_DECIBELS, 10 * float(np.log10(255**2 / error)))
