"""A steady Poisson load of honest tenants, and how long each kind of call takes them."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import grpc.aio

from benchmarks.soak.honest.caller import HonestCaller
from benchmarks.soak.honest.wrong_answer import WrongAnswerError
from benchmarks.soak.tenant import told
from detex_protos.v1 import generator_pb2

TRAIN, SUBMIT = "train a concept", "submit a job"

CALLS_PER_SECOND = {
    "draw at high priority": 0.35,
    "draw at normal priority": 0.35,
    "draw at low priority": 0.35,
    "draw through a stream": 0.1,
    "prefetch a concept": 0.15,
    "upload photos": 0.2,
    "look at a mask": 0.3,
    "replace a mask": 0.2,
    "read a job": 0.3,
    "list concepts": 0.15,
    TRAIN: 0.03,
}
"""How often each tenant makes each kind of call, on average."""

_CALLS: dict[str, Callable[[HonestCaller], Awaitable[None]]] = {
    "draw at high priority": lambda caller: caller.draw(generator_pb2.PRIORITY_HIGH),
    "draw at normal priority": lambda caller: caller.draw(generator_pb2.PRIORITY_NORMAL),
    "draw at low priority": lambda caller: caller.draw(generator_pb2.PRIORITY_LOW),
    "draw through a stream": HonestCaller.draw_stream,
    "prefetch a concept": HonestCaller.prefetch,
    "upload photos": HonestCaller.upload,
    "look at a mask": HonestCaller.look_at_mask,
    "replace a mask": HonestCaller.replace_mask,
    "read a job": HonestCaller.read_job,
    "list concepts": HonestCaller.list_concepts,
}


@dataclass
class Experience:
    """What honest tenants lived through in one phase.

    Attributes:
        seconds: How long calls that ended well took from when they were due, by kind.
        failures: How the others ended, in words.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)


async def run_load(callers: Sequence[HonestCaller], seconds: float, seed: int) -> Experience:
    """All callers' calls of so many seconds; returns when the last has ended.

    Calls are begun when they are due, whatever became of those before them.

    Args:
        callers: The tenants.
        seconds: How long calls are begun.
        seed: Decides what is called when; the same seed gives the same arrivals.
    """
    experience = Experience()
    begin = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, caller in enumerate(callers):
            tasks.create_task(_arrivals(caller, experience, begin, seconds, random.Random(f"{seed} {number}"), tasks))
    return experience


async def _arrivals(
    caller: HonestCaller,
    experience: Experience,
    begin: float,
    seconds: float,
    rng: random.Random,
    tasks: asyncio.TaskGroup,
) -> None:
    kinds, weights = list(CALLS_PER_SECOND), list(CALLS_PER_SECOND.values())
    due = begin
    while (due := due + rng.expovariate(sum(weights))) < begin + seconds:
        (kind,) = rng.choices(kinds, weights)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.create_task(_timed(caller, kind, due, experience))


async def _timed(caller: HonestCaller, kind: str, due: float, experience: Experience) -> None:
    try:
        if kind == TRAIN:
            job_id = await caller.submit()
            experience.seconds[SUBMIT].append(time.monotonic() - due)
            await caller.watch(job_id)
        else:
            await _CALLS[kind](caller)
    except grpc.aio.AioRpcError as error:
        experience.failures.append(f"{kind}: {told(error)}")
    except WrongAnswerError as error:
        experience.failures.append(f"{kind}: {error}")
    else:
        experience.seconds[kind].append(time.monotonic() - due)
