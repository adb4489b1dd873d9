"""Base models that the tests of this folder share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from tests.tiny_models import write_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the tiny models; not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    return {"sd1": write_tiny_model(folder / "one", "sd1"), "sd2": write_tiny_model(folder / "two", "sd2")}


@pytest.fixture(scope="session")
def base_models(model_folders: dict[str, Path]) -> dict[str, BaseModel]:
    """The tiny models in float32; not to be changed."""
    return {
        kind: load_base_model(BaseModelSettings(name=f"tiny-{kind}", source=str(folder)))
        for kind, folder in model_folders.items()
    }


@pytest.fixture(params=["sd1", "sd2"])
def base_model(request: pytest.FixtureRequest, base_models: dict[str, BaseModel]) -> BaseModel:
    """Each tiny model in turn."""
    return base_models[request.param]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of one tiny model of each kind; not to be changed."""
    root = tmp_path_factory.mktemp("layouts")
    return {kind: write_tiny_model(root / kind, kind) for kind in ("sd1", "sd2", "sdxl")}


@pytest.fixture
def copy(originals: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Gives a folder of a kind to change."""
    return lambda kind: Path(shutil.copytree(originals[kind], tmp_path / kind))
