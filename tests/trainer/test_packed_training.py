"""Real training in packs, through all that lies between caller and concept: killed, cancelled, as good as alone."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from detex_core.artifact import ConceptArchive, Manifest
from detex_core.object_store import FolderStore
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.api.submission import job_spec
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.intake.archive import TrainingSetArchive
from detex_trainer.jobs import Database, JobRepository
from detex_trainer.learning.training import train_concept
from detex_trainer.settings import TrainerSettings
from tests.tiny_models import write_tiny_model
from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import cut_out, encoded, file, header, stream

pytestmark = pytest.mark.slow

SCRIPTED = (sys.executable, str(Path(__file__).with_name("scripted_trainer.py")))
REAL = (sys.executable, "-m", "detex_trainer")
NAMES = ("first", "second", "third")
STEPS = {"first": 60, "second": 54, "third": 20_000}
PATIENCE_SECONDS = 200
TOLERANCE = 1e-4


class Silent:
    """A reporter that says nothing."""

    def progress(self, progress: object) -> None: ...

    def preview(self, preview: object) -> None: ...

    def checkpoint(self, step: int, seconds: float) -> None: ...


def queue_up(start_trainer: Callable[..., RunningTrainer], settings: dict[str, object]) -> dict[str, str]:
    """Job ids by name, of jobs that wait while a trainer whose one worker is busy is killed."""
    trainer = start_trainer(command=SCRIPTED, **settings)
    photos = [encoded(cut_out(index, (64, 64))) for index in range(2)]
    parts = stream(header("mug"), *(file(data, index) for index, data in enumerate(photos)))
    training_set_id = trainer.stub.UploadTrainingSet(parts, timeout=60).training_set.training_set_id
    busy = trainer.submit(training_set_id, "waits-busy")
    trainer.worker_pid("waits-busy")
    jobs = {}
    for seed, name in enumerate(NAMES):
        knobs = trainer_pb2.Hyperparameters(steps=STEPS[name], batch_size=2, seed=seed)
        method = common_pb2.METHOD_TEXTUAL_INVERSION
        jobs[name] = trainer.submit(training_set_id, name, hyperparameters=knobs, method=method).job_id
    trainer.kill()
    jobs["busy"] = busy.job_id
    return jobs


def the_worker(trainer: RunningTrainer) -> psutil.Process:
    found = [each for each in psutil.Process(trainer.process.pid).children() if "worker" in " ".join(each.cmdline())]
    assert len(found) == 1, "one worker trains all"
    return found[0]


def trained_alone(spec: JobSpec, folder: Path) -> Manifest:
    store = FolderStore(folder)
    training_set = TrainingSetArchive(FolderStore(folder.parent / "objects")).load("default", spec.training_set_id)
    return train_concept(spec, training_set, store, Silent(), lambda: False)


@pytest.mark.timeout(600)
def test_a_killed_pack_goes_on_and_ends_as_its_jobs_do_alone(
    tmp_path: Path, start_trainer: Callable[..., RunningTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_model(tmp_path / "model")
    settings: dict[str, object] = {
        "base_models": f'[{{"name": "tiny", "source": "{model}"}}]',
        "lease_seconds": 20,
        "max_pack_size": 3,
        "checkpoint_interval_seconds": 0.05,
    }
    jobs = queue_up(start_trainer, settings)
    trainer = start_trainer(command=REAL, **settings)
    trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=jobs.pop("busy")))
    store = FolderStore(trainer.store_folder)

    def steps() -> dict[str, int]:
        return {name: trainer.job(job_id).progress.step for name, job_id in jobs.items()}

    def are_kept() -> bool:
        return all(
            any(each.key.endswith("checkpoint.json") for each in store.list(f"jobs/default/{job_id}/checkpoints/"))
            for job_id in jobs.values()
        )

    eventually(are_kept, deadline_seconds=PATIENCE_SECONDS)
    killed = the_worker(trainer)
    os.kill(killed.pid, signal.SIGKILL)
    eventually(
        lambda: all(trainer.job(job_id).interruption.reason == "WORKER_DIED" for job_id in jobs.values()),
        deadline_seconds=PATIENCE_SECONDS,
    )
    # They go on together; one is cancelled in the midst of it.
    eventually(lambda: all(step > 0 for step in steps().values()), deadline_seconds=PATIENCE_SECONDS)
    assert the_worker(trainer).pid != killed.pid
    trainer.stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=jobs["third"]))
    eventually(lambda: trainer.job(jobs["third"]).state == trainer_pb2.JOB_STATE_CANCELLED)
    for name in ("first", "second"):
        eventually(
            lambda name=name: trainer.job(jobs[name]).state == trainer_pb2.JOB_STATE_SUCCEEDED,  # type: ignore[misc]
            deadline_seconds=PATIENCE_SECONDS,
        )
        assert trainer.job(jobs[name]).attempts == 2
    log = "".join(trainer.log)
    assert trainer.terminate() == 0, log[-2_000:]

    archive = ConceptArchive(store)
    assert {each.reference.name for each in archive.list("default", page_size=9).concepts} == {"first", "second"}
    monkeypatch.setenv("DETEX_BASE_MODELS", str(settings["base_models"]))
    monkeypatch.setenv("DETEX_WORK_FOLDER", str(trainer.folder / "work"))
    database = Database(TrainerSettings().jobs_url())
    repository = JobRepository(database)
    packed = archive.resolve("default", "first").manifest.metrics
    spec = job_spec(repository.get("default", jobs["first"]), TrainerSettings())
    database.close()
    alone = trained_alone(spec.model_copy(update={"checkpoint_interval_seconds": 0.0}), tmp_path / "alone").metrics
    for loss in ("loss_total", "denoising_loss_after"):
        assert packed[loss] == pytest.approx(alone[loss], abs=TOLERANCE)
