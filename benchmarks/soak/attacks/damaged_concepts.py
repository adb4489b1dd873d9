"""Concepts whose files in the store are not what their manifests say."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import common_pb2, generator_pb2

_AT_ONCE = 4


async def attack(attacker: Attacker) -> None:
    """Draw, prefetch and pin each of them, over and over."""
    attempts = []
    for name in attacker.knowledge.damaged_concepts:
        request = generator_pb2.PrefetchConceptRequest(reference=common_pb2.ConceptReference(name=name), pin=True)
        attempts += [attacker.draw(prompt=f"[{name}]") for _ in range(_AT_ONCE)]
        attempts += [attacker.ask(attacker.tenant.generator.PrefetchConcept, request) for _ in range(_AT_ONCE)]
    await attacker.together(*attempts)
