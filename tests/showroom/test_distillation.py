"""Distillation to few steps: its mathematics against diffusers', and a folder that pipelines draw with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from benchmarks.showroom.base_model import small_shards
from benchmarks.showroom.base_model.architecture import (
    TINY,
    build_autoencoder,
    build_scheduler,
    build_text_encoder,
    build_unet,
)
from benchmarks.showroom.base_model.corpus import token_ids
from benchmarks.showroom.base_model.distillation import Distillation, Schedule, distill, translation
from benchmarks.showroom.base_model.tokenizer import build_tokenizer, save_tokenizer

CPU = torch.device("cpu")
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": False,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_teacher(folder: Path, prediction_type: str = "v_prediction") -> Path:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    save_tokenizer(tokenizer, folder / "tokenizer")
    build_scheduler().save_pretrained(folder / "scheduler")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": prediction_type}))
    build_unet(TINY).save_pretrained(folder / "unet")
    build_autoencoder(TINY).save_pretrained(folder / "vae")
    build_text_encoder(TINY, tokenizer).text_model.save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text(json.dumps(_INDEX))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Distillation:
    folder = tmp_path_factory.mktemp("distillation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_shards, "SUBJECTS", 4)
        small_shards.render_small_shards(
            folder / "shards", "train", TINY.picture_pixels, processes=1, seconds=600, count=1, world="words"
        )
    return Distillation(
        teacher=write_teacher(folder / "teacher"),
        shards=folder / "shards",
        work=folder / "work",
        out=folder / "student",
        device=CPU,
        seconds=3.0,
        batch=2,
        most_photos=8,
    )


def test_steps_are_those_of_diffusers() -> None:
    scheduler, steps = build_scheduler(), 25
    schedule = Schedule.of(scheduler, steps, CPU)
    scheduler.set_timesteps(steps)
    assert schedule.timesteps.flip(0).tolist() == scheduler.timesteps.tolist()
    consistency = LCMScheduler.from_config(scheduler.config, original_inference_steps=steps)
    consistency.set_timesteps(4)
    assert set(consistency.timesteps.tolist()) <= set(schedule.timesteps.tolist())
    generator = torch.Generator().manual_seed(0)
    noisy, velocity = torch.randn(2, 2, 4, 8, 8, generator=generator)
    for place in (0, 1, 12, 24):
        begin = schedule.timesteps[place].repeat(2)
        end = schedule.timesteps[place - 1].repeat(2) if place else torch.full((2,), -1)
        wanted = scheduler.step(velocity, int(begin[0]), noisy)
        found = schedule.teacher_step(noisy, velocity, begin, end)
        if place:
            torch.testing.assert_close(found, wanted.prev_sample, atol=1e-5, rtol=1e-5)
        else:  # DDIM of this config ends at the first timestep's noise; the trajectory ends without any
            torch.testing.assert_close(found, wanted.pred_original_sample, atol=1e-5, rtol=1e-5)
        skip, out = consistency.get_scalings_for_boundary_condition_discrete(begin[0])
        ended = skip * noisy + out * wanted.pred_original_sample
        torch.testing.assert_close(schedule.consistent(noisy, velocity, begin), ended, atol=1e-5, rtol=1e-5)
    assert torch.equal(schedule.consistent(noisy, velocity, torch.full((2,), -1)), noisy)


def test_a_student_is_written_and_goes_on_from_its_checkpoint(run: Distillation) -> None:
    lines: list[str] = []
    distill(run, lines.append)
    pipeline = StableDiffusionPipeline.from_pretrained(run.out)
    assert isinstance(pipeline.scheduler, LCMScheduler)
    assert pipeline.scheduler.config.original_inference_steps == run.teacher_steps
    picture = pipeline("a red mug", num_inference_steps=4, guidance_scale=1.0, output_type="pt").images
    assert bool(torch.isfinite(torch.as_tensor(picture)).all())
    student, teacher = (
        UNet2DConditionModel.from_pretrained(each / "unet").state_dict() for each in (run.out, run.teacher)
    )
    assert any(not torch.equal(student[name], teacher[name].half().float()) for name in teacher)
    before = torch.load(run.work / "distillation.pt", weights_only=True)
    # Seconds are for all runs together; each goes on to the end of the step in which they are over.
    assert before["worked_seconds"] >= run.seconds
    longer = replace(run, seconds=before["worked_seconds"] + 0.5)
    distill(longer, lines.append)
    after = torch.load(run.work / "distillation.pt", weights_only=True)
    assert after["step"] > before["step"] > 0
    assert after["worked_seconds"] >= longer.seconds


def test_a_teacher_of_another_kind_is_refused(run: Distillation, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher", "epsilon")
    with pytest.raises(ValueError, match="teacher: must predict velocities"):
        distill(replace(run, teacher=teacher), print)
    with pytest.raises(FileNotFoundError, match="shards"):
        distill(replace(run, shards=tmp_path, work=tmp_path / "work"), print)


def test_captions_are_read_by_the_tokenizer_of_the_teacher() -> None:
    written = build_tokenizer()
    assert translation(written) is None
    model = json.loads(written.backend_tokenizer.to_str())["model"]
    merges = [(first, second) for first, second in model["merges"]][:-40]
    merged = {first + second for first, second in model["merges"][-40:]}
    known = [token for token in model["vocab"] if token not in merged]
    vocabulary = {token: number for number, token in enumerate(reversed(known))}
    teacher = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=written.model_max_length)
    translate = translation(teacher)
    assert translate is not None
    captions = ["a photo of a red mug on a beach", "a zebra with a badge in front of a brick wall"]
    tokens = torch.stack([token_ids(written, captions)] * 2).to(torch.int16)
    translated = translate(tokens)
    assert translated.dtype == tokens.dtype
    assert torch.equal(translated[1].long(), token_ids(teacher, captions))
    assert not torch.equal(translated, tokens)
