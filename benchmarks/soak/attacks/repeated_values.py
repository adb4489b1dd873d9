"""Messages of hundreds of thousands of repeated values."""

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import GENERATOR, TRAINER, Attacker


async def attack(attacker: Attacker) -> None:
    """One message of each sort at the same time."""
    await attacker.together(
        attacker.send_bytes(f"{GENERATOR}Generate", payloads.many_versions()),
        attacker.send_bytes(f"{GENERATOR}Generate", payloads.many_regions()),
        attacker.send_bytes(f"{TRAINER}ListJobs", payloads.many_states()),
        attacker.send_bytes(f"{TRAINER}SubmitJob", payloads.many_attributes()),
    )
