"""Large pictures at low priority, each step of which takes long."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2

_SIDES = (512, 512, 768, 1024)


async def attack(attacker: Attacker) -> None:
    """Large squares and one as wide as may be."""
    low = generator_pb2.PRIORITY_LOW
    squares = [attacker.draw(width=side, height=side, count=2, steps=20, priority=low) for side in _SIDES]
    await attacker.together(*squares, attacker.draw(width=16_384, height=64, steps=20, priority=low))
