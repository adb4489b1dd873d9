"""Pictures that are not what they say, and ones that unpack to far more than they are."""

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import Attacker


async def attack(attacker: Attacker) -> None:
    """Each to both services, as photo and as mask."""
    for file in payloads.broken_pictures():
        await attacker.together(
            attacker.edit(file),
            attacker.edit(payloads.small_photo(), mask=file),
            attacker.upload([file]),
            attacker.upload([payloads.small_photo()], [file]),
        )
