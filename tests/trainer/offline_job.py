"""A whole job, upload to deletion, in a process whose network ends at loopback; run by test_privacy.py.

Arguments: a folder, and `namespace` (this process has a network of its own) or `guard` (processes refuse themselves).
"""

import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path

from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from tests.tiny_models import write_tiny_model
from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import cut_out, encoded, file, header, stream

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_OUTSIDE = ("192.0.2.1", 80)  # TEST-NET-1, which nobody has


def switch_loopback_on() -> None:
    """A new network namespace has loopback alone, and that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def outside_is_away() -> bool:
    try:
        socket.create_connection(_OUTSIDE, timeout=2).close()
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def run_job(folder: Path) -> dict[str, object]:
    model = write_tiny_model(folder / "model")
    trainer = RunningTrainer(
        folder,
        (sys.executable, "-m", "detex_trainer"),
        base_models=f'[{{"name": "tiny", "source": "{model}"}}]',
        lease_seconds=20,
        segmenter="color_contrast",
    )
    try:
        pictures = [encoded(cut_out(0, (64, 64))), encoded(cut_out(1, (64, 64)))]
        parts = stream(header("mug", keep_photos=False), *(file(data, index) for index, data in enumerate(pictures)))
        training_set_id = trainer.stub.UploadTrainingSet(parts, timeout=120).training_set.training_set_id
        job = trainer.submit(
            training_set_id, "my-mug", hyperparameters=trainer_pb2.Hyperparameters(steps=2, batch_size=2)
        )
        *_, last = trainer.stub.WatchJob(trainer_pb2.WatchJobRequest(job_id=job.job_id), timeout=240)
        store = FolderStore(trainer.store_folder)
        eventually(lambda: not list(store.list("training_sets/")))
        assert trainer.terminate() == 0
    finally:
        if trainer.process.poll() is None:
            trainer.kill()
    work = [path for path in (folder / "work").rglob("*") if path.is_file()]
    photos = [path for path in work if path.read_bytes()[:4] in {b"\x89PNG", b"\xff\xd8\xff\xe0"}]
    return {
        "state": trainer_pb2.JobState.Name(last.job.state),
        "failure": last.job.failure.message,
        "photos_left": [str(path) for path in photos],
    }


if __name__ == "__main__":
    if sys.argv[2] == "namespace":
        switch_loopback_on()
    assert outside_is_away(), "the network goes further than loopback"
    outcome = run_job(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(outcome | {"pid": os.getpid()}))
