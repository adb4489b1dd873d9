"""Masks replaced, jobs submitted and sets deleted at the same time."""

from benchmarks.soak.attacks.attacker import Attacker
from benchmarks.soak.attacks.payloads import small_mask
from detex_protos.v1 import common_pb2, trainer_pb2

_PHOTOS, _ROUNDS = 4, 2


async def attack(attacker: Attacker) -> None:
    """On one set: masks of all its photos, a job, and its deletion."""
    trainer = attacker.tenant.trainer
    set_id = await attacker.upload_small(_PHOTOS)
    replacements = [
        trainer_pb2.ReplaceMaskRequest(training_set_id=set_id, photo_index=index, mask=small_mask(level))
        for index in range(_PHOTOS)
        for level in (128, 255)[:_ROUNDS]
    ]
    delete = trainer_pb2.DeleteTrainingSetRequest(training_set_id=set_id)
    await attacker.together(
        *(attacker.ask(trainer.ReplaceMask, request) for request in replacements),
        attacker.submit(set_id, method=common_pb2.METHOD_TEXTUAL_INVERSION),
        attacker.ask(trainer.DeleteTrainingSet, delete),
    )
