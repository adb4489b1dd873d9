"""What drawing in bfloat16 gains on a CPU, and what it costs."""

import time
from collections.abc import Iterator

from benchmarks.results_file import ResultRow, median_row
from benchmarks.serving.running_engine import RunningEngine, message_of
from benchmarks.serving.setting import Setting, ratios
from benchmarks.serving.steadiness import HIGHEST_DECIBELS, signal_to_noise_decibels


def precision_rows(setting: Setting) -> Iterator[ResultRow]:
    """The same requests by an engine in float32 and by one in bfloat16, in turns."""
    scale = setting.scale
    exact_cpu: list[float] = []
    fast_cpu: list[float] = []
    with setting.engine(dtype="float32") as exact, setting.engine(dtype="bfloat16") as fast:
        setting.warm_up(exact)
        setting.warm_up(fast)
        messages = [message_of(setting.asks.ask(index), scale.steps) for index in range(scale.company)]
        decibels = [
            signal_to_noise_decibels(exact.draw_one(message).pngs[0], fast.draw_one(message).pngs[0])
            for message in messages
        ]
        for _ in range(scale.runs):
            exact_cpu.append(_cpu_seconds(setting, exact))
            fast_cpu.append(_cpu_seconds(setting, fast))
    yield ResultRow(
        what="PSNR of an image drawn in bfloat16 and in float32, worst",
        value=min(decibels),
        unit="dB",
        runs=tuple(decibels),
        note=f"8-bit PNGs of the same requests, {scale.steps} steps; equal images count as {HIGHEST_DECIBELS:g} dB; "
        "float32 is the default",
    )
    yield median_row(
        "CPU time per image in bfloat16 against float32",
        ratios(fast_cpu, exact_cpu),
        note=f"{scale.slots} images at once; AVX512-BF16 or AMX make the difference",
    )


def _cpu_seconds(setting: Setting, engine: RunningEngine) -> float:
    """CPU time of as many images as there are slots."""
    begin = time.process_time()
    setting.images_per_second(engine, setting.asks.uniform(1, setting.scale.slots))
    return time.process_time() - begin
