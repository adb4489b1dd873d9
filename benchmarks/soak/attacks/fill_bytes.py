"""Megabytes of what picture formats allow between what they need."""

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import Attacker


async def attack(attacker: Attacker) -> None:
    """Fill bytes and empty segments and chunks, to both services."""
    files = (payloads.fill_bytes(), payloads.empty_segments(), payloads.empty_chunks())
    await attacker.together(
        *(attacker.edit(file) for file in files),
        *(attacker.upload([file]) for file in files),
        attacker.edit(payloads.small_photo(), mask=payloads.empty_chunks()),
    )
