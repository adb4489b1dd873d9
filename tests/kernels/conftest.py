"""Tests that need Triton's interpreter run in a process of their own, for it is chosen when Triton is imported."""

import pytest

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_generator.ops.availability import interpreted
from tests.tiny_models import write_tiny_model

collect_ignore = [] if interpreted() else ["interpreted"]


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = write_tiny_model(tmp_path_factory.mktemp("kernels") / "model", "sd2")
    return load_base_model(BaseModelSettings(name="tiny", source=str(folder)))
