import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from detex_core.errors import DataLossError, FailedPreconditionError
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from tests.tiny_models import write_tiny_model


def settings(source: Path | str, image_encoder: Path | str | None = None) -> BaseModelSettings:
    return BaseModelSettings(
        name="tiny", source=str(source), image_encoder_source=None if image_encoder is None else str(image_encoder)
    )


@pytest.fixture
def folder(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(model_folders["sd1"], tmp_path / "copy"))


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def change_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def test_what_a_base_model_says(base_model: BaseModel) -> None:
    assert base_model.latent_shape() == (4, 8, 8)
    assert base_model.latent_shape(24, 40) == (4, 12, 20)
    assert (base_model.height, base_model.width) == (16, 16)
    assert (base_model.prompt_tokens, base_model.embedding_width) == (77, 24)
    assert base_model.size_multiple == 2


def test_everything_is_frozen(base_model: BaseModel) -> None:
    modules = base_model.modules()
    assert len(modules) == 4
    for module in modules:
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_fingerprint_is_of_the_contents(model_folders: dict[str, Path], folder: Path, tmp_path: Path) -> None:
    original = load_base_model(settings(model_folders["sd1"])).fingerprint
    moved = tmp_path / "elsewhere" / "under another name"
    shutil.copytree(folder, moved)
    assert load_base_model(settings(moved), dtype=torch.float16).fingerprint == original
    # What a concept does not depend on does not count.
    shutil.rmtree(moved / "image_encoder")
    change_json(moved / "vae" / "config.json", sample_size=32)
    (moved / "README.md").write_text("another")
    assert load_base_model(settings(moved)).fingerprint == original


@pytest.mark.parametrize(
    "part", ["tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json", "unet/config.json"]
)
def test_the_fingerprint_notices_every_part(folder: Path, part: str) -> None:
    original = load_base_model(settings(folder)).fingerprint
    with (folder / part).open("a") as file:
        file.write("\n")
    assert load_base_model(settings(folder)).fingerprint != original


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_the_fingerprint_notices_one_weight(folder: Path, part: str) -> None:
    original = load_base_model(settings(folder)).fingerprint
    path = folder / f"{part}.safetensors"
    times = path.stat()
    tensors = safetensors.torch.load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    assert path.stat().st_size == times.st_size
    assert load_base_model(settings(folder)).fingerprint != original


