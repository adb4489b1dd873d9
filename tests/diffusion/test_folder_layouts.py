"""Folders as others save them: what the generator loads and the trainer describes, and what both refuse by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from transformers import CLIPTokenizer

from detex_core.errors import DataLossError, DetexError, FailedPreconditionError
from tests.diffusion.folders import (
    EDM,
    STATISTICS,
    TURBO,
    Change,
    change_json,
    described,
    load,
    scheduler,
    with_scheduler,
)
from tests.tiny_models import DDIM_VELOCITY_ZERO_SNR, PNDM_EPSILON

UNSUPPORTED, DAMAGED = FailedPreconditionError, DataLossError
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 3438167534\n"


# Layouts that are loaded ------------------------------------------------------------------------------------------


def as_half(folder: Path) -> None:
    for path in list(folder.glob("*/*.safetensors")):
        tensors = {name: tensor.half() for name, tensor in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file(tensors, path.with_name(f"{path.stem}.fp16.safetensors"), {"format": "pt"})
        path.unlink()


def as_shards(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="20KB")


def beside_pickles_and_others(folder: Path) -> None:
    """As runwayml/stable-diffusion-v1-5: every kind of weights side by side, and parts that are not read."""
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.non_ema.bin"):
        (folder / "unet" / name).write_bytes(b"\x80\x04.")
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(plain, plain.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    (folder / "v1-5-pruned.safetensors").write_bytes(b"not looked at")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")
    change_json(
        "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )(folder)


def with_averaging_keys(folder: Path) -> None:
    """As diffusers' example scripts save the average of weights."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    EMAModel(unet.parameters(), model_cls=UNet2DConditionModel, model_config=unet.config).save_pretrained(
        folder / "unet"
    )
    assert "optimization_step" in (folder / "unet" / "config.json").read_text()


def tokenizer_of_transformers_5(folder: Path) -> None:
    place = folder / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(place)
    shutil.rmtree(place)
    tokenizer.save_pretrained(place)
    assert (place / "tokenizer.json").is_file()
    for name in ("vocab.json", "merges.txt"):
        (place / name).unlink(missing_ok=True)


def tokenizer_of_transformers_4(folder: Path) -> None:
    word = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    change_json(
        "tokenizer/tokenizer_config.json",
        add_prefix_space=False,
        bos_token={**word, "content": "<|startoftext|>"},
        clean_up_tokenization_spaces=True,
        eos_token={**word, "content": "<|endoftext|>"},
        errors="replace",
        name_or_path="openai/clip-vit-large-patch14",
        special_tokens_map_file="./special_tokens_map.json",
        unk_token={**word, "content": "<|endoftext|>"},
    )(folder)


def text_config_of_transformers_4(folder: Path) -> None:
    change_json(
        "text_encoder/config.json",
        _name_or_path="openai/clip-vit-large-patch14",
        dropout=0.0,
        initializer_factor=1.0,
        output_attentions=False,
        torch_dtype="float32",
        transformers_version="4.21.0.dev0",
        use_bfloat16=False,
        top_p=1.0,
    )(folder)


