"""Its own things deleted while they are in use."""

from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import common_pb2, generator_pb2, trainer_pb2

_DRAWINGS = 6


async def attack(attacker: Attacker) -> None:
    """A concept while it is pinned and drawn, and a set while its job waits or trains."""
    trainer, generator = attacker.tenant.trainer, attacker.tenant.generator
    name = attacker.random.choice(attacker.knowledge.concepts)
    reference = common_pb2.ConceptReference(name=name)
    pin = generator_pb2.PrefetchConceptRequest(reference=reference, pin=True)
    await attacker.ask(generator.PrefetchConcept, pin)
    await attacker.together(
        *(attacker.draw(prompt=f"[{name}]", steps=20) for _ in range(_DRAWINGS)),
        attacker.ask(trainer.DeleteConcept, trainer_pb2.DeleteConceptRequest(reference=reference)),
        attacker.draw(prompt=f"[{name}]"),
    )
    set_id = await attacker.upload_small()
    job_id = await attacker.submit(set_id, method=common_pb2.METHOD_TEXTUAL_INVERSION)
    delete = trainer_pb2.DeleteTrainingSetRequest(training_set_id=set_id)
    await attacker.together(
        attacker.ask(trainer.DeleteTrainingSet, delete),
        attacker.cancel(job_id),
        attacker.ask(trainer.DeleteTrainingSet, delete),
    )
