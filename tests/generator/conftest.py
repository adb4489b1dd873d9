"""A generator over two tiny base models and a folder store with concepts, shared by the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detex_core.artifact import StoredManifest
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import RunningGenerator, generator_settings, running
from tests.tiny_models import write_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny models by name; not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    return {"tiny": write_tiny_model(folder / "one", "sd1"), "other": write_tiny_model(folder / "two", "sd2", seed=1)}


@pytest.fixture(scope="session")
def base_models(model_folders: dict[str, Path]) -> dict[str, BaseModel]:
    """The tiny models, loaded a second time beside the generator's own."""
    return {
        name: load_base_model(BaseModelSettings(name=name, source=str(folder)))
        for name, folder in model_folders.items()
    }


@pytest.fixture(scope="session")
def base_model(base_models: dict[str, BaseModel]) -> BaseModel:
    return base_models["tiny"]


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def store(store_folder: Path) -> FolderStore:
    return FolderStore(store_folder)


@pytest.fixture(scope="session")
def concepts(store: FolderStore, base_models: dict[str, BaseModel]) -> dict[str, StoredManifest]:
    """Published concepts by name: three of the base model `tiny`, one of `other`, one of another tenant."""
    tiny, other = base_models["tiny"], base_models["other"]
    return {
        "my-mug": publish(store, tiny, "my-mug", random_concept(tiny, 1)),
        "my-bowl": publish(store, tiny, "my-bowl", random_concept(tiny, 2, class_word="bowl"), low_rank=True),
        "my-lamp": publish(store, tiny, "my-lamp", random_concept(tiny, 3, class_word="lamp")),
        "foreign": publish(store, other, "foreign", random_concept(other, 4)),
        "secret": publish(store, tiny, "secret", random_concept(tiny, 5), tenant="acme"),
    }


@pytest.fixture(scope="session")
def generator(
    model_folders: dict[str, Path], store_folder: Path, concepts: dict[str, StoredManifest]
) -> Iterator[RunningGenerator]:
    """A generator with everything as it comes, but for threads."""
    with running(generator_settings(model_folders, store_folder)) as started:
        yield started
