import math

import pytest

from detex_core.errors import InvalidInputError
from detex_protos.v1 import trainer_pb2
from detex_trainer.domain.hyperparameters import (
    DeltaForm,
    Hyperparameters,
    Method,
    PriorPreservation,
    default_hyperparameters,
    resolve_hyperparameters,
    trainable_methods,
)

ACCEPTED = {
    "steps": [1, 20_000],
    "batch_size": [1, 64],
    "subject_learning_rate": [1e-9, 1, 1.0],
    "mapper_learning_rate": [1e-9, 1.0],
    "key_value_learning_rate": [1e-9, 1.0],
    "attention_loss_weight": [0, 10.0],
    "mask_floor": [0, 1.0],
    "attribute_keep_probability": [0, 1],
    "subject_tokens": [1, 8],
    "seed": [0, 2**32 - 1],
    "resolution": [0, 32, 64, 512, 2048],
    "preview_interval_steps": [0, 20_000],
    "delta_form": [DeltaForm.FULL, "low_rank"],
    "low_rank_energy": [1e-6, 1],
    "prior_loss_weight": [0, 10],
    "prior_preservation": [PriorPreservation.NONE, "images", "prompt", "key_values"],
    "prior_images": [1, 1000],
    "unet_learning_rate": [1e-9, 1.0],
    "lora_rank": [1, 256],
    "attribute_start": ["noun", "plain_words"],
    "mapper_layers": [1, 8],
    "mapper_fixed_norm": [True, False],
    "attention_map_side": [0, 16, 256],
    "subject_start": ["class_word", "rare_word", "plain_words"],
    "subject_key_value_learning_rate": [0, 0.04, 1],
}
REFUSED = {
    "steps": [0, 20_001, 1.5, "10", True, None],
    "batch_size": [0, 65],
    "subject_learning_rate": [0, -1e-3, 1.1, math.nan, math.inf, "1e-3"],
    "mapper_learning_rate": [0, 2],
    "key_value_learning_rate": [0, 2],
    "attention_loss_weight": [-0.1, 10.1, math.nan],
    "mask_floor": [-0.1, 1.1],
    "attribute_keep_probability": [-0.1, 1.1],
    "subject_tokens": [0, 9],
    "seed": [-1, 2**32],
    "resolution": [8, 12, 100, 2056, -8],
    "preview_interval_steps": [-1, 20_001],
    "delta_form": ["thin", 1],
    "low_rank_energy": [0, 1.01],
    "prior_loss_weight": [-1, 11],
    "prior_preservation": ["photos", 1],
    "prior_images": [0, 1001],
    "unet_learning_rate": [0, 2],
    "lora_rank": [0, 257],
    "attribute_start": ["verb", 1],
    "mapper_layers": [0, 9, 1.5],
    "mapper_fixed_norm": [1, "true"],
    "attention_map_side": [-1, 257],
    "subject_start": ["noun", 2],
    "subject_key_value_learning_rate": [-0.1, 2],
}


def test_knobs_are_those_of_the_contract() -> None:
    contract = {field.name for field in trainer_pb2.Hyperparameters.DESCRIPTOR.fields}
    assert set(Hyperparameters.model_fields) == contract == set(ACCEPTED) == set(REFUSED)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ACCEPTED.items() for value in values])
def test_values_within_range_are_taken(name: str, value: object) -> None:
    resolved = resolve_hyperparameters("detex", {name: value})
    assert getattr(resolved, name) == value
    others = resolved.model_dump(exclude={name})
    assert others == default_hyperparameters("detex").model_dump(exclude={name})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve_hyperparameters("detex", {name: value})
    (violation,) = caught.value.violations
    assert violation.field == f"hyperparameters.{name}"
    assert violation.given == str(value)
    assert violation.accepted


def test_all_wrong_knobs_are_told_at_once() -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve_hyperparameters("detex", {"steps": 0, "mask_floor": 2, "speed": 1})
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"hyperparameters.steps", "hyperparameters.mask_floor", "hyperparameters.speed"}


@pytest.mark.parametrize("method", list(Method))
def test_every_method_has_defaults(method: Method) -> None:
    assert method in trainable_methods()
    assert default_hyperparameters(method).steps > 0


def test_a_method_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError) as caught:
        default_hyperparameters("magic")
    (violation,) = caught.value.violations
    assert violation.field == "method"
    assert all(trainable in violation.accepted for trainable in trainable_methods())


@pytest.mark.parametrize(
    ("method", "kind"),
    [("textual_inversion", "images"), ("dreambooth", "key_values"), ("dreambooth_lora", "key_values")],
)
def test_a_prior_that_a_method_cannot_lose_is_not_preserved(method: str, kind: str) -> None:
    with pytest.raises(InvalidInputError, match=f"prior_preservation.*must be none.*{method}, got {kind}"):
        resolve_hyperparameters(method, {"prior_preservation": kind})


@pytest.mark.parametrize("method", ["dreambooth", "dreambooth_lora"])
@pytest.mark.parametrize("start", ["class_word", "plain_words"])
def test_a_word_that_is_not_trained_begins_at_a_rare_word(method: str, start: str) -> None:
    with pytest.raises(InvalidInputError, match=f"subject_start.*must be rare_word.*{method}, got {start}"):
        resolve_hyperparameters(method, {"subject_start": start})


def test_jobs_of_before_know_nothing_of_later_knobs() -> None:
    knobs = default_hyperparameters("detex").model_dump(mode="json")
    for later in (
        "prior_preservation",
        "prior_images",
        "unet_learning_rate",
        "lora_rank",
        "mapper_layers",
        "mapper_fixed_norm",
        "attention_map_side",
    ):
        del knobs[later]
    assert Hyperparameters.model_validate(knobs) == default_hyperparameters("detex")


def test_json_keeps_every_knob() -> None:
    resolved = resolve_hyperparameters("detex", {"seed": 2**32 - 1, "delta_form": "full", "mask_floor": 1})
    assert Hyperparameters.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize("method", ["dreambooth", "dreambooth_lora"])
def test_methods_that_train_the_unet_take_no_vectors(method: str) -> None:
    assert resolve_hyperparameters(method, {"subject_key_value_learning_rate": 0}).subject_key_value_learning_rate == 0
    with pytest.raises(InvalidInputError, match="0 for the method"):
        resolve_hyperparameters(method, {"subject_key_value_learning_rate": 0.04})
