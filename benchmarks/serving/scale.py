"""How large a run of the serving benchmark is."""

from dataclasses import dataclass

GUIDANCE_SCALE = 6.0
NEGATIVE_PROMPT = "blurry"


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurements.

    Attributes:
        steps: Denoising steps of a request.
        slots: Images that the engine denoises at the same time.
        batch: Most images of one call of the peer.
        concepts: Concepts of the measurement of mixtures.
        requests: Requests of one run of a throughput.
        peer_requests: Requests of one run of the peer's throughput.
        runs: Runs of each throughput.
        working_sets: Concepts of the points on the curve over working sets; the cache holds a quarter of the last.
        warm_up_accesses: Accesses that bring the concept cache to its usual state before a point is measured.
        curve_requests: Requests of one run of a point on that curve.
        load_requests: Requests of one run under a Poisson load.
        load_runs: Runs under a Poisson load.
        joins: Requests that arrive in a busy engine.
        cold_concepts: Concepts whose first request is timed, per store.
        company: Requests that are drawn alone and in company.
        lone: Images that are drawn on an idle machine, one after the other.
        memory_requests: Requests over which memory must be flat.
    """

    steps: int = 25
    slots: int = 16
    batch: int = 16
    concepts: int = 64
    requests: int = 64
    peer_requests: int = 8
    runs: int = 3
    working_sets: tuple[int, ...] = (1, 10, 100, 1000)
    warm_up_accesses: int = 3000
    curve_requests: int = 32
    load_requests: int = 100
    load_runs: int = 3
    joins: int = 30
    cold_concepts: int = 20
    company: int = 8
    lone: int = 15
    memory_requests: int = 2000

    @property
    def cached_concepts(self) -> int:
        """Concepts that the cache of the measurement of working sets holds."""
        return max(1, max(self.working_sets) // 4)


FULL = Scale()
QUICK = Scale(
    steps=4,
    slots=4,
    batch=4,
    concepts=6,
    requests=6,
    peer_requests=2,
    runs=1,
    working_sets=(1, 4, 8),
    warm_up_accesses=20,
    curve_requests=4,
    load_requests=6,
    load_runs=1,
    joins=3,
    cold_concepts=2,
    company=3,
    lone=2,
    memory_requests=40,
)
