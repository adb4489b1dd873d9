"""Jobs as long and as many as are accepted, before all others."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import common_pb2, trainer_pb2

_JOBS = 120


async def attack(attacker: Attacker) -> None:
    """Fill the queue with the longest jobs, at the highest priority, and cancel half of them."""
    set_id = await attacker.upload_small()
    jobs = []
    for _ in range(_JOBS if set_id else 0):
        job_id = await attacker.submit(
            set_id,
            priority=100,
            method=common_pb2.METHOD_TEXTUAL_INVERSION,
            hyperparameters=trainer_pb2.Hyperparameters(steps=20_000, batch_size=8),
        )
        jobs.append(job_id)
    for job_id in filter(None, jobs[::2]):
        await attacker.cancel(job_id)