def test_half_precision_files_serve_where_there_are_no_others(folder: Path) -> None:
    wanted = load_base_model(settings(folder), dtype=torch.float16)
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = folder / part / f"{stem}.safetensors"
        tensors = {name: tensor.half() for name, tensor in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(tensors, path.with_name(f"{stem}.fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    got = load_base_model(settings(folder))
    assert got.unet.dtype == got.text_encoder.dtype == torch.float32
    for name, parameter in wanted.unet.named_parameters():
        assert torch.equal(got.unet.get_parameter(name).half(), parameter)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)


def drop_tensor(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    tensors.pop(sorted(tensors)[3])
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def reshape_tensor(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    name = sorted(name for name, tensor in tensors.items() if tensor.ndim == 2)[0]
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def add_tensor(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "stranger": torch.zeros(3)}, path, metadata={"format": "pt"})


DAMAGES = (truncate, flip_header, drop_tensor, reshape_tensor, add_tensor, Path.unlink)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        *[("unet/diffusion_pytorch_model", damage) for damage in DAMAGES],
        *[("text_encoder/model", damage) for damage in DAMAGES],
        ("vae/diffusion_pytorch_model", drop_tensor),
        ("image_encoder/model", drop_tensor),
    ],
)
def test_damaged_weights_are_refused(folder: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(folder / f"{part}.safetensors")
    with pytest.raises(DataLossError, match=part.split("/")[0]):
        load_base_model(settings(folder))


@pytest.mark.parametrize(
    "part",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "image_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    ],
)
@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", "\udcff"])
def test_damaged_configs_are_refused(folder: Path, part: str, content: str | None) -> None:
    if content is None:
        (folder / part).unlink()
    else:
        (folder / part).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataLossError, match=part.rsplit("/", 1)[-1]):
        load_base_model(settings(folder))


@pytest.mark.parametrize("part", ["vocab.json", "merges.txt"])
def test_a_damaged_tokenizer_is_refused(folder: Path, part: str) -> None:
    (folder / "tokenizer" / part).write_text("{]")
    with pytest.raises(DataLossError, match="tokenizer"):
        load_base_model(settings(folder))
    (folder / "tokenizer" / part).unlink()
    with pytest.raises(DataLossError, match=r"lacks tokenizer\.json"):
        load_base_model(settings(folder))


def test_pickles_are_refused(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.with_suffix(".bin").write_bytes(pickle.dumps({"weights": os.getcwd}))
    path.unlink()
    with pytest.raises(FailedPreconditionError, match="pickle, which can run code when read"):
        load_base_model(settings(folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_in_several_files_are_read(folder: Path, part: str) -> None:
    whole = load_base_model(settings(folder))
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    getattr(whole, part).save_pretrained(folder / part, max_shard_size="20KB")
    assert len(list((folder / part).glob("*.safetensors"))) > 1
    spread = load_base_model(settings(folder))
    for name, tensor in getattr(whole, part).state_dict().items():
        assert torch.equal(getattr(spread, part).state_dict()[name], tensor), name
    before = spread.fingerprint
    last = max((folder / part).glob("*.safetensors"))
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    assert load_base_model(settings(folder)).fingerprint != before
    last.unlink()
    with pytest.raises(DataLossError, match=f"{last.name} is missing, which .*index.json names"):
        load_base_model(settings(folder))


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": "../vae/a.safetensors"}}])
def test_an_index_of_weights_that_names_no_files_is_refused(folder: Path, index: dict[str, object]) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    path.unlink()
    with pytest.raises(DataLossError, match="which file of its folder"):
        load_base_model(settings(folder))


def test_other_pipelines_are_refused(folder: Path) -> None:
    change_json(folder / "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(FailedPreconditionError, match=r"tokenizer_2 must be .*, got None"):
        load_base_model(settings(folder))
    change_json(folder / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"], text_encoder_2=None)
    with pytest.raises(FailedPreconditionError, match=r"unet must be .*, got 'FluxTransformer2DModel'"):
        load_base_model(settings(folder))


def test_parts_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    for change, sentence in (
        ({"cross_attention_dim": 32}, "reads text of width 32, the text encoders write 24"),
        ({"in_channels": 9}, "takes 9 and gives 4 channels"),
        ({"class_embed_type": "timestep"}, "conditions other than those"),
    ):
        UNet2DConditionModel.from_config({**unet.config, **change}).save_pretrained(folder / "unet")
        with pytest.raises(FailedPreconditionError, match=sentence):
            load_base_model(settings(folder))


def test_image_features_are_transformers(base_model: BaseModel) -> None:
    pictures = [picture(1), picture(2, 50, 31)]
    features = base_model.image_features(pictures)
    assert features.shape == (2, 16)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    encoder = CLIPVisionModelWithProjection.from_pretrained(base_model.folder / "image_encoder")
    with torch.no_grad():
        wanted = encoder(**processor(images=pictures, return_tensors="pt")).image_embeds
    torch.testing.assert_close(features, wanted)


def test_an_image_encoder_from_elsewhere(folder: Path, tmp_path: Path, base_models: dict[str, BaseModel]) -> None:
    elsewhere = tmp_path / "encoder"
    shutil.move(folder / "image_encoder", elsewhere)
    bare = load_base_model(settings(folder))
    assert bare.image_encoder is None
    with pytest.raises(FailedPreconditionError, match="has no image encoder; set image_encoder_source"):
        bare.image_features([picture(1)])
    whole = load_base_model(settings(folder, image_encoder=elsewhere))
    assert torch.equal(whole.image_features([picture(1)]), base_models["sd1"].image_features([picture(1)]))


def test_the_image_processor_of_the_folder_counts(folder: Path, base_models: dict[str, BaseModel]) -> None:
    place = folder / "feature_extractor"
    place.mkdir()
    config = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "crop_size": 32,
        "size": 32,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (place / "preprocessor_config.json").write_text(json.dumps(config))
    features = load_base_model(settings(folder)).image_features([picture(1)])
    assert float((features - base_models["sd1"].image_features([picture(1)])).abs().max()) > 1e-3
    (place / "preprocessor_config.json").write_text(json.dumps({**config, "crop_size": 24}))
    with pytest.raises(FailedPreconditionError, match="crops to 24 by 24 pixels, the encoder reads 32 by 32"):
        load_base_model(settings(folder))


def test_the_tiny_models_are_the_same_every_time(tmp_path: Path, base_models: dict[str, BaseModel]) -> None:
    again = load_base_model(settings(write_tiny_model(tmp_path / "again", "sd1")))
    assert again.fingerprint == base_models["sd1"].fingerprint
