"""Streams of thousands of requests, read slowly or not at all."""

from collections.abc import Iterator

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2

_REQUESTS = 5_000


async def attack(attacker: Attacker) -> None:
    """Four streams at once, two of which are read a message a second."""
    await attacker.together(*(attacker.draw_many(_requests(), pause) for pause in (0, 0, 1, 1)))


def _requests() -> Iterator[generator_pb2.GenerateManyRequest]:
    for number in range(_REQUESTS):
        request = generator_pb2.GenerateRequest(
            prompt=f"a mug {number}", steps=20, width=64, height=64, preview_interval_steps=1
        )
        yield generator_pb2.GenerateManyRequest(key=str(number), request=request)
