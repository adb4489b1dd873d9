"""A small picture beside large ones of another tenant: what it takes, against what it takes alone."""

import asyncio
import statistics
from collections.abc import Iterator

from benchmarks.results_file import ResultRow, at_most
from benchmarks.serving.running_engine import RunningEngine, message_of
from benchmarks.serving.setting import Setting
from detex_protos.v1 import generator_pb2
from detex_protos.v1.generator_pb2 import GenerateRequest

_SLOTS = 4
_LARGE_STEPS = 500
_LARGE_PASSES_BEFORE = 2
_CASES = {
    "of its own class": (generator_pb2.PRIORITY_NORMAL, generator_pb2.PRIORITY_NORMAL),
    "of the lowest class, itself of the highest": (generator_pb2.PRIORITY_HIGH, generator_pb2.PRIORITY_LOW),
}


def size_rows(setting: Setting) -> Iterator[ResultRow]:
    """Times of a small picture alone, and while as many large ones as there are slots are being drawn."""
    scale, side = setting.scale, setting.base_model.width
    small_side, large_side = side // 2, 4 * side
    for case, (small_class, large_class) in _CASES.items():
        small = message_of(setting.asks.ask(0), scale.steps, width=small_side, height=small_side, priority=small_class)
        large = message_of(
            setting.asks.ask(1),
            _LARGE_STEPS,
            width=large_side,
            height=large_side,
            priority=large_class,
            count=_SLOTS,
            prompt="a photo of a mug in a kitchen",  # another tenant has no concepts
        )
        ratios, seconds = [], []
        with setting.engine(slots=_SLOTS) as engine:
            engine.draw_one(small)  # pays for what is made once
            for _ in range(scale.runs):
                alone = engine.draw_one(small).seconds
                beside, large_pass = engine.run(_beside(engine, small, large))
                seconds.append((alone, beside, large_pass))
                ratios.append(beside / (2 * alone + large_pass))
        alone, beside, large_pass = (statistics.median(each) for each in zip(*seconds, strict=True))
        yield ResultRow(
            what=f"time of a small picture beside large ones {case}, against twice its time alone and one large pass",
            value=round(statistics.median(ratios), 3),
            reach=at_most(1),
            runs=tuple(round(ratio, 3) for ratio in ratios),
            note=f"{small_side} x {small_side} pixels in {scale.steps} steps beside {_SLOTS} of {large_side} x "
            f"{large_side}: medians {alone:.2f} s alone, {beside:.2f} s beside, {large_pass:.2f} s a large pass",
        )


async def _beside(engine: RunningEngine, small: GenerateRequest, large: GenerateRequest) -> tuple[float, float]:
    """Seconds of the small request, and of one pass of the large one."""
    passes = asyncio.Event()
    before = _passes(engine)

    def count() -> None:
        if _passes(engine)[0] >= before[0] + _LARGE_PASSES_BEFORE:
            passes.set()

    drawing = asyncio.create_task(engine.draw(large, count, tenant="large"))
    begun = asyncio.create_task(passes.wait())
    await asyncio.wait((drawing, begun), return_when=asyncio.FIRST_COMPLETED)
    if drawing.done():
        begun.cancel()
        drawing.result()  # raises what has kept it from being drawn
    number, seconds = (now - then for now, then in zip(_passes(engine), before, strict=True))
    drawn = await engine.draw(small)
    drawing.cancel()
    await asyncio.wait((drawing,))
    while engine.generator.engine.active_requests or engine.metric("slots_in_use"):
        await asyncio.sleep(0.01)
    return drawn.seconds, seconds / number


def _passes(engine: RunningEngine) -> tuple[float, float]:
    return engine.metric("unet_pass_seconds_count"), engine.metric("unet_pass_seconds_sum")
