"""Callers who read a message every few seconds, with previews of every step under way to them."""

from benchmarks.soak.attacks.attacker import PATIENCE_SECONDS, Attacker
from detex_protos.v1 import generator_pb2

_READERS, _PAUSE_SECONDS = 60, 2.0


async def attack(attacker: Attacker) -> None:
    """Sixty readers at once."""
    request = generator_pb2.GenerateRequest(
        prompt="a mug", count=4, steps=20, width=64, height=64, preview_interval_steps=1
    )
    generate, options = attacker.tenant.generator.Generate, attacker.tenant.options(PATIENCE_SECONDS)
    await attacker.together(*(attacker.read(generate(request, **options), _PAUSE_SECONDS) for _ in range(_READERS)))
