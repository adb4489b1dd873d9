"""What the peers do as their papers say: resized photos with words for it, rare words, whole photos, whole UNets."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

from detex_core.artifact import ConceptArchive
from detex_core.object_store import FolderStore
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept_file import load_concept
from detex_diffusion.key_value_delta import LowRankDelta
from detex_diffusion.text import tokenize
from detex_diffusion.unet_delta import materialized, unet_with_delta
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.intake.masks import mask_from_image
from detex_trainer.learning.methods.concept_words import RARE_WORD, class_token_embeddings
from detex_trainer.learning.methods.photo_prompts import PhotoPrompts
from detex_trainer.learning.methods.trained_unet import TrainedUNet
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.photos.dataset import PhotoBatches
from detex_trainer.learning.training import train_concept
from tests.trainer_method.conftest import RecordingReporter, make_training_set
from tests.trainer_method.learners import make_learner

MakeSpec = Callable[..., JobSpec]


def test_custom_diffusion_shows_photos_small_and_from_near_and_says_so(
    base_model: BaseModel, training_set: TrainingSet
) -> None:
    _, photo_set = make_learner(base_model, training_set, "custom_diffusion")
    assert photo_set.views[0][0] == ""
    said = {view for views in photo_set.views for view in views}
    assert said == {"", "far away", "very small", "zoomed in", "close up"}
    small = [(i, v) for i, views in enumerate(photo_set.views) for v, view in enumerate(views) if view == "far away"]
    assert all(photo_set.valid[i, v].mean() < 0.75 for i, v in small)  # the loss looks at the photo alone
    batch = photo_set.batch([small[0][0]], [small[0][1]])
    assert batch.views == ("far away",)
    prompts = PhotoPrompts("m", "mug", (), ("", "", ""), 1.0)
    generator = torch.Generator().manual_seed(0)
    assert str(prompts.draw(0, generator, batch.views[0]).prompt) == "a far away photo of a [m]"
    assert str(prompts.draw(0, generator).prompt).endswith("a [m]")


@pytest.mark.parametrize("method", ["detex", "dreambooth", "textual_inversion"])
def test_the_others_show_photos_as_they_are(base_model: BaseModel, training_set: TrainingSet, method: str) -> None:
    _, photo_set = make_learner(base_model, training_set, method)
    assert photo_set.views == ()
    assert next(PhotoBatches(photo_set, 2, torch.Generator())).views == ("", "")


def test_peers_learn_whole_photos_and_are_measured_by_the_subject(
    base_model: BaseModel, training_set: TrainingSet
) -> None:
    _, photo_set = make_learner(base_model, training_set, "dreambooth")
    assert (photo_set.masks == 1).all()
    share = float(photo_set.report_batch([0, 1, 2]).masks.mean())
    assert 0.02 < share < 0.4
    assert float(mask_from_image(photo_set.subjects[0]).mean()) == pytest.approx(
        float(photo_set.report_batch([0]).masks.mean()), abs=0.01
    )
    _, unknown = make_learner(base_model, make_training_set(masks=False), "dreambooth")
    assert len(unknown.subjects) == 3


def test_where_the_subject_word_begins(base_model: BaseModel, training_set: TrainingSet) -> None:
    rare, noun = (class_token_embeddings(base_model, word) for word in (RARE_WORD, "mug"))
    of = {
        method: make_learner(base_model, training_set, method, subject_tokens=1)[0].concept().subject
        for method in ("textual_inversion", "custom_diffusion", "dreambooth")
    }
    assert torch.equal(of["textual_inversion"], noun.mean(dim=0, keepdim=True))
    assert torch.equal(of["custom_diffusion"], rare.mean(dim=0, keepdim=True))
    assert torch.equal(of["dreambooth"], rare)


def test_dreambooths_subject_reads_as_the_rare_word_does(base_model: BaseModel, training_set: TrainingSet) -> None:
    concept = make_learner(base_model, training_set, "dreambooth")[0].concept()
    named = tokenize(parse_prompt("a photo of a [m]"), {"m": concept}, base_model.tokenizer)
    plain = tokenize(parse_prompt(f"a photo of a {RARE_WORD} mug"), {}, base_model.tokenizer)
    assert named.length == plain.length


@pytest.mark.parametrize("rank", [None, 2])
def test_a_trained_unet_is_the_base_with_its_delta(base_model: BaseModel, rank: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    trained = TrainedUNet(base_model.unet, rank, generator)
    latents, hidden = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 77, 24, generator=generator)

    def predict(unet: UNet2DConditionModel) -> torch.Tensor:
        with torch.no_grad():
            prediction: torch.Tensor = unet(latents, torch.tensor([3]), hidden, return_dict=False)[0]
        return prediction

    assert trained.delta() == {}
    assert trained.delta_share() == 0
    torch.testing.assert_close(predict(trained.unet), predict(base_model.unet))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    delta = trained.delta()
    own, _ = unet_with_delta(base_model.unet, delta)
    torch.testing.assert_close(predict(own), predict(trained.unet), rtol=1e-4, atol=1e-4)
    assert (predict(own) - predict(base_model.unet)).abs().max() > 1e-3
    assert trained.delta_share() > 0
    names = {name for name, _ in base_model.unet.named_parameters()}
    if rank is None:
        assert set(delta) == names
        return
    ends = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    assert set(delta) == {name for name in names if ".attn" in name and name.endswith(ends)}
    assert all(isinstance(each, LowRankDelta) and each.rank == rank for each in delta.values())


@pytest.mark.parametrize(("method", "form"), [("dreambooth", "full"), ("dreambooth_lora", "low_rank")])
def test_artifacts_hold_the_unets_delta_in_the_form_asked_for(
    make_spec: MakeSpec,
    base_model: BaseModel,
    training_set: TrainingSet,
    store: FolderStore,
    method: str,
    form: str,
) -> None:
    spec = make_spec(method, steps=3, prior_images=1, delta_form=form, lora_rank=2, unet_learning_rate=0.01)
    manifest = train_concept(spec, training_set, store, RecordingReporter(), lambda: False)
    assert (manifest.method, manifest.unet.form, manifest.key_value.form) == (method, form, "none")
    archive = ConceptArchive(store)
    stored = archive.resolve("default", "my-mug", manifest.version)
    data = archive.read(stored, "concept.safetensors")
    concept = load_concept(manifest, data, base_model)
    assert all(bool(materialized(delta).any()) for delta in concept.unet_delta.values())
    parameters = dict(base_model.unet.named_parameters())
    whole_bytes = sum(4 * parameter.numel() for parameter in parameters.values())
    if method == "dreambooth":
        assert set(concept.unet_delta) == set(parameters)
        assert len(data) > whole_bytes
    else:
        assert manifest.unet.largest_rank == 2
        assert len(data) < 0.2 * whole_bytes


def test_only_learners_of_words_share_passes(base_model: BaseModel, training_set: TrainingSet) -> None:
    kinds = {method: make_learner(base_model, training_set, method)[0] for method in ("detex", "dreambooth")}
    assert isinstance(kinds["detex"], WordLearner)
    assert not hasattr(kinds["dreambooth"], "draw_step")
