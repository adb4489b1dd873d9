"""Jobs, databases and stores for the tests of the trainer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detex_core.object_store import FolderStore
from detex_trainer.domain.hyperparameters import default_hyperparameters
from detex_trainer.jobs import Database, JobOrder
from detex_trainer.jobs.repository import Submission
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import three_photos

MakeSubmission = Callable[..., Submission]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes many minutes unless it is asked for by `-m chaos`."""
    if "chaos" not in config.getoption("markexpr"):
        left_out = pytest.mark.skip(reason="kills hundreds of processes; run it with -m chaos")
        for item in items:
            if item.get_closest_marker("chaos"):
                item.add_marker(left_out)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state/jobs.db")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrainer]:
    """A trainer with two workers for all tests of a module."""
    running = RunningTrainer(tmp_path_factory.mktemp("trainer"), worker_count=2)
    yield running
    assert running.terminate() == 0


@pytest.fixture(scope="module")
def training_set_id(trainer: RunningTrainer) -> str:
    return trainer.stub.UploadTrainingSet(three_photos(), timeout=30).training_set.training_set_id


@pytest.fixture
def start_trainer(tmp_path: Path) -> Iterator[Callable[..., RunningTrainer]]:
    """Starts trainers that share a folder."""
    started: list[RunningTrainer] = []

    def start(**settings: object) -> RunningTrainer:
        started.append(RunningTrainer(tmp_path, **settings))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.kill()


@pytest.fixture(scope="session")
def make_submission() -> MakeSubmission:
    def make(tenant: str = "default", *, concept_name: str = "my-mug", key: str = "", content: str = "0") -> Submission:
        order = JobOrder(
            concept_name=concept_name,
            training_set_id="ts-0123456789abcdef",
            method="detex",
            hyperparameters=default_hyperparameters("detex"),
            attributes=("pose", "background"),
            base_model="showroom",
        )
        return Submission(tenant, order, content * 64, key)

    return make
