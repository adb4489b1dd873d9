"""The process of the hostile tenant: `python -m benchmarks.soak.hostile_process`, started by `benchmarks.soak.hostile`.

One JSON line on standard input says what to do; it answers `ready`, begins at the line `go`, and ends with one JSON
line: how its calls ended, by kind of attack.
"""

import asyncio
import json
import logging
import os
import random
import resource
import sys
import time
from collections import Counter
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from benchmarks.soak.attacks import ATTACKS
from benchmarks.soak.attacks.attacker import Attacker, Knowledge
from benchmarks.soak.attacks.payloads import prepare
from benchmarks.soak.tenant import Addresses, Tenant
from detex_protos.v1 import trainer_pb2

_NICENESS = 10
_CLEAN_SECONDS = 60
_PAUSE_SECONDS = 0.05
"""Between two rounds of an attack, so that one that is refused at once does not measure the speed of its client."""


class Orders(BaseModel):
    """What the hostile tenant is to do.

    Attributes:
        tenant: Its name.
        addresses: Where the services listen.
        knowledge: What it has and knows.
        kinds: Kinds of attacks, in their order.
        seconds: How long, in all: half of it one kind after another, half of it all at once; one kind has all of it.
        seed: Decides what is left to chance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str
    addresses: Addresses
    knowledge: Knowledge
    kinds: tuple[str, ...]
    seconds: float
    seed: int


async def attack(orders: Orders) -> dict[str, dict[str, int]]:
    """Follow the orders; returns how calls ended, by kind."""
    attackers = {
        kind: Attacker(
            Tenant(orders.tenant, orders.addresses),
            orders.addresses,
            orders.knowledge,
            random.Random(f"{orders.seed} {kind}"),
        )
        for kind in orders.kinds
    }
    try:
        begin = time.monotonic()
        if len(orders.kinds) > 1:
            turn = orders.seconds / 2 / len(orders.kinds)
            for number, kind in enumerate(orders.kinds, start=1):
                await _repeat(kind, attackers[kind], begin + number * turn)
        async with asyncio.TaskGroup() as tasks:
            for kind, attacker in attackers.items():
                tasks.create_task(_repeat(kind, attacker, begin + orders.seconds))
        await _cancel_jobs(next(iter(attackers.values())))
    finally:
        for attacker in attackers.values():
            await attacker.tenant.close()
    return {kind: dict(attacker.ended) for kind, attacker in attackers.items()}


async def _repeat(kind: str, attacker: Attacker, until: float) -> None:
    try:
        async with asyncio.timeout(until - time.monotonic()):
            while True:
                await ATTACKS[kind](attacker)
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError:
        return


async def _cancel_jobs(attacker: Attacker) -> None:
    """End what still waits or trains: the next phase is to be without it."""
    states = [trainer_pb2.JOB_STATE_QUEUED, trainer_pb2.JOB_STATE_RUNNING]
    request = trainer_pb2.ListJobsRequest(states=states, page_size=1000)
    cleaner = Attacker(attacker.tenant, attacker.addresses, attacker.knowledge, attacker.random, Counter())
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLEAN_SECONDS):
            if answer := await cleaner.ask(attacker.tenant.trainer.ListJobs, request):
                for job in answer.jobs:
                    await cleaner.cancel(job.job_id)


def _open_many_files() -> None:
    """As many connections as the system allows at all, rather than the usual thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Read orders, make ready, attack, report."""
    _open_many_files()
    os.nice(_NICENESS)  # what is measured is the work that it makes for the services, not its own
    orders = Orders.model_validate_json(sys.stdin.readline())
    prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    # gRPC leaves tasks of calls that were given up to the garbage collector, of which asyncio speaks each time.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print(json.dumps(asyncio.run(attack(orders))), flush=True)


if __name__ == "__main__":
    main()
