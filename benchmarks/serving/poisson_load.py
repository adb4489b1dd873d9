"""The engine and the peer under the same Poisson load, at 70 % of what the engine can do."""

from collections.abc import Callable, Iterator
from itertools import islice

from benchmarks.results_file import ResultRow, at_least, at_most, median_row
from benchmarks.serving.arrivals import Ask
from benchmarks.serving.running_engine import message_of
from benchmarks.serving.setting import Setting, median, percentile, ratios

_SHARE_OF_CAPACITY = 0.7


def poisson_rows(setting: Setting) -> Iterator[ResultRow]:
    """Two mixtures: all concepts alike, and Zipf's law over the most."""
    scale = setting.scale
    yield from _rows(setting, f"{scale.concepts} concepts alike", lambda n: setting.asks.uniform(scale.concepts, n))
    most = max(scale.working_sets)
    yield from _rows(setting, f"{most:,} concepts by Zipf's law", lambda n: setting.asks.zipf(most, n))


def _rows(setting: Setting, mixture: str, asks_of: Callable[[int], list[Ask]]) -> Iterator[ResultRow]:
    scale = setting.scale
    speeds: list[float] = []
    peer_speeds: list[float] = []
    tails: list[float] = []
    peer_tails: list[float] = []
    with setting.engine() as engine:
        setting.warm_up(engine)
        capacity = median([setting.images_per_second(engine, asks_of(scale.requests)) for _ in range(scale.runs)])
        per_second = _SHARE_OF_CAPACITY * capacity
        for run in range(scale.load_runs):
            arrivals = list(islice(setting.asks.poisson_seconds(per_second), scale.load_requests))
            asks = setting.asks.shuffled(asks_of(len(arrivals)))
            messages = [message_of(ask, scale.steps) for ask in asks]
            own = engine.draw_at(messages, arrivals)
            peer = setting.peer.draw_at(asks, arrivals)
            for done, in_second, p95 in ((own, speeds, tails), (peer, peer_speeds, peer_tails)):
                in_second.append(len(done) / max(done))
                p95.append(percentile([end - begin for end, begin in zip(done, arrivals, strict=True)], 0.95))
            setting.report(f"Poisson, {mixture}, run {run}: {speeds[-1]:.2f} and {peer_speeds[-1]:.2f} images/s")
    note = (
        f"{scale.load_requests} requests arrive at {per_second:.2f} per second, {_SHARE_OF_CAPACITY:.0%} of the "
        f"engine's {capacity:.2f} images/s; {scale.steps} guided steps; a peer that cannot keep up has a growing queue"
    )
    ratio = ratios(speeds, peer_speeds)
    yield median_row(f"images/s under Poisson load against the peer's, {mixture}", ratio, reach=at_least(3), note=note)
    yield median_row(f"images/s under Poisson load, {mixture}", speeds, "images/s", peer_runs=peer_speeds, note=note)
    yield median_row(
        f"p95 latency under Poisson load against the peer's, {mixture}",
        ratios(tails, peer_tails),
        reach=at_most(1 / 3),
        note=note,
    )
    yield median_row(f"p95 latency under Poisson load, {mixture}", tails, "s", peer_runs=peer_tails, note=note)
