"""Two honest tenants with and without a hostile one beside them, in phases that take turns."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.attacks import ATTACKS
from benchmarks.soak.honest.caller import HonestCaller
from benchmarks.soak.honest.load import Experience, run_load
from benchmarks.soak.honest.verification import Verification, verify
from benchmarks.soak.hostile import HostileTenant
from benchmarks.soak.services import DatabaseKind, Services, StoreKind, running_services
from benchmarks.soak.tenant import Tenant
from benchmarks.soak.watch import Observation, observed
from detex_protos.v1 import generator_pb2

HONEST = ("honest-one", "honest-two")
_LARGEST_SIDE = 64
_SETTLE_SECONDS = 3.0


@dataclass
class Phase:
    """One phase.

    Attributes:
        experience: What the honest tenants lived through.
        observation: What was seen of the services.
    """

    experience: Experience
    observation: Observation


@dataclass
class Findings:
    """All that was measured.

    Attributes:
        without: Phases without the hostile tenant, in their order.
        beside: Phases beside it.
        attacks: How the hostile tenant's calls ended, by kind and status.
        verifications: What was found at the end, by honest tenant.
        ended_services: Services that had ended before they were told to.
        images: Pictures that honest tenants received.
        seconds: How long all took.
    """

    without: list[Phase] = field(default_factory=list)
    beside: list[Phase] = field(default_factory=list)
    attacks: dict[str, dict[str, int]] = field(default_factory=dict)
    verifications: dict[str, Verification] = field(default_factory=dict)
    ended_services: list[str] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0


def measure(
    folder: Path,
    *,
    seconds: float,
    kinds: Sequence[str] = tuple(ATTACKS),
    repeats: int = 2,
    seed: int = 0,
    base_model: str = "embedded",
    store: StoreKind = "folder",
    database: DatabaseKind = "sqlite",
) -> Findings:
    """Measure.

    Args:
        folder: For all that the services write; must be there.
        seconds: How long calls are begun in each phase.
        kinds: Kinds of attacks.
        repeats: How often a phase without and a phase beside the hostile tenant follow each other.
        seed: Decides what is left to chance.
        base_model: `embedded`, or the absolute path of a folder in diffusers' format.
        store: Where objects lie.
        database: Where jobs lie.
    """
    begin = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {line}", file=sys.stderr, flush=True)

    with running_services(folder, base_model=base_model, store=store, database=database) as services:
        report("both services serve")
        findings = asyncio.run(_measure(services, seconds, kinds, repeats, seed, report))
    findings.seconds = time.monotonic() - begin
    return findings


async def _measure(
    services: Services,
    seconds: float,
    kinds: Sequence[str],
    repeats: int,
    seed: int,
    report: Callable[[str], None],
) -> Findings:
    findings = Findings()
    side = min(_LARGEST_SIDE, await _base_model_side(services))
    callers = [
        HonestCaller(name, services.addresses, side=side, seed=seed + number) for number, name in enumerate(HONEST)
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            for caller in callers:
                tasks.create_task(caller.set_up())
        report("each honest tenant has a concept")
        hostile = HostileTenant(services, callers, kinds, seed)
        for number in range(repeats):
            arrivals = seed + number
            findings.without.append(await _phase(services, callers, seconds, arrivals))
            report(f"phase {number + 1} without the hostile tenant")
            async with hostile.attacking(seconds, findings.attacks):
                findings.beside.append(await _phase(services, callers, seconds, arrivals))
            report(f"phase {number + 1} beside the hostile tenant")
            await asyncio.sleep(_SETTLE_SECONDS)
            findings.ended_services += [each.name for each in services.both() if each.process.poll() is not None]
            if findings.ended_services:
                break
        for caller in callers:
            findings.verifications[caller.tenant.name] = await verify(caller, services.store)
            findings.images += caller.ledger.images
        report("all that was acknowledged has been looked for")
    finally:
        for caller in callers:
            await caller.close()
    return findings


async def _phase(services: Services, callers: Sequence[HonestCaller], seconds: float, seed: int) -> Phase:
    async with observed(services) as observation:
        experience = await run_load(callers, seconds, seed)
    return Phase(experience, observation)


async def _base_model_side(services: Services) -> int:
    tenant = Tenant(HONEST[0], services.addresses)
    try:
        request = generator_pb2.ListBaseModelsRequest()
        answer = await tenant.generator.ListBaseModels(request, **tenant.options())
    finally:
        await tenant.close()
    return min(int(answer.base_models[0].width), int(answer.base_models[0].height))
