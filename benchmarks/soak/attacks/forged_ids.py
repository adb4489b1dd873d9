"""Ids, names, tokens and tenants that are others' or nobody's."""

from typing import Any

from benchmarks.soak.attacks.attacker import Attacker
from benchmarks.soak.attacks.payloads import small_mask
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_protos.v1.generator_pb2 import ListBaseModelsRequest, PrefetchConceptRequest

_FORGED = ("", "' OR 1=1 --", "a\0", "../../concepts", "%", "x\n02:00:00 CRITICAL forged\x1b[2J", "j" * 100_000)
_TENANTS = ("Evil", "../a", "", "a" * 64, "a" * 6_000)


async def attack(attacker: Attacker) -> None:
    """Read, change and delete what is not its own, and ask for what cannot be."""
    await _things_of_others(attacker)
    await _nobodys_things(attacker)
    for name in _TENANTS:
        options: dict[str, Any] = {"timeout": 10, "metadata": (("detex-tenant", name),)}
        await attacker.call(attacker.tenant.generator.ListBaseModels(ListBaseModelsRequest(), **options))


async def _things_of_others(attacker: Attacker) -> None:
    trainer, known = attacker.tenant.trainer, attacker.knowledge
    for set_id in known.others_training_sets:
        replace = trainer_pb2.ReplaceMaskRequest(training_set_id=set_id, mask=small_mask())
        await attacker.ask(trainer.GetMask, trainer_pb2.GetMaskRequest(training_set_id=set_id))
        await attacker.ask(trainer.ReplaceMask, replace)
        await attacker.submit(set_id)
        await attacker.ask(trainer.DeleteTrainingSet, trainer_pb2.DeleteTrainingSetRequest(training_set_id=set_id))
    for job_id in known.others_jobs:
        await attacker.cancel(job_id)
        await attacker.read(trainer.WatchJob(trainer_pb2.WatchJobRequest(job_id=job_id), **attacker.tenant.options(10)))
    for name in known.others_concepts:
        for version in ("", *known.others_versions):
            reference = common_pb2.ConceptReference(name=name, version=version)
            await attacker.draw(prompt=f"[{name}]", concept_versions={name: version})
            prefetch = PrefetchConceptRequest(reference=reference, pin=True)
            await attacker.ask(attacker.tenant.generator.PrefetchConcept, prefetch)
            await attacker.ask(trainer.DeleteConcept, trainer_pb2.DeleteConceptRequest(reference=reference))


async def _nobodys_things(attacker: Attacker) -> None:
    trainer = attacker.tenant.trainer
    for text in _FORGED:
        reference = common_pb2.ConceptReference(name=text, version=text)
        await attacker.together(
            attacker.ask(trainer.GetJob, trainer_pb2.GetJobRequest(job_id=text)),
            attacker.cancel(text),
            attacker.ask(trainer.ListJobs, trainer_pb2.ListJobsRequest(page_token=text, concept_name=text)),
            attacker.ask(trainer.ListConcepts, trainer_pb2.ListConceptsRequest(page_token=text)),
            attacker.ask(trainer.GetMask, trainer_pb2.GetMaskRequest(training_set_id=text)),
            attacker.ask(trainer.GetUpload, trainer_pb2.GetUploadRequest(upload_id=text)),
            attacker.ask(trainer.DeleteConcept, trainer_pb2.DeleteConceptRequest(reference=reference)),
            attacker.draw(prompt=f"[{text}]", base_model=text),
        )
