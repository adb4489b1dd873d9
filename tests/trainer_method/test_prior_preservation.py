"""Prior preservation: pictures of the class drawn once and shared, a loss on them or without, and its effect."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods.plain_prediction import PlainPrediction
from detex_trainer.learning.methods.prior_preservation import (
    Prior,
    PriorImages,
    PriorPreservingLearner,
    PriorPreservingWordLearner,
    PriorPrompt,
)
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.prior_images import PREFIX, PriorRecipe, prior_latents, prior_pictures
from detex_trainer.learning.training.run import draw_noise
from tests.trainer_method.conftest import RecordingReporter
from tests.trainer_method.learners import make_learner

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]


class CountingStore(FolderStore):
    """Notes what is written."""

    written: list[str]

    def put(self, key: str, data: bytes, **options: object):  # type: ignore[no-untyped-def]
        self.written = [*getattr(self, "written", []), key]
        return super().put(key, data, **options)  # type: ignore[arg-type]


@pytest.fixture
def counting(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


def drawn(store: CountingStore) -> list[str]:
    """Names of the pictures written since the last time."""
    names = [key.rsplit("/", 1)[1] for key in getattr(store, "written", []) if key.endswith(".png")]
    store.written = []
    return names


def test_pictures_are_drawn_once_and_only_those_that_are_missing(
    base_model: BaseModel, counting: CountingStore
) -> None:
    first = prior_pictures(counting, base_model, "mug", 3, lambda: False)
    assert drawn(counting) == ["0000.png", "0001.png", "0002.png"]
    again = prior_pictures(counting, base_model, "mug", 3, lambda: False)
    assert drawn(counting) == []
    assert [picture.tobytes() for picture in again] == [picture.tobytes() for picture in first]
    more = prior_pictures(counting, base_model, "mug", 5, lambda: False)
    assert drawn(counting) == ["0003.png", "0004.png"]
    assert [picture.tobytes() for picture in more[:3]] == [picture.tobytes() for picture in first]
    assert len({picture.tobytes() for picture in more}) == 5
    prior_pictures(counting, base_model, "bowl", 1, lambda: False)
    assert drawn(counting) == ["0000.png"]


class ForgettingStore(CountingStore):
    """Pictures that it has just listed are deleted before they are read."""

    def list(self, prefix: str = "", *, after: str = ""):  # type: ignore[no-untyped-def]
        listed = list(super().list(prefix, after=after))
        for each in listed:
            self.delete(each.key)
        return iter(listed)


def test_pictures_that_are_deleted_meanwhile_are_drawn_again(base_model: BaseModel, tmp_path: Path) -> None:
    store = ForgettingStore(tmp_path / "store")
    first = prior_pictures(store, base_model, "mug", 2, lambda: False)
    assert drawn(store) == ["0000.png", "0001.png"]
    again = prior_pictures(store, base_model, "mug", 2, lambda: False)
    assert drawn(store) == ["0000.png", "0001.png"]
    assert [picture.tobytes() for picture in again] == [picture.tobytes() for picture in first]


def test_keys_tell_class_and_base_model_and_recipe(base_model: BaseModel, counting: CountingStore) -> None:
    prior_pictures(counting, base_model, "mug", 1, lambda: False)
    recipe = PriorRecipe.of(base_model, "mug")
    assert {info.key for info in counting.list(PREFIX)} == {
        f"{recipe.prefix}recipe.json",
        f"{recipe.prefix}0000.png",
    }
    assert PriorRecipe.model_validate_json(counting.get(f"{recipe.prefix}recipe.json")) == recipe
    changed = recipe.model_copy(update={"base_model_fingerprint": "0" * 64})
    assert len({recipe.prefix, changed.prefix, PriorRecipe.of(base_model, "bowl").prefix}) == 3


def test_a_damaged_picture_is_drawn_again(base_model: BaseModel, counting: CountingStore) -> None:
    (picture,) = prior_pictures(counting, base_model, "mug", 1, lambda: False)
    (key,) = [info.key for info in counting.list(PREFIX) if info.key.endswith(".png")]
    counting.put(key, b"no picture")
    (again,) = prior_pictures(counting, base_model, "mug", 1, lambda: False)
    assert again.tobytes() == picture.tobytes()
    with Image.open(io.BytesIO(counting.get(key))) as kept:
        assert kept.convert("RGB").tobytes() == picture.tobytes()


def test_drawing_stops_when_asked_and_keeps_what_was_drawn(base_model: BaseModel, counting: CountingStore) -> None:
    answers = iter([False, True])
    with pytest.raises(TrainingStopped):
        prior_pictures(counting, base_model, "mug", 20, lambda: next(answers))
    assert len(drawn(counting)) == 8
    assert len(prior_pictures(counting, base_model, "mug", 8, lambda: False)) == 8
    assert drawn(counting) == []


def test_latents_have_the_side_of_the_photos(base_model: BaseModel) -> None:
    pictures = [Image.new("RGB", (24, 16), color) for color in ("red", "blue")]
    assert prior_latents(base_model, pictures, 16).shape == (2, 4, 8, 8)


def test_jobs_of_one_class_share_their_pictures(
    make_spec: MakeSpec, training_set: TrainingSet, counting: CountingStore
) -> None:
    for method in ("custom_diffusion", "dreambooth_lora"):
        spec = make_spec(method, steps=2, prior_images=2)
        train_concept(spec, training_set, counting, RecordingReporter(), lambda: False)
    pictures = [key for key in counting.written if key.startswith(PREFIX) and key.endswith(".png")]
    assert len(pictures) == 2


@pytest.mark.parametrize("method", ["detex", "textual_inversion"])
def test_methods_that_need_no_pictures_draw_none(
    make_spec: MakeSpec, training_set: TrainingSet, counting: CountingStore, method: str
) -> None:
    train_concept(make_spec(method, steps=1), training_set, counting, RecordingReporter(), lambda: False)
    assert not list(counting.list(PREFIX))


@pytest.mark.parametrize("method", ["detex", "custom_diffusion", "dreambooth", "dreambooth_lora"])
@pytest.mark.parametrize("kind", ["images", "prompt"])
def test_the_loss_of_the_prior_counts_and_reaches_what_is_trained(
    base_model: BaseModel, training_set: TrainingSet, method: str, kind: str
) -> None:
    learner, photo_set = make_learner(base_model, training_set, method, prior_preservation=kind, prior_loss_weight=2.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for group in learner.parameter_groups():
            for parameter in group.parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    batch = photo_set.batch([0, 1], [0, 0])
    losses = learner.losses(batch, draw_noise(batch.latents, base_model.noise_schedule, generator), generator)
    others = sum(float(loss) for name, loss in losses.items() if name == "denoising")
    attention = float(losses["attention"]) * 0.01 if "attention" in losses else 0.0
    assert float(losses["total"]) == pytest.approx(others + attention + 2 * float(losses["prior"]), rel=1e-5)
    trained = [
        p for group in learner.parameter_groups() if group.name in ("key_value", "unet") for p in group.parameters
    ]
    gradients = torch.autograd.grad(losses["prior"], trained, allow_unused=True)
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("method", ["detex", "custom_diffusion"])
@pytest.mark.parametrize("kind", ["images", "prompt"])
def test_one_pass_for_photos_and_prior_is_as_good_as_two(
    base_model: BaseModel, training_set: TrainingSet, method: str, kind: str
) -> None:
    latents = torch.randn(4, *base_model.latent_shape(), generator=torch.Generator().manual_seed(3))
    found = []
    for preserving in (PriorPreservingWordLearner, PriorPreservingLearner):
        words, photo_set = make_learner(base_model, training_set, method, prior_preservation="none")
        assert isinstance(words, WordLearner)
        prior: Prior = PriorImages(base_model, latents) if kind == "images" else PriorPrompt(base_model, "mug")
        learner = preserving(words, prior, 0.5, "mug")
        generator = torch.Generator().manual_seed(1)
        parameters = [p for group in learner.parameter_groups() for p in group.parameters]
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        batch = photo_set.batch([0, 1, 2], [0, 0, 0])
        losses = learner.losses(batch, draw_noise(batch.latents, base_model.noise_schedule, generator), generator)
        found.append((losses, torch.autograd.grad(losses["total"], parameters)))
    (joint, joint_gradients), (apart, apart_gradients) = found
    assert joint.keys() == apart.keys()
    for name in joint:
        assert float(joint[name]) == pytest.approx(float(apart[name]), rel=1e-5), name
    for one, other in zip(joint_gradients, apart_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_without_training_the_prior_by_prompt_is_zero(base_model: BaseModel, training_set: TrainingSet) -> None:
    for method in ("custom_diffusion", "dreambooth"):
        learner, photo_set = make_learner(base_model, training_set, method, prior_preservation="prompt")
        batch = photo_set.batch([0, 1], [0, 0])
        generator = torch.Generator().manual_seed(0)
        losses = learner.losses(batch, draw_noise(batch.latents, base_model.noise_schedule, generator), generator)
        assert float(losses["prior"]) < 1e-10


def test_preserving_the_prior_keeps_the_class_as_it_was(base_model: BaseModel, training_set: TrainingSet) -> None:
    """The same training moves the prediction under the class word less with preservation than without."""
    frozen = PlainPrediction(base_model, "a photo of a mug")
    drifts = {}
    for kind in ("none", "prompt"):
        learner, photo_set = make_learner(
            base_model, training_set, "dreambooth", prior_preservation=kind, prior_loss_weight=1.0
        )
        parameters = [p for group in learner.parameter_groups() for p in group.parameters]
        optimizer = torch.optim.Adam(parameters, lr=3e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            batch = photo_set.batch([0, 1, 2], [0, 0, 0])
            noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
            optimizer.zero_grad()
            learner.losses(batch, noise, generator)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        batch = photo_set.batch([0, 1, 2], [0, 0, 0])
        noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
        noisy = base_model.noise_schedule.add_noise(batch.latents, noise.noise, noise.timesteps)
        with torch.no_grad():
            moved = PlainPrediction(learner.base_model, "a photo of a mug")(noisy, noise.timesteps, {})
            drifts[kind] = float((moved - frozen(noisy, noise.timesteps, {})).square().mean())
    assert drifts["prompt"] < 0.5 * drifts["none"]
