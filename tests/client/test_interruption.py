"""Ctrl-C as it comes: a real SIGINT to a real process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detex_protos.v1 import trainer_pb2
from tests.client.conftest import Scripted

# As on a terminal: a shell that starts the tests in the background has its children ignore SIGINT. The command says so
# itself: with `preexec_fn` a process forks in full, which threads of gRPC do not bear.
MAIN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from detex_client.cli import main; main()",
]


@contextmanager
def started(scripted: Scripted, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {
        "DETEX_TRAINER_ADDRESS": scripted.trainer_address,
        "DETEX_GENERATOR_ADDRESS": scripted.generator_address,
    }
    process = subprocess.Popen(
        [*MAIN, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def training(photos: Path) -> tuple[str, ...]:
    return ("train", str(photos), "--class-word", "mug", "--name", "my-mug")


def interrupt(process: "subprocess.Popen[str]") -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=20)


def test_interrupted_training_cancels_its_job(scripted: Scripted, photos: Path) -> None:
    with started(scripted, *training(photos)) as process:
        assert scripted.trainer.watching.wait(20)
        stdout, stderr = interrupt(process)
    assert process.returncode == 130
    assert scripted.trainer.jobs["job-0"].state == trainer_pb2.JOB_STATE_CANCELLED
    assert "Interrupted: cancelling job job-0. Press Ctrl-C again to exit at once." in stderr
    assert stderr.endswith("Job job-0 was cancelled.\n")
    assert stdout == ""


def test_interrupted_training_as_json_ends_with_the_cancelled_job(scripted: Scripted, photos: Path) -> None:
    with started(scripted, *training(photos), "--json") as process:
        assert scripted.trainer.watching.wait(20)
        stdout, _ = interrupt(process)
    assert process.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["state"] == "cancelled"


def test_second_interrupt_leaves_at_once(scripted: Scripted, photos: Path) -> None:
    scripted.trainer.cancel_takes_effect = False
    with started(scripted, *training(photos)) as process:
        assert scripted.trainer.watching.wait(20)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: scripted.trainer.watching.wait(0.1) and scripted.trainer.tenants.count("default") == 5)
        _, stderr = interrupt(process)
    assert process.returncode == 130
    assert "Exited; cancellation of the job was requested. Check it with `detex jobs show job-0`." in stderr


def test_interrupted_watch_leaves_the_job_alone(scripted: Scripted, photos: Path) -> None:
    with started(scripted, *training(photos), "--no-wait") as process:
        process.communicate(timeout=20)
    with started(scripted, "jobs", "watch", "job-0") as process:
        assert scripted.trainer.watching.wait(20)
        _, stderr = interrupt(process)
    assert process.returncode == 130
    assert "job job-0 continues" in stderr
    assert scripted.trainer.jobs["job-0"].state == trainer_pb2.JOB_STATE_QUEUED


def test_interrupted_drawing_ends_the_work(scripted: Scripted, tmp_path: Path) -> None:
    scripted.generator.hold = True
    with started(scripted, "generate", "a mug", "--out", str(tmp_path)) as process:
        wait_for(lambda: bool(scripted.generator.requests))
        _, stderr = interrupt(process)
    assert process.returncode == 130
    assert stderr.endswith("Interrupted.\n")
    assert scripted.generator.abandoned.wait(5)


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll with a deadline."""
    import time

    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
