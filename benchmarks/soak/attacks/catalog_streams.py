"""A catalog over one stream: 40 requests of 64 pictures."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2


async def attack(attacker: Attacker) -> None:
    """Ask for 2,560 pictures in one stream."""
    request = generator_pb2.GenerateRequest(prompt="a mug", steps=2, width=64, height=64, count=64)
    await attacker.draw_many(generator_pb2.GenerateManyRequest(key=str(key), request=request) for key in range(40))
