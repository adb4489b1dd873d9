"""Jobs, databases and stores for the tests of the trainer."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detex_core.object_store import FolderStore
from detex_trainer.hyperparameters import default_hyperparameters
from detex_trainer.jobs import Database, JobOrder
from detex_trainer.jobs.repository import Submission

MakeSubmission = Callable[..., Submission]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/state/jobs.db")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "objects")


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
