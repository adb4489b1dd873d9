"""What a method does by default on each family of base models: told by shapes, with published recipes."""

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.full_size.architectures import SD15, SD21, SDXL, FullSize
from benchmarks.full_size.random_weights import random_model
from detex_showroom import base_model_path
from detex_trainer.domain.base_model_family import BaseModelFamily, family_of
from detex_trainer.domain.hyperparameters import (
    Method,
    PriorPreservation,
    default_hyperparameters,
    resolve_hyperparameters,
    trainable_methods,
)

EMBEDDED, SD, XL = BaseModelFamily
PUBLISHED: dict[tuple[BaseModelFamily, Method], dict[str, object]] = {
    (SD, Method.TEXTUAL_INVERSION): {"steps": 3000, "batch_size": 4, "subject_learning_rate": 4 * 5e-4},
    (XL, Method.TEXTUAL_INVERSION): {"steps": 500, "batch_size": 4, "subject_learning_rate": 4 * 5e-4},
    (SD, Method.DREAMBOOTH): {
        "steps": 800,
        "batch_size": 1,
        "unet_learning_rate": 5e-6,
        "prior_preservation": PriorPreservation.IMAGES,
        "prior_images": 200,
        "prior_loss_weight": 1,
    },
    (SD, Method.DREAMBOOTH_LORA): {"steps": 500, "batch_size": 1, "unet_learning_rate": 1e-4, "lora_rank": 4},
    (XL, Method.DREAMBOOTH_LORA): {"steps": 500, "batch_size": 4, "unet_learning_rate": 1e-4, "lora_rank": 4},
    (SD, Method.CUSTOM_DIFFUSION): {
        "steps": 250,
        "batch_size": 2,
        "key_value_learning_rate": 2 * 2 * 1e-5,
        "prior_preservation": PriorPreservation.IMAGES,
        "prior_images": 200,
        "prior_loss_weight": 1,
    },
}


@pytest.mark.parametrize(("architecture", "family"), [(SD15, SD), (SD21, SD), (SDXL, XL)])
def test_families_are_told_by_random_weights_of_their_shapes(architecture: FullSize, family: BaseModelFamily) -> None:
    def build() -> UNet2DConditionModel:
        # As published but for the number and width of its blocks.
        small: dict[str, Any] = {
            "block_out_channels": (32, 32),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "transformer_layers_per_block": 1,
        }
        return UNet2DConditionModel(**{**architecture.unet, **small})

    unet = random_model(build, torch.device("cpu"), torch.float16, torch.Generator().manual_seed(0))
    assert family_of(unet.config) is family
    assert family_of(json.loads(unet.to_json_string())) is family


def test_the_embedded_model_is_a_family_of_its_own() -> None:
    config = json.loads((base_model_path() / "unet" / "config.json").read_text())
    assert family_of(config) is EMBEDDED
    # diffusers' own width, where a config names none.
    assert family_of({"sample_size": 64}) is SD


@pytest.mark.parametrize(("family", "method"), PUBLISHED)
def test_defaults_are_those_of_published_recipes(family: BaseModelFamily, method: Method) -> None:
    defaults = default_hyperparameters(method, family)
    for name, value in PUBLISHED[(family, method)].items():
        assert getattr(defaults, name) == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize("method", trainable_methods())
@pytest.mark.parametrize("family", BaseModelFamily)
def test_defaults_are_accepted_as_they_are(family: BaseModelFamily, method: Method) -> None:
    defaults = default_hyperparameters(method, family)
    assert resolve_hyperparameters(method, {}, family) == defaults
    assert resolve_hyperparameters(method, defaults.model_dump(), EMBEDDED) == defaults
    if family is not EMBEDDED:
        assert defaults != default_hyperparameters(method)


def test_knobs_that_are_set_are_set_on_any_family() -> None:
    resolved = resolve_hyperparameters("dreambooth", {"steps": 7}, SD)
    assert (resolved.steps, resolved.unet_learning_rate) == (7, 5e-6)
