"""Deadlines that pass before anything is done."""

import asyncio

from benchmarks.soak.attacks.attacker import Attacker
from benchmarks.soak.attacks.payloads import small_photo
from detex_protos.v1 import generator_pb2

_AT_ONCE, _DEADLINE_SECONDS = 16, 0.2


async def attack(attacker: Attacker) -> None:
    """Pictures and edits of photos that nobody waits for."""
    edit = generator_pb2.Edit(kind=generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE, image=small_photo())
    high = generator_pb2.PRIORITY_HIGH
    await attacker.together(
        *(attacker.draw(count=8, steps=50, priority=high, timeout_seconds=_DEADLINE_SECONDS) for _ in range(_AT_ONCE)),
        *(attacker.draw(count=8, edit=edit, timeout_seconds=_DEADLINE_SECONDS) for _ in range(_AT_ONCE)),
        asyncio.sleep(_DEADLINE_SECONDS),
    )
