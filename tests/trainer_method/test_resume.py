"""Jobs that were interrupted go on where they were, and end with the artifact of an undisturbed run."""

import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from detex_core.errors import UnavailableError
from detex_core.object_store import FolderStore, ObjectInfo
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.checkpoint_archive import (
    RECORD_FILE,
    STATE_FILE,
    CheckpointArchive,
    checkpoint_prefix,
)
from tests.trainer_method.conftest import RecordingReporter

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]

STEPS = 12
EVERY_STEP = 1e-6


def train(spec: JobSpec, training_set: TrainingSet, store: FolderStore, *, looks: int | None = None) -> str:
    """Train, and return the hash of the artifact; stop at the given look at `should_stop`."""
    count = itertools.count(1)
    manifest = train_concept(
        spec, training_set, store, RecordingReporter(), lambda: looks is not None and next(count) >= looks
    )
    return manifest.files["concept.safetensors"].sha256


def interrupt(spec: JobSpec, training_set: TrainingSet, store: FolderStore, looks: int) -> None:
    with pytest.raises(TrainingStopped):
        train(spec, training_set, store, looks=looks)


def checkpoints(store: FolderStore) -> list[str]:
    return [found.key for found in store.list(checkpoint_prefix("default", "job-0123456789abcdef"))]


def every_step(spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"checkpoint_interval_seconds": EVERY_STEP})


@pytest.fixture
def elsewhere(tmp_path: Path) -> FolderStore:
    """A store for the undisturbed run."""
    return FolderStore(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("method", "start"), [("detex", "plain_words"), ("textual_inversion", "noun"), ("custom_diffusion", "noun")]
)
def test_a_stopped_job_goes_on_where_it_was(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, elsewhere: FolderStore, method: str, start: str
) -> None:
    spec = make_spec(method, steps=STEPS, attribute_start=start, prior_images=2)
    undisturbed = train(spec, training_set, elsewhere)
    for looks in (6, 5):
        interrupt(spec, training_set, store, looks)
        assert len(checkpoints(store)) in (2, 4)
    reporter = RecordingReporter()
    manifest = train_concept(spec, training_set, store, reporter, lambda: False)
    assert manifest.files["concept.safetensors"].sha256 == undisturbed
    steps = [news.step for news in reporter.news if news.step]
    assert min(steps) > 2
    assert checkpoints(store) == []


def test_the_report_of_a_resumed_job_is_that_of_an_undisturbed_one(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, elsewhere: FolderStore
) -> None:
    spec = make_spec(steps=6)
    undisturbed = train_concept(spec, training_set, elsewhere, RecordingReporter(), lambda: False).metrics
    interrupt(spec, training_set, store, 6)
    resumed = train_concept(spec, training_set, store, RecordingReporter(), lambda: False).metrics
    timed = {"training_seconds"}
    assert {k: v for k, v in resumed.items() if k not in timed} == {
        k: v for k, v in undisturbed.items() if k not in timed
    }


def test_a_job_that_was_stopped_after_its_last_step_is_published_as_it_was(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, elsewhere: FolderStore
) -> None:
    spec = make_spec(steps=3)
    undisturbed = train(spec, training_set, elsewhere)
    interrupt(spec, training_set, store, 2 + 3 + 1)
    assert train(spec, training_set, store) == undisturbed


@pytest.mark.parametrize("damaged", [RECORD_FILE, STATE_FILE])
def test_a_damaged_checkpoint_leads_to_the_one_before(
    make_spec: MakeSpec,
    training_set: TrainingSet,
    store: FolderStore,
    elsewhere: FolderStore,
    caplog: pytest.LogCaptureFixture,
    damaged: str,
) -> None:
    spec = make_spec(steps=STEPS)
    undisturbed = train(spec, training_set, elsewhere)
    interrupt(spec, training_set, store, 6)
    interrupt(spec, training_set, store, 5)
    newest = max(key for key in checkpoints(store) if key.endswith(damaged))
    store.put(newest, store.get(newest)[:-40] + b"x" * 40)
    with caplog.at_level(logging.INFO):
        assert train(spec, training_set, store) == undisturbed
    assert "is damaged, the one before it is taken" in caplog.text
    assert f"going on from the checkpoint of step 3 of {STEPS}" in caplog.text


def test_two_checkpoints_are_kept(make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore) -> None:
    spec = every_step(make_spec(steps=STEPS))
    interrupt(spec, training_set, store, STEPS + 1)
    numbers = sorted({int(key.split("/")[-2]) for key in checkpoints(store)})
    assert len(numbers) == 2
    assert len(checkpoints(store)) == 4
    assert numbers[-1] > 2


def test_a_checkpoint_of_other_settings_is_left_out(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, elsewhere: FolderStore
) -> None:
    interrupt(make_spec(steps=STEPS, seed=1), training_set, store, 6)
    other = make_spec(steps=4, seed=2)
    assert train(other, training_set, store) == train(other, training_set, elsewhere)


class StoreWithoutCheckpoints(FolderStore):
    """A store that is away whenever a checkpoint is written."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        if "/checkpoints/" in key:
            raise UnavailableError("The object store does not answer.")
        return super().put(key, data, if_absent=if_absent, content_type=content_type)


def test_training_goes_on_while_checkpoints_cannot_be_written(
    make_spec: MakeSpec, training_set: TrainingSet, elsewhere: FolderStore, tmp_path: Path
) -> None:
    spec = every_step(make_spec(steps=4))
    undisturbed = train(spec, training_set, elsewhere)
    assert train(spec, training_set, StoreWithoutCheckpoints(tmp_path / "away")) == undisturbed


def test_what_was_not_written_whole_is_no_checkpoint(store: FolderStore) -> None:
    archive = CheckpointArchive(store, "default", "job-0123456789abcdef")
    assert archive.newest("digest") is None
    archive.save(3, "digest", b"three", {"run": {"step": 3}})
    store.put(f"{checkpoint_prefix('default', 'job-0123456789abcdef')}000002/{STATE_FILE}", b"half")
    stored = archive.newest("digest")
    assert stored is not None
    assert (stored.record.step, stored.tensors) == (3, b"three")
    archive.save(5, "digest", b"five", {"run": {"step": 5}})
    newest = archive.newest("digest")
    assert newest is not None
    assert newest.tensors == b"five"
    assert archive.delete() > 0
    assert archive.newest("digest") is None


_WORKER = """
import sys
from pathlib import Path
from detex_core.object_store import FolderStore
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.learning.training import train_concept
from tests.trainer_method.conftest import RecordingReporter, make_training_set  # one thread, as here

spec = JobSpec.model_validate_json(Path(sys.argv[1]).read_text())
store = FolderStore(Path(sys.argv[2]))
train_concept(spec, make_training_set(), store, RecordingReporter(), lambda: False)
"""


def test_a_killed_job_goes_on_from_its_last_checkpoint(
    make_spec: MakeSpec, training_set: TrainingSet, elsewhere: FolderStore, tmp_path: Path
) -> None:
    spec = every_step(make_spec(steps=STEPS))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())

    command = [sys.executable, "-c", _WORKER, str(tmp_path / "spec.json"), str(tmp_path / "store")]
    store = FolderStore(tmp_path / "store")
    worker = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 200
        while len(checkpoints(store)) < 4 and time.monotonic() < deadline and worker.poll() is None:
            time.sleep(0.001)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert list(store.list("concepts/")) == []
    assert len(checkpoints(store)) >= 2
    assert train(spec, training_set, store) == train(spec, training_set, elsewhere)
    assert checkpoints(store) == []
