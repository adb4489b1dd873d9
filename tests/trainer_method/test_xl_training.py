"""Every method on Stable Diffusion XL: words of both text encoders, deltas of all layers, published and drawn."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from detex_core.artifact import ConceptArchive
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.concept_file import load_concept
from detex_diffusion.cross_attention import cross_attention_layers
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods import ConceptLearner
from detex_trainer.learning.methods.concept_words import RARE_WORD, class_token_embeddings
from detex_trainer.learning.photos.dataset import PhotoBatches, PhotoSet
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.run import draw_noise
from tests.tiny_models import write_tiny_model
from tests.trainer_method.conftest import RecordingReporter
from tests.trainer_method.learners import make_learner, make_word_learner

MakeSpec = Callable[..., JobSpec]
FIRST = 24
"""Width of the first encoder's words; those of the second follow."""


@pytest.fixture(scope="module")
def xl_settings(tmp_path_factory: pytest.TempPathFactory, model_settings: BaseModelSettings) -> BaseModelSettings:
    """XL has no image encoder of its own: that of the other tiny model reads the photos."""
    folder = write_tiny_model(tmp_path_factory.mktemp("model") / "xl", "sdxl")
    return BaseModelSettings(
        name="xl", source=str(folder), image_encoder_source=str(Path(model_settings.source) / "image_encoder")
    )


@pytest.fixture(scope="module")
def xl(xl_settings: BaseModelSettings) -> BaseModel:
    return load_base_model(xl_settings)


@pytest.mark.parametrize("method", ["detex", "custom_diffusion"])
def test_what_a_method_learns_is_published(
    make_spec: MakeSpec,
    xl_settings: BaseModelSettings,
    xl: BaseModel,
    training_set: TrainingSet,
    store: FolderStore,
    method: str,
) -> None:
    rates = {"subject_learning_rate": 0.05, "mapper_learning_rate": 0.01, "prior_images": 2}
    spec = make_spec(method, delta_form="full", preview_interval_steps=3, **rates)
    spec = spec.model_copy(update={"base_model": xl_settings})
    reporter = RecordingReporter()
    manifest = train_concept(spec, training_set, store, reporter, lambda: False)
    assert (manifest.base_model_fingerprint, manifest.embedding_width) == (xl.fingerprint, 64)
    archive = ConceptArchive(store)
    stored = archive.resolve("default", "my-mug", manifest.version)
    concept = load_concept(manifest, archive.read(stored, "concept.safetensors"), xl)
    start = class_token_embeddings(xl, "mug" if method == "detex" else RARE_WORD).mean(dim=0)
    assert concept.subject.shape[1] == 64
    assert (concept.subject - start)[:, :FIRST].abs().max() > 1e-3
    assert (concept.subject - start)[:, FIRST:].abs().max() > 1e-3
    if method == "detex":
        for words in concept.attributes.values():
            for part in (words[:, :FIRST], words[:, FIRST:]):
                assert not torch.equal(part[0], part[1])  # a word of its own for each photo, in both encoders
    assert set(concept.key_value) == set(cross_attention_layers(xl.unet))
    deltas = [delta for layer in concept.key_value.values() for _, delta in layer.projections()]
    assert all(delta.materialized().abs().max() > 0 for delta in deltas)
    assert [preview.step for preview in reporter.previews] == [3]
    assert archive.read(stored, "report.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("method", ["detex", "textual_inversion", "custom_diffusion", "dreambooth", "dreambooth_lora"])
def test_gradients_reach_all_that_a_method_trains(xl: BaseModel, training_set: TrainingSet, method: str) -> None:
    learner, photo_set = make_learner(xl, training_set, method, "pose" if method == "detex" else "")
    losses = losses_of(learner, photo_set, xl)
    for group in learner.parameter_groups():
        gradients = torch.autograd.grad(losses["total"], list(group.parameters), retain_graph=True, allow_unused=True)
        sizes = [0.0 if gradient is None else float(gradient.abs().sum()) for gradient in gradients]
        assert all(torch.isfinite(torch.tensor(sizes)))
        assert sum(sizes) > 0, group.name


def test_gradients_reach_the_words_of_both_encoders(xl: BaseModel, training_set: TrainingSet) -> None:
    """Also through the pooled embedding, which the second encoder gives."""
    learner, photo_set = make_word_learner(xl, training_set, "pose", subject_tokens=2)
    (gradient,) = torch.autograd.grad(losses_of(learner, photo_set, xl)["total"], [learner.words.subject])
    assert gradient.shape == (2, 64)
    assert gradient[:, :FIRST].abs().max() > 0
    assert gradient[:, FIRST:].abs().max() > 0
    assert len(learner.words.mappers) == 2  # one for each encoder


def losses_of(learner: ConceptLearner, photo_set: PhotoSet, xl: BaseModel) -> Mapping[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = next(PhotoBatches(photo_set, 2, generator))
    return learner.losses(batch, draw_noise(batch.latents, xl.noise_schedule, generator), generator)
