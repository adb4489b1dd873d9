"""What a folder of Stable Diffusion XL must be, and concepts of its words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from detex_core.errors import DataLossError, FailedPreconditionError
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.concept_file import load_concept, save_concept
from tests.diffusion.concepts import manifest_of, random_concept
from tests.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("xl") / "tiny", "sdxl")


@pytest.fixture(scope="module")
def xl(original: Path) -> BaseModel:
    return loaded(original)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "xl"))


def loaded(folder: Path) -> BaseModel:
    return load_base_model(BaseModelSettings(name="xl", source=str(folder)))


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def swap_two_words(folder: Path) -> None:
    path = folder / "tokenizer_2" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["mug</w>"], vocabulary["snow</w>"] = vocabulary["snow</w>"], vocabulary["mug</w>"]
    path.write_text(json.dumps(content))


def as_refiner(folder: Path) -> None:
    change_json(folder / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])


def without_conditions(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    config = {**unet.config, "addition_embed_type": None, "projection_class_embeddings_input_dim": None}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")


def with_an_aesthetic_score(folder: Path) -> None:
    """As refiners and models of further numbers have it."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    config = {**unet.config, "projection_class_embeddings_input_dim": 28 + 5 * 8}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (swap_two_words, "its two tokenizers must differ in their padding only"),
        (as_refiner, "text_encoder must be CLIPTextModel, got None; supported are Stable Diffusion 1.x"),
        (without_conditions, "conditions other than those its text encoders provide; supported are Stable Diffusion"),
        (
            with_an_aesthetic_score,
            "takes added conditions of width 68; the pooled text and 6 numbers on the size .* 76",
        ),
    ],
)
def test_others_are_refused(folder: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(folder)
    with pytest.raises(FailedPreconditionError, match=sentence):
        loaded(folder)


@pytest.mark.parametrize("part", ["text_encoder_2/model.safetensors", "tokenizer_2/tokenizer.json"])
def test_a_part_that_is_missing_is_told(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(DataLossError, match=part.split("/")[0]):
        loaded(folder)


@pytest.mark.parametrize(
    "part",
    ["text_encoder_2/config.json", "text_encoder_2/model.safetensors", "tokenizer_2/tokenizer_config.json"],
)
def test_the_fingerprint_covers_the_second_encoder(folder: Path, xl: BaseModel, part: str) -> None:
    assert loaded(folder).fingerprint == xl.fingerprint
    path = folder / part
    if path.suffix == ".json":
        path.write_text(path.read_text() + "\n")
    else:
        write_tiny_model(folder.parent / "other", "sdxl", seed=1)
        shutil.copy(folder.parent / "other" / part, path)
    assert loaded(folder).fingerprint != xl.fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_concept_of_two_encoders_comes_back(xl: BaseModel, dtype: torch.dtype) -> None:
    concept = random_concept(xl, 3, subject_tokens=2)
    assert concept.subject.shape == (2, 64)
    data = save_concept(concept, dtype)
    manifest = manifest_of(xl, concept, data, dtype="float32" if dtype is torch.float32 else "float16")
    assert manifest.embedding_width == 64
    again = load_concept(manifest, data, xl)
    for name, tensor in concept.tensors().items():
        assert torch.equal(again.tensors()[name], tensor.to(dtype).float()), name


def test_a_concept_of_one_encoder_is_refused(xl: BaseModel) -> None:
    concept = random_concept(xl, 3)
    cut = type(concept)(**{**vars(concept), "subject": concept.subject[:, :24]})
    data = save_concept(cut, torch.float32)
    manifest = manifest_of(xl, cut, data, embedding_width=24, dtype="float32")
    with pytest.raises(DataLossError, match="its words have 24 numbers, not 64"):
        load_concept(manifest, data, xl)
