"""A store that is full, read-only or away throws no trained concept away, and keeps no half of one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from detex_core.errors import (
    DetexError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_core.object_store import FolderStore
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.progress import JobPhase
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.training import concept_training, train_concept
from detex_trainer.learning.training.checkpoint_archive import checkpoint_prefix
from detex_trainer.learning.training.patient_publication import publish_when_possible
from tests.trainer_method.conftest import RecordingReporter

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]
PASSING: list[DetexError] = [
    ResourceExhaustedError("The disk is full.", reason="STORAGE_FULL"),
    PermissionDeniedError("Read-only file system."),
    UnavailableError("The object store does not answer."),
]


class TroubledStore(FolderStore):
    """Refuses some writes of concepts, the first of each try going through."""

    def __init__(self, folder: Path, error: DetexError, refusals: int) -> None:
        super().__init__(folder)
        self.error, self.refusals, self.written = error, refusals, 0
        self.refuses_checkpoints = False

    def put(self, key: str, data: bytes, **options: Any) -> Any:
        if self.refuses_checkpoints and key.startswith(checkpoint_prefix("default", "job-0123456789abcdef")):
            raise self.error
        if key.startswith("concepts/") and self.refusals and self.written % 2:
            self.refusals -= 1
            self.written += 1
            raise self.error
        self.written += key.startswith("concepts/")
        return super().put(key, data, **options)

    def concept_files(self) -> list[str]:
        return [found.key for found in self.list("concepts/")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        concept_training, "publish_when_possible", partial(publish_when_possible, first_pause_seconds=0.01)
    )


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.reason)
def test_what_is_trained_is_published_when_there_is_room(
    make_spec: MakeSpec, training_set: TrainingSet, tmp_path: Path, error: DetexError
) -> None:
    undisturbed = train_concept(
        make_spec(), training_set, FolderStore(tmp_path / "other"), RecordingReporter(), lambda: False
    )
    store, reporter = TroubledStore(tmp_path / "store", error, refusals=3), RecordingReporter()
    manifest = train_concept(make_spec(), training_set, store, reporter, lambda: False)
    assert store.refusals == 0
    assert manifest.files["concept.safetensors"] == undisturbed.files["concept.safetensors"]
    waits = [news for news in reporter.news if news.waiting_for]
    assert {(news.phase, news.waiting_for) for news in waits} == {(JobPhase.PUBLISHING, error.message)}
    assert len(waits) == 3
    assert len({key.split("/")[3] for key in store.concept_files()}) == 1  # of one version alone
    assert len([news for news in reporter.news if news.phase is JobPhase.TRAINING and news.step == 3]) <= 2


@pytest.mark.parametrize("refuses_checkpoints", [False, True])
def test_a_job_that_is_stopped_while_it_waits_goes_on_from_its_last_step(
    make_spec: MakeSpec, training_set: TrainingSet, tmp_path: Path, refuses_checkpoints: bool
) -> None:
    store, reporter = TroubledStore(tmp_path / "store", PASSING[0], refusals=10**6), RecordingReporter()
    store.refuses_checkpoints = refuses_checkpoints
    with pytest.raises(TrainingStopped):
        train_concept(
            make_spec(), training_set, store, reporter, lambda: any(news.waiting_for for news in reporter.news)
        )
    assert store.concept_files() == []  # no half of a concept
    assert bool(list(store.list(checkpoint_prefix("default", "job-0123456789abcdef")))) is not refuses_checkpoints
    store.refusals, store.refuses_checkpoints = 0, False
    again = RecordingReporter()
    assert train_concept(make_spec(), training_set, store, again, lambda: False).files
    steps = [news.step for news in again.news if news.phase is JobPhase.TRAINING]
    assert (min(steps, default=3) == 3) is not refuses_checkpoints


def test_patience_ends_and_errors_that_do_not_pass_are_not_waited_for() -> None:
    def fail(error: DetexError) -> Callable[[], None]:
        def publish() -> None:
            tries.append(error)
            raise error

        return publish

    for error, patience in ((PASSING[0], 0.0), (NotFoundError("wrong"), 60.0)):
        tries: list[DetexError] = []
        with pytest.raises(type(error)):
            publish_when_possible(fail(error), lambda: False, lambda error: None, patience_seconds=patience)
        assert len(tries) == 1
