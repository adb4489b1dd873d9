"""One tenant asks for as many pictures as may wait, and each of them takes long."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2


async def attack(attacker: Attacker) -> None:
    """Eight requests of 64 pictures of 500 steps, at all priorities."""
    priorities = (generator_pb2.PRIORITY_LOW, generator_pb2.PRIORITY_HIGH) * 4
    await attacker.together(*(attacker.draw(count=64, steps=500, priority=priority) for priority in priorities))