LOADED: dict[str, tuple[str, Change]] = {
    "plain": ("sd1", lambda folder: None),
    "fp16 variant": ("sd1", as_half),
    "fp16 variant of XL": ("sdxl", as_half),
    "sharded": ("sd2", as_shards),
    "beside pickles, non-EMA weights and a safety checker": ("sd1", beside_pickles_and_others),
    "keys of an average of weights": ("sd1", with_averaging_keys),
    "tokenizer of transformers 5": ("sd1", tokenizer_of_transformers_5),
    "tokenizer of transformers 4": ("sd1", tokenizer_of_transformers_4),
    "text encoder of transformers 4": ("sd1", text_config_of_transformers_4),
    "LMS, which diffusers builds with scipy alone": (
        "sd1",
        with_scheduler({**PNDM_EPSILON, "_class_name": "LMSDiscreteScheduler"}),
    ),
    "DPM++ SDE, which wants torchsde": (
        "sd1",
        with_scheduler({**PNDM_EPSILON, "_class_name": "DPMSolverSDEScheduler"}),
    ),
    "LCM's scheduler": ("sd1", with_scheduler({**PNDM_EPSILON, "_class_name": "LCMScheduler"})),
    "zero terminal SNR": ("sd2", with_scheduler(DDIM_VELOCITY_ZERO_SNR)),
    "Turbo": ("sdxl", with_scheduler(TURBO)),
    "XL base": ("sdxl", lambda folder: None),
    "VAE mended for fp16": ("sdxl", change_json("vae/config.json", force_upcast=False)),
    "VAE with latent statistics": ("sdxl", change_json("vae/config.json", **STATISTICS)),
    "unknown keys that are switched off": ("sd1", scheduler(use_something_new=False, note=None)),
    "XL pipeline for pictures": (
        "sdxl",
        change_json(
            "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline", requires_aesthetics_score=False
        ),
    ),
}


@pytest.mark.parametrize("layout", list(LOADED))
def test_known_layouts_are_loaded_and_described(copy: Callable[[str], Path], layout: str) -> None:
    kind, change = LOADED[layout]
    folder = copy(kind)
    change(folder)
    model, description = load(folder), described(folder)
    assert description.fingerprint == model.fingerprint
    assert (description.height, description.width) == (model.height, model.width) == (16, 16)
    assert description.prediction_type == model.noise_schedule.prediction_type


# Layouts that are refused -----------------------------------------------------------------------------------------


def with_nine_channels(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    UNet2DConditionModel.from_config({**unet.config, "in_channels": 9}).save_pretrained(folder / "unet")
    change_json("model_index.json", _class_name="StableDiffusionInpaintPipeline")(folder)


def as_pickle(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))


