"""Hundreds of watches of one job."""

from benchmarks.soak.attacks.attacker import PATIENCE_SECONDS, Attacker
from detex_protos.v1 import common_pb2, trainer_pb2

_WATCHES = 300


async def attack(attacker: Attacker) -> None:
    """Watch a job that waits or trains, until it is cancelled."""
    set_id = await attacker.upload_small()
    job_id = await attacker.submit(set_id, method=common_pb2.METHOD_TEXTUAL_INVERSION)
    request = trainer_pb2.WatchJobRequest(job_id=job_id)
    options = attacker.tenant.options(PATIENCE_SECONDS)
    await attacker.together(
        *(attacker.read(attacker.tenant.trainer.WatchJob(request, **options)) for _ in range(_WATCHES))
    )
