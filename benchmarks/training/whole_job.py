"""A whole job through a real trainer, from submission to publication, and what checkpoints cost."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.results_file import ResultRow, at_most, median_row
from benchmarks.training.runs import make_run
from benchmarks.training.scale import Scale
from detex_client import Hyperparameters, JobState, TrainerClient, TrainingPhoto
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_showroom.assets import sample_subjects
from detex_trainer.learning.training.checkpoint_archive import CheckpointArchive
from detex_trainer.learning.training.checkpointing import Checkpointer
from detex_trainer.learning.training.loop import TrainingPack

_GIB = 1024**3
_CHECKPOINT_INTERVAL_SECONDS = 30.0


class _PeakMemory:
    """Largest memory of a process and all its children together, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Stop looking; the peak in bytes."""
        self._over.set()
        self._thread.join()
        return self.peak_bytes

    def _look(self) -> None:
        while not self._over.wait(0.1):
            total = 0
            for process in (self._process, *self._process.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)


def job_rows(scale: Scale) -> Iterator[ResultRow]:
    """The default detex job on the embedded base model."""
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory(prefix="detex-training-") as folder:
        environment = os.environ | {
            "DETEX_LISTEN_ADDRESS": "127.0.0.1:0",
            "DETEX_METRICS_ADDRESS": "127.0.0.1:0",
            "DETEX_WORK_FOLDER": f"{folder}/work",
            "DETEX_OBJECT_STORE_URL": f"folder://{folder}/store",
            "DETEX_LOG_FORMAT": "json",
            "DETEX_WORKER_NICENESS": "0",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "detex_trainer"], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            address = _address(process)
            with TrainerClient(address) as trainer:
                subject = sample_subjects()[0]
                photos = [TrainingPhoto(photo.image_path, mask=photo.mask_path) for photo in subject.photos]
                for index in range(scale.jobs):
                    # Anew for each job, for photos are deleted when their job has ended.
                    training_set = trainer.upload(photos, class_word=subject.class_word)
                    memory = _PeakMemory(process.pid)
                    began = time.perf_counter()
                    steps: Hyperparameters = {"steps": scale.job_steps} if scale.job_steps else {}
                    job = trainer.submit(training_set.training_set_id, name=f"subject-{index}", **steps)
                    job = trainer.wait(job.job_id)
                    seconds.append(time.perf_counter() - began)
                    peaks.append(memory.end() / _GIB)
                    if job.state is not JobState.SUCCEEDED:
                        raise RuntimeError(f"the job has ended as {job.state}: {job.failure}")
        finally:
            process.terminate()
            process.wait(60)
    yield median_row(
        "whole default detex job on the embedded base model, from submission to publication",
        seconds,
        "s",
        reach=at_most(120),
    )
    yield ResultRow(
        what="memory of trainer and worker during that job",
        value=max(peaks),
        unit="GiB",
        reach=at_most(2.5),
        runs=tuple(peaks),
        note="proportional set size of the trainer and all its children together, largest of all looks",
    )


def checkpoint_rows(base_model: BaseModel, scale: Scale) -> Iterator[ResultRow]:
    """What a checkpoint costs, and what going on from one."""
    run = make_run(base_model, sample_subjects()[0], "detex", seed=0, batch=scale.batch)
    pack = TrainingPack(base_model)
    pack.add(run, [])
    pack.advance()
    with tempfile.TemporaryDirectory(prefix="detex-checkpoints-") as folder:
        archive = CheckpointArchive(FolderStore(Path(folder)), "default", "job-0123456789abcdef")
        checkpointer = Checkpointer(archive, "benchmark", interval_seconds=_CHECKPOINT_INTERVAL_SECONDS)
        written = []
        for _ in range(scale.checkpoints):
            began = time.perf_counter()
            checkpointer.before_stop(run)  # copies and writes, and waits until it is written
            written.append(time.perf_counter() - began)
        resumed = []
        for _ in range(scale.checkpoints):
            began = time.perf_counter()
            if not checkpointer.resume(run):
                raise RuntimeError("the checkpoint was not found")
            resumed.append(time.perf_counter() - began)
        checkpointer.close()
    share = 100 * statistics.median(written) / _CHECKPOINT_INTERVAL_SECONDS
    yield median_row("seconds to copy and write a checkpoint", written, "s")
    yield median_row("seconds to read a checkpoint and go on", resumed, "s")
    yield ResultRow(
        what="overhead of a checkpoint every 30 s",
        value=share,
        unit="%",
        reach=at_most(5),
        note="as if training stood still while a checkpoint is written, which goes on beside it",
    )


def _address(process: subprocess.Popen[str]) -> str:
    log = iter(process.stderr or ())
    for line in log:
        if line.startswith("{") and json.loads(line)["message"] == "listening":
            threading.Thread(target=lambda: list(log), daemon=True).start()  # or the pipe fills up
            return str(json.loads(line)["address"])
    raise RuntimeError(f"the trainer has ended with status {process.wait()}")
