"""One tenant asks for as many pictures as may wait, and each of them takes long."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2

_DEADLINE_SECONDS = 86_400.0
"""So far away that no request is refused for it."""


async def attack(attacker: Attacker) -> None:
    """Eight requests of 64 pictures of 500 steps, of low and high priority."""
    priorities = (generator_pb2.PRIORITY_LOW, generator_pb2.PRIORITY_HIGH) * 4
    await attacker.together(
        *(
            attacker.draw(count=64, steps=500, priority=priority, timeout_seconds=_DEADLINE_SECONDS)
            for priority in priorities
        )
    )
