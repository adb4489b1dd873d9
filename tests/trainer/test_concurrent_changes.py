"""Callers that change, use and delete one training set at the same time, through two trainers that share all."""

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from PIL import Image

from detex_core.errors import AbortedError
from detex_core.object_store import FolderStore, ObjectStore
from detex_protos.v1 import trainer_pb2
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import encoded, file, header, mask, photo, stream

pytestmark = pytest.mark.slow

PHOTOS = 4


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningTrainer, RunningTrainer]]:
    folder = tmp_path_factory.mktemp("shared")
    pair = (RunningTrainer(folder), RunningTrainer(folder))
    yield pair
    for trainer in pair:
        assert trainer.terminate() == 0


def uploaded(trainer: RunningTrainer) -> str:
    parts = stream(
        header(),
        *(file(encoded(photo(index)), index) for index in range(PHOTOS)),
        *(file(encoded(mask(share=0.5)), index, kind=trainer_pb2.FILE_KIND_MASK) for index in range(PHOTOS)),
    )
    return trainer.stub.UploadTrainingSet(parts, timeout=60).training_set.training_set_id


def replace(trainer: RunningTrainer, set_id: str, index: int, share: float) -> trainer_pb2.TrainingSet:
    request = trainer_pb2.ReplaceMaskRequest(training_set_id=set_id, photo_index=index, mask=encoded(mask(share=share)))
    return trainer.stub.ReplaceMask(request, timeout=60).training_set


def check_whole(trainer: RunningTrainer, set_id: str, shares: dict[int, float]) -> None:
    """Every mask can be read and is what it was last acknowledged to be."""
    for index, share in shares.items():
        shown = trainer.stub.GetMask(trainer_pb2.GetMaskRequest(training_set_id=set_id, photo_index=index), timeout=60)
        assert shown.photo.mask_share == pytest.approx(share, abs=0.02)
        assert Image.open(io.BytesIO(shown.mask_png)).tobytes() == mask(share=share).tobytes()


def test_no_acknowledged_mask_is_lost(trainers: tuple[RunningTrainer, RunningTrainer]) -> None:
    for number in range(3):
        set_id = uploaded(trainers[0])
        shares = {index: 0.1 + 0.2 * ((index + number) % PHOTOS) for index in range(PHOTOS)}
        with ThreadPoolExecutor(PHOTOS) as pool:
            list(pool.map(lambda index: replace(trainers[index % 2], set_id, index, shares[index]), range(PHOTOS)))  # noqa: B023
        check_whole(trainers[1], set_id, shares)
        kept = list(FolderStore(trainers[0].store_folder).list(f"training_sets/default/{set_id}/"))
        assert len(kept) == 2 * PHOTOS + 1, "no mask is left that the record does not name"


def test_a_set_does_not_change_under_a_job(trainers: tuple[RunningTrainer, RunningTrainer]) -> None:
    """Either the mask is replaced before the job is taken, or not at all."""
    for number in range(6):
        set_id = uploaded(trainers[0])
        with ThreadPoolExecutor(2) as pool:
            replacing = pool.submit(replace, trainers[0], set_id, 0, 0.75)
            job = trainers[1].submit(set_id, f"wait-race-{number}")
            at_submission = (
                trainers[1]
                .stub.GetTrainingSet(trainer_pb2.GetTrainingSetRequest(training_set_id=set_id), timeout=60)
                .training_set
            )
            failure = replacing.exception()
        assert failure is None or (
            isinstance(failure, grpc.RpcError) and failure.code() is grpc.StatusCode.FAILED_PRECONDITION
        )
        after = (
            trainers[0]
            .stub.GetTrainingSet(trainer_pb2.GetTrainingSetRequest(training_set_id=set_id), timeout=60)
            .training_set
        )
        assert after.digest == at_submission.digest
        trainers[0].stub.CancelJob(trainer_pb2.CancelJobRequest(job_id=job.job_id), timeout=60)
        trainers[0].ended(job.job_id)


def test_a_deleted_set_leaves_no_mask_behind(trainers: tuple[RunningTrainer, RunningTrainer]) -> None:
    for _ in range(4):
        set_id = uploaded(trainers[0])

        def attempt(call: Callable[[], object]) -> str:
            try:
                call()
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        with ThreadPoolExecutor(3) as pool:
            request = trainer_pb2.DeleteTrainingSetRequest(training_set_id=set_id)
            replaced = [pool.submit(attempt, lambda i=i: replace(trainers[i], set_id, i, 0.3)) for i in range(2)]  # type: ignore[misc]  # noqa: B023
            deleted = pool.submit(attempt, lambda: trainers[1].stub.DeleteTrainingSet(request, timeout=60))  # noqa: B023
        assert deleted.result() == "OK"
        assert {each.result() for each in replaced} <= {"OK", "NOT_FOUND"}
        assert list(FolderStore(trainers[0].store_folder).list(f"training_sets/default/{set_id}/")) == []


def test_any_order_of_calls_at_once(trainers: tuple[RunningTrainer, RunningTrainer]) -> None:
    """Against a model: what was acknowledged last of each photo is what is there; of equals at once, one of them."""

    class Callers(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.set_id = uploaded(trainers[0])
            self.shares: dict[int, set[float]] = {index: {0.5} for index in range(PHOTOS)}

        @rule(
            calls=st.lists(
                st.tuples(st.sampled_from((0, 1)), st.integers(0, PHOTOS - 1), st.sampled_from((0.1, 0.3, 0.7, 0.9))),
                min_size=2,
                max_size=4,
            )
        )
        def replace_at_once(self, calls: list[tuple[int, int, float]]) -> None:
            with ThreadPoolExecutor(len(calls)) as pool:
                list(pool.map(lambda call: replace(trainers[call[0]], self.set_id, call[1], call[2]), calls))
            for index in {call[1] for call in calls}:
                self.shares[index] = {share for _, at, share in calls if at == index}

        def teardown(self) -> None:
            for index, shares in self.shares.items():
                shown = trainers[random.randrange(2)].stub.GetMask(
                    trainer_pb2.GetMaskRequest(training_set_id=self.set_id, photo_index=index), timeout=60
                )
                assert any(shown.photo.mask_share == pytest.approx(share, abs=0.03) for share in shares)
                expected = [mask(share=share).tobytes() for share in shares]
                assert Image.open(io.BytesIO(shown.mask_png)).tobytes() in expected

    limits = settings(max_examples=5, stateful_step_count=4, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Callers, settings=limits)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_racing_writers_in_the_place_of_one_content_one_wins(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store: ObjectStore
    if kind == "folder":
        store = FolderStore(tmp_path / "store")
    else:
        from tests.core.conftest import minio_store

        store = minio_store(request.getfixturevalue("seaweedfs"), tmp_path.name)
    sha256 = store.put("race/key", b"first").sha256

    def write(number: int) -> str:
        try:
            return store.put("race/key", b"%d" % number, if_sha256=sha256).sha256
        except AbortedError:
            return ""

    with ThreadPoolExecutor(8) as pool:
        won = [each for each in pool.map(write, range(8)) if each]
    assert won == [store.stat("race/key").sha256]
    store.delete("race/key")
    with pytest.raises(AbortedError, match="race/key"):
        store.put("race/key", b"again", if_sha256=won[0])
    with pytest.raises(AbortedError):
        store.put("absent", b"new", if_sha256=sha256)
