"""Kills whatever runs while three trainers share many small jobs, and counts what went wrong with them.

Run: python -m benchmarks.soak kills [--kills N] [--seed S] [--out FILE.json]

The trainers are real processes on one PostgreSQL and one S3 server, which run beside them; workers train several jobs
at a time and follow a script in place of training, so that kills meet them at every point of a job's life within
minutes. A kill hits a worker (SIGKILL), a trainer (SIGKILL, and a new one starts), all connections to the database, or
the object store, which stands still for a while. Training itself is resumed in tests/trainer/test_packed_training.py.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path

from benchmarks.results_file import ResultRow, at_least, at_most
from detex_core.object_store import open_object_store
from detex_core.settings import ObjectStoreSettings
from detex_protos.v1 import trainer_pb2
from tests.servers.postgresql import running_postgres
from tests.servers.seaweedfs import start_seaweedfs
from tests.trainer.chaos import Chaos

KILLS = 200
_JOBS_PER_KILL = 2
_END_SECONDS = 1_200
SETTINGS: dict[str, object] = {
    "worker_count": 1,
    "max_pack_size": 4,
    "max_attempts": 10,
    "max_outages": 1_000,
    "lease_seconds": 2,
}
_WHAT = {
    "lost": "jobs lost",
    "published_twice": "concepts published twice",
    "half_artifacts": "half artifacts visible",
    "orphans": "orphan processes",
    "failures_without_cause": "failures without a cause",
}


def measure(folder: Path, *, kills: int = KILLS, seed: int = 0) -> list[ResultRow]:
    """Kill so often, and count what went wrong.

    Args:
        folder: For all files; must be empty.
        kills: Kills that hit something.
        seed: Decides who is killed when.
    """
    began = time.monotonic()
    with _chaos(folder, seed) as chaos:
        number = 0
        while sum(chaos.kills.values()) < kills:
            for _ in range(_JOBS_PER_KILL):
                chaos.submit(f"lingers-{number}")
                number += 1
            chaos.kill()
            if number % 50 == 0:
                print(f"{time.monotonic() - began:7.1f} s  {dict(chaos.kills)}", file=sys.stderr, flush=True)
        jobs = chaos.wait_until_all_have_ended(_END_SECONDS)
        findings = chaos.findings(jobs)
        packed = chaos.packed_jobs()
    states = Counter(trainer_pb2.JobState.Name(job.state) for job in jobs)
    return [
        ResultRow(what="kills in all", value=sum(chaos.kills.values()), reach=at_least(kills)),
        *(ResultRow(what=f"kills of {kind}", value=count) for kind, count in sorted(chaos.kills.items())),
        ResultRow(what="jobs", value=number),
        ResultRow(what="jobs that succeeded", value=states["JOB_STATE_SUCCEEDED"]),
        ResultRow(what="jobs that failed", value=states["JOB_STATE_FAILED"]),
        ResultRow(what="jobs trained beside others", value=packed, reach=at_least(1)),
        ResultRow(what="attempts of jobs in all", value=sum(job.attempts for job in jobs)),
        *(
            ResultRow(what=_WHAT[each.name], value=getattr(findings, each.name), reach=at_most(0))
            for each in fields(findings)
        ),
        ResultRow(what="time of all", value=time.monotonic() - began, unit="s"),
    ]


@contextmanager
def _chaos(folder: Path, seed: int) -> Iterator[Chaos]:
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        seaweed = start_seaweedfs(folder / "seaweedfs")
        stack.callback(seaweed.kill)
        secrets = {
            "PGPASSWORD": postgres.password,
            "DETEX_S3_ACCESS_KEY": seaweed.access_key,
            "DETEX_S3_SECRET_KEY": seaweed.secret_key,
        }
        before = {name: os.environ.get(name) for name in secrets}
        os.environ.update(secrets)  # for the trainers, as they would find them anywhere else
        stack.callback(_restore, before)
        url = seaweed.url("chaos")
        chaos = Chaos(
            folder,
            postgres.url(),
            open_object_store(ObjectStoreSettings(url=url)),
            seed=seed,
            frozen_store=seaweed,
            settings=SETTINGS | {"object_store_url": url},
        )
        stack.callback(chaos.stop)
        yield chaos


def _restore(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