def only_non_ema(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.non_ema.safetensors"))


def pointer(place: str) -> Change:
    def change(folder: Path) -> None:
        (folder / place).write_bytes(POINTER)

    return change


def cut_off(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def cut_off_in_the_header(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def playground(folder: Path) -> None:
    with_scheduler(EDM)(folder)
    change_json("vae/config.json", **STATISTICS)(folder)


def single_file_in_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    safetensors.torch.save_file({"model.diffusion_model.x": torch.zeros(1)}, folder / "model.safetensors")


def missing(place: str) -> Change:
    return lambda folder: (folder / place).unlink()


def other_index_class(folder: Path) -> None:
    change_json("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])(folder)


REFUSED: dict[str, tuple[str, Change, type[DetexError], str]] = {
    "pickle": ("sd1", as_pickle, UNSUPPORTED, "unet holds its weights as pickle.*safe_serialization=True"),
    "only non-EMA": ("sd1", only_non_ema, DAMAGED, "there is diffusion_pytorch_model.non_ema.safetensors"),
    "pointer in place of weights": (
        "sd1",
        pointer("unet/diffusion_pytorch_model.safetensors"),
        DAMAGED,
        "unet/diffusion_pytorch_model.safetensors is a pointer of git-lfs.*git lfs pull",
    ),
    "pointer in place of a config": ("sd1", pointer("vae/config.json"), DAMAGED, "vae/config.json is a pointer"),
    "pointer in place of words": ("sdxl", pointer("tokenizer/merges.txt"), DAMAGED, "merges.txt is a pointer"),
    "cut off": ("sd1", cut_off, DAMAGED, r"vae/diffusion_pytorch_model.safetensors is cut off: it has [\d,]+ bytes"),
    "cut off early": ("sd1", cut_off_in_the_header, DAMAGED, "text_encoder/model.safetensors .*cut off within"),
    "single file": (
        "sd1",
        single_file_in_a_folder,
        UNSUPPORTED,
        "model.safetensors is a single-file checkpoint.*from_single_file",
    ),
    "inpainting": ("sd1", with_nine_channels, UNSUPPORTED, "takes 9 and gives 4 channels, the VAE has 4; inpainting"),
    "Playground 2.5": ("sdxl", playground, UNSUPPORTED, "EDMDPMSolverMultistepScheduler.*EDM schedule"),
    "flow": (
        "sd1",
        with_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}),
        UNSUPPORTED,
        "It is a flow schedule",
    ),
    "flow in the index alone": ("sd1", other_index_class, UNSUPPORTED, "model_index.json: scheduler class 'FlowMatch"),
    "variance-exploding": ("sd1", with_scheduler({"_class_name": "ScoreSdeVeScheduler"}), UNSUPPORTED, "exploding"),
    "unknown scheduler": ("sd1", with_scheduler({"_class_name": "SQLAlchemy"}), UNSUPPORTED, "class 'SQLAlchemy'"),
    "beta sigmas": ("sd1", scheduler(use_beta_sigmas=True), UNSUPPORTED, "use_beta_sigmas True is not supported"),
    "flow sigmas": ("sd1", scheduler(use_flow_sigmas=True), UNSUPPORTED, "use_flow_sigmas True.*must be false"),
    "shifting": ("sd1", scheduler(use_dynamic_shifting=True), UNSUPPORTED, "use_dynamic_shifting True"),
    "two variants": (
        "sd1",
        scheduler(use_karras_sigmas=True, use_exponential_sigmas=True),
        UNSUPPORTED,
        "at most one of .* may be true",
    ),
    "continuous timesteps": ("sd1", scheduler(timestep_type="continuous"), UNSUPPORTED, "timestep_type 'continuous'"),
    "unknown spacing": ("sd1", scheduler(timestep_spacing="random"), UNSUPPORTED, "timestep_spacing 'random'"),
    "negative offset": ("sd1", scheduler(steps_offset=-1), UNSUPPORTED, "steps_offset -1"),
    "offset as text": ("sd1", scheduler(steps_offset="1"), UNSUPPORTED, "steps_offset '1'"),
    "learned variance": ("sd1", scheduler(variance_type="learned_range"), UNSUPPORTED, "variance_type 'learned_range'"),
    "unknown key of the schedule": ("sd1", scheduler(use_new_sigmas=True), UNSUPPORTED, "key 'use_new_sigmas' is not"),
    "betas of another number": ("sd1", scheduler(trained_betas=[0.1]), UNSUPPORTED, "trained_betas has 1 numbers"),
    "no size": ("sd1", change_json("unet/config.json", sample_size=None), UNSUPPORTED, "sample_size is null; write"),
    "LCM's full weights": (
        "sd1",
        change_json("unet/config.json", time_cond_proj_dim=256),
        UNSUPPORTED,
        "unet/config.json: time_cond_proj_dim 256 is not supported.*guidance built in",
    ),
    "class labels": ("sd1", change_json("unet/config.json", num_class_embeds=7), UNSUPPORTED, "num_class_embeds 7"),
    "gated": ("sd1", change_json("unet/config.json", attention_type="gated"), UNSUPPORTED, "attention_type 'gated'"),
    "self-attention over text": (
        "sd1",
        change_json("unet/config.json", only_cross_attention=True),
        UNSUPPORTED,
        "only_cross_attention True",
    ),
    "other blocks": (
        "sd1",
        change_json("unet/config.json", down_block_types=["SimpleCrossAttnDownBlock2D", "DownBlock2D"]),
        UNSUPPORTED,
        "SimpleCrossAttnDownBlock2D",
    ),
    "unknown key of the UNet": ("sd1", change_json("unet/config.json", sharpness=2), UNSUPPORTED, "key 'sharpness'"),
    "statistics outside XL": ("sd1", change_json("vae/config.json", **STATISTICS), UNSUPPORTED, "XL alone"),
    "half of the statistics": (
        "sdxl",
        change_json("vae/config.json", latents_mean=[0.0] * 4),
        UNSUPPORTED,
        "must both be null, or both lists of 4 numbers",
    ),
    "statistics of another number": (
        "sdxl",
        change_json("vae/config.json", latents_mean=[0.0] * 3, latents_std=[1.0] * 3),
        UNSUPPORTED,
        "both lists of 4 numbers",
    ),
    "shifted latents": ("sdxl", change_json("vae/config.json", shift_factor=0.1), UNSUPPORTED, "shift_factor 0.1"),
    "another VAE": (
        "sd1",
        change_json("vae/config.json", _class_name="AutoencoderTiny"),
        UNSUPPORTED,
        "AutoencoderTiny",
    ),
    "encoder with projection": (
        "sd1",
        change_json("model_index.json", text_encoder=["transformers", "CLIPTextModelWithProjection"]),
        UNSUPPORTED,
        "text_encoder must be .*, got 'CLIPTextModelWithProjection'",
    ),
    "quantised encoder": (
        "sd1",
        change_json("text_encoder/config.json", quantization_config={"load_in_8bit": True}),
        UNSUPPORTED,
        "text_encoder/config.json: key 'quantization_config'",
    ),
    "decoder": ("sd1", change_json("text_encoder/config.json", is_decoder=True), UNSUPPORTED, "is_decoder True"),
    "capital letters": (
        "sd1",
        change_json("tokenizer/tokenizer_config.json", do_lower_case=False),
        UNSUPPORTED,
        "tokenizer/tokenizer_config.json: do_lower_case False",
    ),
    "refiner": (
        "sdxl",
        change_json(
            "model_index.json", text_encoder=[None, None], tokenizer=[None, None], requires_aesthetics_score=True
        ),
        UNSUPPORTED,
        "text_encoder must be .*, got None",
    ),
    "aesthetic score": (
        "sdxl",
        change_json("model_index.json", requires_aesthetics_score=True),
        UNSUPPORTED,
        "refiner",
    ),
    "part that would change pictures": (
        "sd1",
        change_json("model_index.json", controlnet=["diffusers", "ControlNetModel"]),
        UNSUPPORTED,
        "model_index.json: key 'controlnet'",
    ),
    "another pipeline": (
        "sd1",
        change_json("model_index.json", _class_name="StableDiffusionInstructPix2PixPipeline"),
        UNSUPPORTED,
        "_class_name 'StableDiffusionInstructPix2PixPipeline'",
    ),
    "no words": ("sd1", missing("tokenizer/merges.txt"), DAMAGED, "tokenizer lacks tokenizer.json"),
    "no weights": ("sd1", missing("vae/diffusion_pytorch_model.safetensors"), DAMAGED, "vae lacks"),
    "no schedule": ("sd1", missing("scheduler/scheduler_config.json"), DAMAGED, "scheduler_config.json is missing"),
    "deep nesting": (
        "sd1",
        lambda folder: (folder / "unet" / "config.json").write_text("[" * 200_000) and None,
        DAMAGED,
        "unet/config.json cannot be read",
    ),
}


@pytest.mark.parametrize("layout", list(REFUSED))
def test_other_layouts_are_refused_by_both_services(copy: Callable[[str], Path], layout: str) -> None:
    kind, change, error, sentence = REFUSED[layout]
    folder = copy(kind)
    change(folder)
    for read in (load, described):
        with pytest.raises(error, match=sentence) as refused:
            read(folder)
        assert str(folder.parent) not in refused.value.message or layout == "single file"


def test_a_single_file_as_a_source_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "dreamshaper_8.safetensors"
    safetensors.torch.save_file({"model.diffusion_model.x": torch.zeros(1)}, path)
    for read in (load, described):
        with pytest.raises(FailedPreconditionError, match=r"from_single_file\('dreamshaper_8.safetensors'\)"):
            read(path)
