"""Concepts that are not there, each of another name."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import common_pb2, generator_pb2

_AT_ONCE = 16


async def attack(attacker: Attacker) -> None:
    """Draw and prefetch names and versions that nobody has."""
    names = [f"nobody-{attacker.random.randrange(10**9)}" for _ in range(_AT_ONCE)]
    version = "20200101T000000Z-00000000"
    await attacker.together(
        *(attacker.draw(prompt=f"[{name}]") for name in names),
        *(attacker.draw(prompt=f"[{name}]", concept_versions={name: version}) for name in names),
        *(
            attacker.ask(
                attacker.tenant.generator.PrefetchConcept,
                generator_pb2.PrefetchConceptRequest(reference=common_pb2.ConceptReference(name=name)),
            )
            for name in names
        ),
    )
