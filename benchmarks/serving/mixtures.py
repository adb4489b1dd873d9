"""Throughput over many concepts against one, and over working sets larger than the cache."""

import time
from collections.abc import Iterator

from benchmarks.results_file import ResultRow, at_least, median_row
from benchmarks.serving.running_engine import RunningEngine
from benchmarks.serving.setting import Setting, ratios
from benchmarks.serving.synthetic_concepts import concept_name


def mixture_rows(setting: Setting) -> Iterator[ResultRow]:
    """64 requests over 64 concepts against 64 over one; engine and peer in turns."""
    scale = setting.scale
    many: list[float] = []
    one: list[float] = []
    peer_many: list[float] = []
    peer_one: list[float] = []
    cpu: list[float] = []
    peer_cpu: list[float] = []
    with setting.engine() as engine:
        setting.warm_up(engine)
        _load(setting, engine, scale.concepts)
        for run in range(scale.runs):
            # Which comes first changes, so that no side gains by what the other leaves behind.
            points = ((scale.concepts, many, peer_many), (1, one, peer_one))
            for concepts, own, peer in points if run % 2 else reversed(points):
                begin = time.process_time()
                own.append(setting.images_per_second(engine, setting.asks.uniform(concepts, scale.requests)))
                middle = time.process_time()
                asks = setting.asks.uniform(concepts, scale.peer_requests)
                peer.append(len(asks) / setting.peer.draw_all(asks))
                if concepts > 1:
                    cpu.append((middle - begin) / scale.requests)
                    peer_cpu.append((time.process_time() - middle) / len(asks))
            setting.report(f"mixture, run {run}: {many[-1]:.2f} over many, {one[-1]:.2f} over one concept, images/s")
    note = (
        f"{scale.requests} requests at once, {scale.steps} steps with guidance, {scale.slots} slots, other prompts each"
    )
    yield median_row(
        f"{scale.requests} requests over {scale.concepts} concepts, against as many over 1",
        ratios(many, one),
        reach=at_least(0.97),
        peer_runs=ratios(peer_many, peer_one),
        note=f"{note}; peer: {scale.peer_requests} requests",
    )
    yield median_row(f"throughput over {scale.concepts} concepts", many, "images/s", peer_runs=peer_many, note=note)
    yield median_row("throughput over 1 concept", one, "images/s", peer_runs=peer_one, note=note)
    yield median_row(
        f"CPU time per image over {scale.concepts} concepts",
        cpu,
        "s",
        peer_runs=peer_cpu,
        note="of all threads of the process; hardly depends on what else the machine does",
    )


def working_set_rows(setting: Setting) -> Iterator[ResultRow]:
    """Zipf arrivals over more and more concepts, with a cache that holds a quarter of the most."""
    scale = setting.scale
    capacity_bytes = scale.cached_concepts * setting.concept_bytes
    speeds: dict[int, list[float]] = {concepts: [] for concepts in scale.working_sets}
    hit_rates: dict[int, float] = {}
    with setting.engine(concept_cache_bytes=capacity_bytes) as engine:
        setting.warm_up(engine)
        for run in range(scale.runs):
            for concepts in scale.working_sets if run % 2 else reversed(scale.working_sets):
                _load_by_zipf(setting, engine, concepts)
                hits, misses = _lookups(engine)
                asks = setting.asks.zipf(concepts, scale.curve_requests)
                speeds[concepts].append(setting.images_per_second(engine, asks))
                hits, misses = _lookups(engine)[0] - hits, _lookups(engine)[1] - misses
                hit_rates[concepts] = hits / max(1.0, hits + misses)
            line = ", ".join(f"{concepts}: {runs[-1]:.2f}" for concepts, runs in speeds.items())
            setting.report(f"working sets, run {run}: {line} images/s")
    single = speeds[scale.working_sets[0]]
    for concepts in scale.working_sets[1:]:
        last = concepts == scale.working_sets[-1]
        yield median_row(
            f"{concepts:,} concepts by Zipf's law, against 1 concept",
            ratios(speeds[concepts], single),
            reach=at_least(0.93) if last else None,
            note=f"the cache holds {scale.cached_concepts} concepts; hit rate of the last run "
            f"{hit_rates[concepts]:.2f}; {scale.curve_requests} requests of {scale.steps} steps at once",
        )


def _load(setting: Setting, engine: RunningEngine, concepts: int) -> None:
    base_model = engine.generator.base_models.get().model
    for index in range(concepts):
        engine.generator.concepts.prefetch("default", concept_name(index), "", base_model)


def _load_by_zipf(setting: Setting, engine: RunningEngine, concepts: int) -> None:
    """Use concepts as requests would, so that the cache holds what it would hold after many of them."""
    base_model = engine.generator.base_models.get().model
    for index in setting.asks.zipf_indices(concepts, setting.scale.warm_up_accesses):
        engine.generator.concepts.prefetch("default", concept_name(index), "", base_model)


def _lookups(engine: RunningEngine) -> tuple[float, float]:
    return (
        engine.metric("concept_cache_hits_total", level="host"),
        engine.metric("concept_cache_misses_total", level="host"),
    )
