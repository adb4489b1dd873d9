"""The base model: its linear code, a training run in small, and the folder that ships."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from benchmarks.showroom.base_model.__main__ import main
from benchmarks.showroom.base_model.architecture import ModelSize, build_autoencoder
from benchmarks.showroom.base_model.patch_code import PatchCode, install_patch_code
from benchmarks.showroom.base_model.schedule import rate_factor
from benchmarks.showroom.base_model.training import PHASES
from benchmarks.showroom.shards import ShardPlan, load_shards, render_shard
from detex_showroom import base_model_path, sample_subjects

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.showroom.shards.SUBJECTS_PER_SHARD", 8)
        render_shard(ShardPlan(folder, "train", seed=1, number=0, size_pixels=64))
        render_shard(ShardPlan(folder, "validation", seed=1, number=0, size_pixels=64))
    return folder


def pictures_of(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    photos = load_shards(sorted(folder.glob("train_*.npz")))
    pictures = torch.from_numpy(photos.images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pictures, torch.from_numpy(photos.masks)[:, None].float() / 255


def test_the_encoder_computes_the_linear_code(shards: Path) -> None:
    pictures, cover = pictures_of(shards)
    code = PatchCode(pictures, cover)
    autoencoder = build_autoencoder(ModelSize())
    install_patch_code(autoencoder, code)
    with torch.no_grad():
        posterior = autoencoder.encode(pictures).latent_dist
        half = autoencoder.half().encode(pictures[:2].half()).latent_dist.mean.float()
    expected = code(pictures)
    assert (posterior.mean - expected).square().mean().sqrt() < 0.01
    assert (half - expected[:2]).square().mean().sqrt() < 0.02
    assert float(posterior.std.max()) < 0.05
    assert float(code(pictures).mean()) == pytest.approx(0, abs=0.1)


def test_the_linear_code_keeps_the_strongest_directions(shards: Path) -> None:
    pictures, cover = pictures_of(shards)
    code = PatchCode(pictures, torch.zeros_like(cover))
    deviations = code(pictures).std((0, 2, 3))
    assert bool((deviations[:-1] >= deviations[1:] - 1e-4).all())
    assert 0.85 < code.explained < 1


def test_an_unfit_encoder_is_refused(shards: Path) -> None:
    autoencoder = build_autoencoder(ModelSize(autoencoder_channels=(8, 8, 8, 16)))
    with pytest.raises(ValueError, match=r"block_out_channels: got \(8, 8, 8, 16\)"):
        install_patch_code(autoencoder, PatchCode(*pictures_of(shards)))


def test_learning_rate_warms_up_holds_and_falls() -> None:
    factors = [rate_factor(progress, step=1000) for progress in (0.0, 0.5, 0.6, 0.8, 1.0)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0])
    assert rate_factor(0.0, step=0, warm_up_steps=100) == pytest.approx(0.01)


def test_training_runs_resumes_and_exports_a_pipeline(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = tmp_path / "work", tmp_path / "model"
    folders = ["--shards", str(shards), "--work", str(work), "--tiny"]
    assert main(["train", "--minutes", "0.06", "--out", str(out), *folders]) == 0
    saved = torch.load(work / "diffusion.pt", weights_only=True)
    assert saved["step"] > 0
    # The budget counts earlier runs: the same one is used up, a longer one goes on where the first stopped.
    assert main(["train", "--minutes", "0.06", "--phases", "diffusion", *folders]) == 0
    assert torch.load(work / "diffusion.pt", weights_only=True)["step"] == saved["step"]
    # However long the first run's steps took, there is time for further ones.
    minutes = (saved["worked_seconds"] / PHASES["diffusion"] + 4) / 60
    assert main(["train", "--minutes", f"{minutes:.3f}", "--phases", "diffusion", *folders]) == 0
    assert torch.load(work / "diffusion.pt", weights_only=True)["step"] > saved["step"]

    pipeline = StableDiffusionPipeline.from_pretrained(out)
    assert isinstance(pipeline.image_encoder, CLIPVisionModelWithProjection)
    picture = pipeline("a red mug", num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)

    assert main(["sample", "--png", str(tmp_path / "samples.png"), "--steps", "2", *folders[2:]]) == 0
    assert (tmp_path / "samples.png").stat().st_size > 10_000
    capsys.readouterr()
    assert main(["probe", *folders]) == 0
    assert "scene: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "minutes: got 0.0, expected more than 0"),
        (["--minutes", "1"], "shards: found no training shard of 128 pixels in "),
    ],
)
def test_training_names_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--shards", str(tmp_path), "--work", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_export_needs_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--work", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "has not been trained yet" in capsys.readouterr().err


def test_the_embedded_model_is_a_stable_diffusion_folder() -> None:
    folder = base_model_path()
    weights = list(folder.rglob("*.safetensors"))
    assert all(path.stat().st_size < 16_000_000 for path in weights)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 34_000_000
    for path in weights:
        with safe_open(path, framework="pt") as tensors:
            assert all(tensors.get_tensor(name).isfinite().all() for name in tensors.keys())  # noqa: SIM118
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    size = ModelSize()
    assert pipeline.unet.config.sample_size * 8 == pipeline.vae.config.sample_size == size.picture_pixels == 128
    assert tuple(pipeline.unet.config.block_out_channels) == size.unet_channels
    assert tuple(pipeline.vae.config.block_out_channels) == size.autoencoder_channels
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.clip_sample is False
    generator = torch.Generator().manual_seed(0)
    beach, forest = pipeline(
        ["a photo of a red mug on a beach", "a photo of a red mug in a forest"],
        num_inference_steps=10,
        guidance_scale=3.5,
        generator=generator,
        output_type="np",
    ).images
    # The sky over the beach is blue, the forest is dark.
    assert beach[:32, :, 2].mean() > beach[:32, :, 0].mean() + 0.1
    assert forest[:32].mean() < beach[:32].mean() - 0.1


def test_sample_subjects_come_with_masks_and_are_not_of_the_training_split() -> None:
    subjects = sample_subjects()
    assert 4 <= len(subjects) <= 6
    processor = CLIPImageProcessor.from_pretrained(base_model_path() / "feature_extractor")
    assert processor.size["shortest_edge"] == 128
    for subject in subjects:
        assert len(subject.photos) == 4
        for photo in subject.photos:
            assert photo.labels["split"] == "test"
            assert Image.open(photo.image_path).size == Image.open(photo.mask_path).size == (128, 128)
            assert photo.image_path.is_file()
            assert photo.mask_path.is_file()
        assert len({photo.pose for photo in subject.photos}) == 4
        assert len({photo.scene for photo in subject.photos}) == 4
