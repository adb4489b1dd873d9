"""At the end: whether all that was promised is there, by its content."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import grpc.aio

from benchmarks.soak.honest import pictures
from benchmarks.soak.honest.caller import HonestCaller
from benchmarks.soak.honest.ledger import KeptConcept, KeptSet
from benchmarks.soak.honest.wrong_answer import WrongAnswerError
from benchmarks.soak.tenant import told
from detex_core.artifact import ConceptArchive
from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_protos.v1 import trainer_pb2
from detex_trainer.intake.archive import TrainingSetArchive

# A picture may come out by a rounding otherwise in the company of others; another concept gives another picture.
_MOST_MEAN_DIFFERENCE = 2.0


@dataclass
class Verification:
    """What was looked for, and what was not found as it should be.

    Attributes:
        looked_at: How many of each sort.
        lost: What is missing or is something else, by sort, in words.
    """

    looked_at: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)


async def verify(caller: HonestCaller, store: ObjectStore) -> Verification:
    """Look for all that one tenant was promised, through the services and in their object store."""
    found = Verification()
    ledger = caller.ledger

    name = caller.tenant.name

    async def check(sort: str, what: str, look: Awaitable[None]) -> None:
        found.looked_at[sort] = found.looked_at.get(sort, 0) + 1
        try:
            await look
        except grpc.aio.AioRpcError as error:
            found.lost.setdefault(sort, []).append(f"{name} {what}: {told(error)}")
        except (WrongAnswerError, DetexError) as error:
            found.lost.setdefault(sort, []).append(f"{name} {what}: {error}")

    for kept in ledger.sets:
        set_id = kept.training_set.training_set_id
        await check("training sets", set_id, _check_set(caller, kept))
        await check("photos", set_id, _check_photos(caller, kept, store))
        for index in range(len(kept.masks)):
            await check("masks", set_id, caller.check_mask(kept, index))
    for job_id, concept in ledger.jobs.items():
        await check("jobs", job_id, _check_job(caller, job_id, concept))
    await check("lists of jobs", "", _check_list(caller))
    for concept, kept_concept in ledger.concepts.items():
        await check("concepts", concept, _check_concept(caller, concept, kept_concept, store))
    return found


async def _check_set(caller: HonestCaller, kept: KeptSet) -> None:
    request = trainer_pb2.GetTrainingSetRequest(training_set_id=kept.training_set.training_set_id)
    answer = await caller.tenant.trainer.GetTrainingSet(request, **caller.tenant.options())
    if answer.training_set != kept.training_set and not any(mask.perhaps for mask in kept.masks):
        raise WrongAnswerError("it is not as it was acknowledged")


async def _check_photos(caller: HonestCaller, kept: KeptSet, store: ObjectStore) -> None:
    archive = TrainingSetArchive(store)
    stored = await asyncio.to_thread(archive.load, caller.tenant.name, kept.training_set.training_set_id)
    for index, (photo, sent) in enumerate(zip(stored.photos, kept.photos, strict=True)):
        if photo.picture.tobytes() != sent:
            raise WrongAnswerError(f"photo {index} is not the one that was sent")


async def _check_job(caller: HonestCaller, job_id: str, concept: str) -> None:
    """A job whose watch failed may go on: it counts where it ends well after all."""
    job = await caller.ended(job_id)
    if concept not in caller.ledger.concepts:
        await caller.keep_concept(job)
    elif job.concept != caller.ledger.concepts[concept].concept.reference:
        raise WrongAnswerError(f"it says to have published {job.concept}")


async def _check_list(caller: HonestCaller) -> None:
    """Every job once, and no other."""
    listed: list[str] = []
    token = ""
    while True:
        request = trainer_pb2.ListJobsRequest(page_size=100, page_token=token)
        answer = await caller.tenant.trainer.ListJobs(request, **caller.tenant.options())
        listed += [job.job_id for job in answer.jobs]
        token = answer.next_page_token
        if not token:
            break
    if missing := set(caller.ledger.jobs) - set(listed):
        raise WrongAnswerError(f"missing are {sorted(missing)}")
    if len(set(listed)) != len(listed):
        raise WrongAnswerError("a job is listed twice")


async def _check_concept(caller: HonestCaller, name: str, kept: KeptConcept, store: ObjectStore) -> None:
    request = trainer_pb2.GetConceptRequest(reference=kept.concept.reference)
    answer = await caller.tenant.trainer.GetConcept(request, **caller.tenant.options())
    if answer.concept != kept.concept:
        raise WrongAnswerError("it is not as it was told")
    archive = ConceptArchive(store)

    def read() -> None:
        stored = archive.resolve(caller.tenant.name, name, kept.concept.reference.version)
        for file_name in stored.manifest.files:
            archive.read(stored, file_name)  # compares the hash

    await asyncio.to_thread(read)
    if pictures.mean_difference(kept.picture, await caller.picture(name)) > _MOST_MEAN_DIFFERENCE:
        raise WrongAnswerError("it is drawn as something else")
