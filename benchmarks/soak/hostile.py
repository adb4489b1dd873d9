"""The hostile tenant as the benchmark sees it: what it is given before, and its process."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from benchmarks.soak.attacks.attacker import Knowledge
from benchmarks.soak.honest.caller import HonestCaller
from benchmarks.soak.hostile_process import Orders
from benchmarks.soak.services import Services
from detex_core.artifact import CONCEPT_FILE, ConceptArchive, ConceptDraft, publish_concept
from detex_core.artifact.layout import ConceptReference, file_key

TENANT = "hostile"
_CONCEPTS = 12
_START_SECONDS = 120
_END_SECONDS = 120


class HostileTenant:
    """Publishes what the hostile tenant owns, and starts its process.

    Args:
        services: What it attacks.
        honest: Tenants beside it; what they own it will know by its ids.
        kinds: Kinds of attacks.
        seed: Decides what is left to chance.
    """

    def __init__(self, services: Services, honest: Sequence[HonestCaller], kinds: Sequence[str], seed: int) -> None:
        self._services = services
        self._honest = honest
        self._kinds = tuple(kinds)
        self._seed = seed
        self._rounds = count()

    def prepare(self) -> Knowledge:
        """Give it concepts of its own, which are copies of an honest one's; some are damaged in the store."""
        round_number = next(self._rounds)
        names = [f"mine-{round_number}-{number}" for number in range(_CONCEPTS)]
        damaged = [f"damaged-{round_number}-{number}" for number in range(3)]
        for name in names:
            self._publish(name)
        self._damage(self._publish(damaged[0]), b"no tensors")
        self._damage(self._publish(damaged[1]), b"")
        self._replace_by_a_folder(self._publish(damaged[2]))
        ledgers = [caller.ledger for caller in self._honest]
        concepts = [kept.concept.reference for ledger in ledgers for kept in ledger.concepts.values()]
        return Knowledge(
            concepts=tuple(names),
            damaged_concepts=tuple(damaged),
            others_training_sets=tuple(
                kept.training_set.training_set_id for ledger in ledgers for kept in ledger.sets[:3]
            ),
            others_jobs=tuple(job_id for ledger in ledgers for job_id in list(ledger.jobs)[-2:]),
            others_concepts=tuple({reference.name for reference in concepts}),
            others_versions=tuple(reference.version for reference in concepts)[:2],
        )

    @asynccontextmanager
    async def attacking(self, seconds: float, report: dict[str, dict[str, int]]) -> AsyncIterator[None]:
        """Attacks from the beginning of an `async with` block on for so many seconds.

        Args:
            seconds: How long.
            report: Takes up how its calls ended, by kind and status, at the end of the block.

        Raises:
            RuntimeError: Its process has failed.
        """
        orders = Orders(
            tenant=TENANT,
            addresses=self._services.addresses,
            knowledge=await asyncio.to_thread(self.prepare),
            kinds=self._kinds,
            seconds=seconds,
            seed=self._seed,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.soak.hostile_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the process of the hostile tenant has no pipes")
            process.stdin.write(orders.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(_START_SECONDS):
                if await process.stdout.readline() != b"ready\n":
                    raise RuntimeError("the process of the hostile tenant did not start")
            process.stdin.write(b"go\n")
            await process.stdin.drain()
            yield
            async with asyncio.timeout(seconds + _END_SECONDS):
                told = await process.stdout.readline()
                await process.wait()
            if process.returncode:
                raise RuntimeError(f"the process of the hostile tenant ended with status {process.returncode}")
            for kind, ended in json.loads(told).items():
                counts = report.setdefault(kind, {})
                for status, number in ended.items():
                    counts[status] = counts.get(status, 0) + number
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _publish(self, name: str) -> ConceptReference:
        caller = self._honest[0]
        archive = ConceptArchive(self._services.store)
        stored = archive.resolve(caller.tenant.name, next(iter(caller.ledger.concepts)))
        facts = {field: getattr(stored.manifest, field) for field in ConceptDraft.model_fields}
        draft = ConceptDraft(**facts | {"tenant": TENANT, "name": name})
        files = {file_name: archive.read(stored, file_name) for file_name in stored.manifest.files}
        return ConceptReference(name, publish_concept(self._services.store, draft, files).manifest.version)

    def _damage(self, reference: ConceptReference, content: bytes) -> None:
        self._services.store.put(file_key(TENANT, reference, CONCEPT_FILE), content)

    def _replace_by_a_folder(self, reference: ConceptReference) -> None:
        """What no store of ours does, but a disk may: the object can neither be read nor is it absent."""
        if self._services.store_folder is None:
            self._damage(reference, b"other content")
            return
        path = self._services.store_folder / "objects" / file_key(TENANT, reference, CONCEPT_FILE)
        path.unlink()
        path.mkdir()
