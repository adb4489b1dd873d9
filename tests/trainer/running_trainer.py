"""A trainer in a process of its own, and calls to it."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from detex_protos.v1 import trainer_pb2, trainer_pb2_grpc

ENDED = {trainer_pb2.JOB_STATE_SUCCEEDED, trainer_pb2.JOB_STATE_FAILED, trainer_pb2.JOB_STATE_CANCELLED}
DEADLINE_SECONDS = 30
START_SECONDS = 150


class RunningTrainer:
    """A trainer whose workers follow a script; state, store and log lie in a folder."""

    def __init__(self, folder: Path, command: tuple[str, ...] = (), **settings: object) -> None:
        self.folder = folder
        self.meeting_folder = folder / "meeting"
        self.meeting_folder.mkdir(parents=True, exist_ok=True)
        self.store_folder = folder / "objects"
        environment = {
            "DETEX_LISTEN_ADDRESS": "127.0.0.1:0",
            "DETEX_METRICS_ADDRESS": "127.0.0.1:0",
            "DETEX_WORK_FOLDER": str(folder / "work"),
            "DETEX_OBJECT_STORE_URL": f"folder://{self.store_folder}",
            "DETEX_RECONCILE_INTERVAL_SECONDS": "0.1",
            "DETEX_WATCH_INTERVAL_SECONDS": "0.1",
            "DETEX_LEASE_SECONDS": "1",
            "DETEX_WORKER_NICENESS": "0",
            "DETEX_LOG_FORMAT": "json",
            # Looking for subjects takes seconds; tests that want it switch it on.
            "DETEX_SEGMENTER": "none",
            # Whether jobs meet in a pack depends on when a worker looks; tests of packs switch them on.
            "DETEX_MAX_PACK_SIZE": "1",
            # Nothing here reads a base model, and looking at one takes seconds.
            "DETEX_BASE_MODELS": '[{"name": "showroom", "source": "/absent"}]',
            "DETEX_TEST_FOLDER": str(self.meeting_folder),
            **{f"DETEX_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process = subprocess.Popen(
            command or (sys.executable, str(Path(__file__).with_name("scripted_trainer.py"))),
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._addresses: queue.Queue[tuple[str, str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.address, self.metrics_address = self._addresses.get(timeout=START_SECONDS)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"it does not come to listen:\n{''.join(self.log)}") from None
        if not self.address:
            self.wait()
            raise AssertionError("".join(self.log))
        self.channel = grpc.insecure_channel(self.address)
        self.stub = trainer_pb2_grpc.TrainerServiceStub(self.channel)

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        status = self.process.wait(timeout=DEADLINE_SECONDS)
        self._reader.join()
        if hasattr(self, "channel"):
            self.channel.close()
        return status

    def submit(self, training_set_id: str, concept_name: str, **fields: object) -> trainer_pb2.Job:
        request = trainer_pb2.SubmitJobRequest(training_set_id=training_set_id, concept_name=concept_name, **fields)
        return self.stub.SubmitJob(request, timeout=DEADLINE_SECONDS).job

    def job(self, job_id: str) -> trainer_pb2.Job:
        return self.stub.GetJob(trainer_pb2.GetJobRequest(job_id=job_id), timeout=DEADLINE_SECONDS).job

    def watch(self, job_id: str) -> Iterator[trainer_pb2.WatchJobResponse]:
        return self.stub.WatchJob(trainer_pb2.WatchJobRequest(job_id=job_id), timeout=START_SECONDS)

    def ended(self, job_id: str) -> trainer_pb2.Job:
        """The job when it has ended."""
        *_, last = self.watch(job_id)
        assert last.job.state in ENDED
        return last.job

    def worker_pid(self, concept_name: str, *, attempt: int = 1) -> int:
        """Process id of the worker that was started for a concept, once it runs."""
        started = self.meeting_folder / f"{concept_name}.started"
        eventually(
            lambda: started.exists() and len(started.read_text().splitlines()) >= attempt,
            deadline_seconds=START_SECONDS,
        )
        return int(started.read_text().splitlines()[attempt - 1])

    def go(self, concept_name: str) -> None:
        """Let a worker that waits go on."""
        (self.meeting_folder / f"{concept_name}.go").touch()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if line.startswith("{"):
                record = json.loads(line)
                if record["message"] == "listening":
                    self._addresses.put((record["address"], record["metrics_address"]))
        self.process.stderr.close()
        self._addresses.put(("", ""))  # for those who still wait for it to listen


def eventually(condition: Callable[[], object], *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Look until a condition holds."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
