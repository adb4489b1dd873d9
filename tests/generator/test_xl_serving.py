"""A generator that serves Stable Diffusion XL beside Stable Diffusion 1.x: equality with diffusers, and company."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

from detex_core.artifact import StoredManifest
from detex_core.errors import DetexError
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_generator.base_models import BaseModels
from detex_protos.v1.generator_pb2 import ListBaseModelsRequest
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import (
    RunningGenerator,
    Solver,
    generator_settings,
    pixels,
    refusal_of,
    running,
    signal_to_noise_decibels,
)
from tests.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def folders(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "tiny": model_folders["tiny"],
        "xl": write_tiny_model(tmp_path_factory.mktemp("models") / "xl", "sdxl", seed=2),
    }


@pytest.fixture(scope="module")
def xl(folders: dict[str, Path]) -> BaseModel:
    return load_base_model(BaseModelSettings(name="xl", source=str(folders["xl"])))


@pytest.fixture(scope="module")
def products(store: FolderStore, xl: BaseModel, concepts: dict[str, StoredManifest]) -> dict[str, StoredManifest]:
    """Two concepts of XL in the store that also holds those of the other base models."""
    return {name: publish(store, xl, name, random_concept(xl, seed)) for seed, name in enumerate(("xl-mug", "xl-bowl"))}


@pytest.fixture(scope="module")
def serving(
    folders: dict[str, Path], store_folder: Path, products: dict[str, StoredManifest]
) -> Iterator[RunningGenerator]:
    with running(generator_settings(folders, store_folder, slots=8)) as started:
        yield started


def test_both_kinds_are_listed(serving: RunningGenerator, xl: BaseModel) -> None:
    listed = serving.stub.ListBaseModels(ListBaseModelsRequest()).base_models
    assert [(each.name, each.is_default) for each in listed] == [("tiny", True), ("xl", False)]
    assert (listed[1].fingerprint, listed[1].width, listed[1].height) == (xl.fingerprint, 16, 16)


@pytest.mark.parametrize(("guidance", "negative"), [(5.0, ""), (4.0, "snow at night"), (1.0, "")])
def test_images_are_the_pipelines(
    serving: RunningGenerator, folders: dict[str, Path], guidance: float, negative: str
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folders["xl"], add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    (wanted,) = pipeline(
        "a red mug on a beach",
        negative_prompt=negative or None,
        guidance_scale=guidance,
        num_inference_steps=4,
        height=24,
        width=32,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="pil",
    ).images
    (drawn,) = serving.draw(
        prompt="a red mug on a beach",
        negative_prompt=negative,
        guidance_scale=guidance,
        steps=4,
        height=24,
        width=32,
        seed=7,
        base_model="xl",
        solver=Solver.SOLVER_EULER,
    )
    difference = np.abs(pixels(drawn.png) - np.asarray(wanted.convert("RGB"), dtype=np.int16))
    assert difference.max() <= 1  # rounding to 8 bits


REQUESTS: list[dict[str, Any]] = [
    {"prompt": "[xl-mug] on a beach", "base_model": "xl", "seed": 1, "steps": 6},
    {"prompt": "[xl-bowl] in [xl-mug:background:1] background", "base_model": "xl", "seed": 2, "steps": 5},
    {"prompt": "a vase", "negative_prompt": "[xl-mug]", "base_model": "xl", "seed": 3, "steps": 7},
    {"prompt": "a lamp", "base_model": "xl", "seed": 4, "steps": 4, "guidance_scale": 1.0},
    {"prompt": "a wide table", "base_model": "xl", "seed": 5, "steps": 4, "width": 32, "height": 24},
    {"prompt": "[my-mug] on a beach", "base_model": "tiny", "seed": 1, "steps": 6},
    {"prompt": "[my-bowl]", "seed": 8, "steps": 5, "solver": Solver.SOLVER_EULER},
]


def test_images_are_the_same_in_any_company(serving: RunningGenerator) -> None:
    """Concepts, sizes, steps, guidance and base models mixed; none changes another's picture."""
    alone = [pixels(serving.draw(**request)[0].png) for request in REQUESTS]
    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        together = list(pool.map(lambda request: pixels(serving.draw(**request)[0].png), REQUESTS))
    for one, other in zip(alone, together, strict=True):
        assert signal_to_noise_decibels(one, other) >= 50
    assert signal_to_noise_decibels(alone[0], alone[5]) < 40  # the base model counts


def test_a_concept_of_another_kind_is_refused(serving: RunningGenerator) -> None:
    refusal = refusal_of(serving.start(prompt="[my-mug]", base_model="xl"))
    assert refusal.reason == "BASE_MODEL_MISMATCH"


def test_a_photo_is_drawn_over_and_places_are_kept(serving: RunningGenerator) -> None:
    (photo,) = serving.draw(prompt="a mug", base_model="xl", seed=1, steps=3, width=32, height=32)
    edit = {"kind": "EDIT_KIND_IMAGE_TO_IMAGE", "image": photo.png, "strength": 0.5}
    drawn = [
        pixels(serving.draw(prompt=text, base_model="xl", seed=1, steps=4, edit=edit)[0].png)
        for text in ("[xl-mug]", "[xl-bowl]")
    ]
    assert signal_to_noise_decibels(*drawn) < 45
    regions = [
        {"concept": "xl-mug", "box": {"left": 0.0, "top": 0.0, "right": 0.5, "bottom": 1.0}},
        {"concept": "xl-bowl", "box": {"left": 0.5, "top": 0.0, "right": 1.0, "bottom": 1.0}},
    ]
    request = {"prompt": "[xl-mug] and [xl-bowl]", "base_model": "xl", "seed": 1, "steps": 3}
    placed = pixels(serving.draw(**request, regions=regions)[0].png)
    assert signal_to_noise_decibels(placed, pixels(serving.draw(**request)[0].png)) < 45


def test_base_models_that_do_not_fit_are_refused(
    folders: dict[str, Path], store_folder: Path, xl: BaseModel, base_models: dict[str, BaseModel]
) -> None:
    store = FolderStore(store_folder)
    both = base_models["tiny"].size_bytes + xl.size_bytes

    def loaded(limit_bytes: int, *, pack_weights: bool) -> BaseModels:
        settings = generator_settings(folders, store_folder, base_model_bytes=limit_bytes, pack_weights=pack_weights)
        models = BaseModels(settings, store)
        models.load()
        return models

    assert [each.settings.name for each in loaded(both, pack_weights=False).all()] == ["tiny", "xl"]
    for limit_bytes, pack_weights in ((both - 1, False), (2 * both - 2, True)):
        with pytest.raises(DetexError) as caught:
            loaded(limit_bytes, pack_weights=pack_weights)
        assert caught.value.reason == "BASE_MODEL_DOES_NOT_FIT"
        assert (
            f"Base model 'xl' takes {xl.size_bytes:,} bytes as float32, and {xl.size_bytes - 1:,} bytes are left"
            in (caught.value.message)
        )
