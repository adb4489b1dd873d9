"""A tiny base model, a tiny judge with random weights, and facts of pictures as they would be seen."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.quality.facts import PictureFacts
from benchmarks.quality.judge.judge import save_judge
from benchmarks.quality.judge.network import JudgeNetwork, JudgeSize
from benchmarks.quality.picture_plan import PictureRequest, Task
from tests.tiny_models import write_tiny_model

torch.set_num_threads(1)

TINY_JUDGE = JudgeSize(picture_pixels=16, widths=(4, 4, 8, 8), identity=8)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("quality") / "tiny", "sd1")


@pytest.fixture(scope="session")
def tiny_judge_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("judge") / "weights.safetensors"
    save_judge(JudgeNetwork(TINY_JUDGE), path, {"recipe": "random"})
    return path


@pytest.fixture
def seen() -> Callable[..., PictureFacts]:
    """Makes facts; what is not told is as it was asked, or upright on a beach."""

    def make(
        task: Task,
        *,
        pose: str | None = None,
        scene: str | None = None,
        sees_pose: str | None = None,
        sees_scene: str | None = None,
        sees_class: str = "mug",
        similarity: float = 0.5,
        features: tuple[float, ...] = (1.0, 0.0),
        text_similarity: float | None = 0.25,
    ) -> PictureFacts:
        request = PictureRequest(task, "a photo of a [subject]", "a photo of a mug", 0, "mug", pose, scene)
        return PictureFacts(
            request=request,
            class_word=sees_class,
            pose=sees_pose or pose or "upright",
            scene=sees_scene or scene or "beach",
            identity_similarity=similarity,
            retrieved=similarity > 0.4,
            retrieved_in_class=similarity > 0.6,
            nearest_photo_rmse=0.2,
            image_similarity=0.8,
            foreground_similarity=0.7,
            text_similarity=text_similarity,
            features=torch.tensor(features),
        )

    return make
