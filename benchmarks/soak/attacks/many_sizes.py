"""Pictures of ever other sizes, for whatever is kept for each."""

from benchmarks.soak.attacks.attacker import Attacker

_AT_ONCE = 8


async def attack(attacker: Attacker) -> None:
    """Pictures of one step in sizes by chance."""
    sides = [(attacker.random.randrange(2, 32) * 8, attacker.random.randrange(2, 32) * 8) for _ in range(_AT_ONCE)]
    await attacker.together(*(attacker.draw(width=width, height=height) for width, height in sides))
