"""What training may change: subject embedding, mappers, key and value deltas, and not one bit of anything else."""

import hashlib
from collections.abc import Iterator

import pytest
import torch

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods.photo_prompts import PhotoPrompt
from detex_trainer.learning.methods.word_learner import WordLearner
from detex_trainer.learning.photos.dataset import PhotoBatches
from detex_trainer.learning.training.loop import train
from detex_trainer.learning.training.run import TrainingRun, draw_noise
from tests.trainer_method.learners import make_learner, make_word_learner

METHODS = ["detex", "textual_inversion", "custom_diffusion", "dreambooth", "dreambooth_lora"]


def tensors(base_model: BaseModel) -> Iterator[tuple[str, torch.Tensor]]:
    for part, module in enumerate(base_model.modules()):
        for name, tensor in module.state_dict().items():
            yield f"{part}.{name}", tensor


def fingerprints(base_model: BaseModel) -> dict[str, str]:
    return {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in tensors(base_model)}


@pytest.mark.parametrize("method", METHODS)
def test_training_leaves_every_tensor_of_the_base_model_as_it_was(
    base_model: BaseModel, training_set: TrainingSet, method: str
) -> None:
    before = fingerprints(base_model)
    assert any("token_embedding" in name for name in before)
    assert any("attn2.to_k" in name for name in before)
    attributes = "pose background" if method == "detex" else ""
    learner, photo_set = make_learner(
        base_model,
        training_set,
        method,
        attributes,
        steps=4,
        prior_loss_weight=0.1,
        key_value_learning_rate=0.1,
        unet_learning_rate=0.1,
    )
    start = [p.detach().clone() for group in learner.parameter_groups() for p in group.parameters]
    generator = torch.Generator().manual_seed(0)
    hyperparameters = resolve_hyperparameters(method, {"steps": 4})
    train(TrainingRun(learner, photo_set, base_model.noise_schedule, hyperparameters, generator), (), lambda: False)
    end = [p for group in learner.parameter_groups() for p in group.parameters]
    assert all(not torch.equal(old, new) for old, new in zip(start, end, strict=True))
    assert fingerprints(base_model) == before
    for module in base_model.modules():
        for parameter in module.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad


@pytest.mark.parametrize(
    ("method", "groups"),
    [
        ("detex", {"subject", "mappers", "key_value", "subject_key_value"}),
        ("textual_inversion", {"subject"}),
        ("custom_diffusion", {"subject", "key_value"}),
        ("dreambooth", {"unet"}),
        ("dreambooth_lora", {"unet"}),
    ],
)
def test_gradients_reach_all_that_is_trained(
    base_model: BaseModel, training_set: TrainingSet, method: str, groups: set[str]
) -> None:
    attributes = "pose background lighting" if method == "detex" else ""
    vectors = {"subject_key_value_learning_rate": 0.04} if "subject_key_value" in groups else {}
    learner, photo_set = make_learner(
        base_model, training_set, method, attributes, attribute_keep_probability=1.0, **vectors
    )
    # where mappers and deltas begin at zero, some of their gradients are zero by construction
    with torch.no_grad():
        for group in learner.parameter_groups():
            for parameter in group.parameters:
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(0)
    batch = next(PhotoBatches(photo_set, 4, generator))
    noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
    learner.losses(batch, noise, generator)["total"].backward()
    assert {group.name for group in learner.parameter_groups()} == groups
    for group in learner.parameter_groups():
        for index, parameter in enumerate(group.parameters):
            assert parameter.grad is not None, (group.name, index)
            assert parameter.grad.abs().max() > 0, (group.name, index)
    if isinstance(learner, WordLearner):
        trained = {id(p) for group in learner.parameter_groups() for p in group.parameters}
        assert trained == {id(p) for p in learner.words.parameters()}


def test_attention_loss_alone_moves_words_and_keys(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_word_learner(base_model, training_set, "background", attribute_keep_probability=1.0)
    generator = torch.Generator().manual_seed(0)
    batch = next(PhotoBatches(photo_set, 4, generator))
    noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
    loss = learner.losses(batch, noise, generator)["attention"]
    (gradient,) = torch.autograd.grad(loss, [learner.words.subject], retain_graph=True)
    assert gradient.abs().max() > 0
    keys = [delta for index, delta in enumerate(learner.words.deltas) if index % 2 == 0]
    gradients = torch.autograd.grad(loss, keys, allow_unused=True)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_words_of_the_scope_words_leave_the_rest_of_the_prompt_alone(
    base_model: BaseModel, training_set: TrainingSet
) -> None:
    """With any deltas, a prompt without words of the concept is predicted as by the base model."""
    predictions = []
    for size in (0.0, 0.5):
        learner, photo_set = make_word_learner(
            base_model,
            training_set,
            "background",
            attribute_keep_probability=1.0,
            subject_key_value_learning_rate=0.04,
        )
        with torch.no_grad():
            for added in (*learner.words.deltas, *learner.words.vectors):
                added.fill_(size)
        batch = photo_set.batch([0, 1], [0, 0])
        generator = torch.Generator().manual_seed(0)
        noise = draw_noise(batch.latents, base_model.noise_schedule, generator)
        plain = [PhotoPrompt(parse_prompt("a photo of a mug"), frozenset())] * 2
        worded = [learner.prompts.full(index) for index in (0, 1)]
        with torch.no_grad():
            predictions.append(
                [learner.run(batch, noise, each, with_attention=False).prediction for each in (plain, worded)]
            )
    assert torch.equal(predictions[0][0], predictions[1][0])
    assert not torch.allclose(predictions[0][1], predictions[1][1])
