"""A base model of few steps from one of many: latent consistency distillation (arXiv 2310.04378) of one guidance.

The student is to land, from any point of a trajectory of the guided teacher, where the trajectory ends. It learns from
neighbours: what it says at a noisy latent shall be what its own moving average says one teacher's step further on.
Guidance is part of what is learned, so the student is drawn with at guidance scale 1, one pass a step.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.showroom.base_model.corpus import token_ids
from benchmarks.showroom.base_model.device_corpus import DeviceCorpus
from benchmarks.showroom.base_model.export import MAX_SHARD_SIZE
from benchmarks.showroom.base_model.schedule import PhaseClock, load_checkpoint, rate_factor, save_checkpoint
from benchmarks.showroom.base_model.tokenizer import build_tokenizer

CHECKPOINT: Final = "distillation.pt"
STEPS: Final = 4
"""That the result is to be drawn in."""
_SIGMA_DATA: Final = 0.5
_TIMESTEP_SCALING: Final = 10.0
"""Both as diffusers' LCMScheduler has them by default."""
_HUBER: Final = 0.001
_EMPTY_CAPTIONS: Final = 0.05
_SAVE_EVERY_SECONDS: Final = 120.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class Distillation:
    """One distillation.

    Attributes:
        teacher: Folder of a model with velocity prediction, in diffusers format.
        shards: Folder of small shards, of the world that the teacher was trained on.
        work: Folder of the checkpoint that a later run goes on from.
        out: Folder to write.
        device: Where.
        seconds: For training, earlier runs included.
        guidance_scale: Of the teacher.
        teacher_steps: Steps into which a whole trajectory of the teacher is divided; fewer are learned sooner.
        batch: Photos a step.
        rate: Highest learning rate.
        average: Decay of the moving average, which gives the aims and is what is written.
        most_photos: Photos that are kept in memory.
        seed: Of noise, timesteps and captions.
    """

    teacher: Path
    shards: Path
    work: Path
    out: Path
    device: torch.device
    seconds: float
    guidance_scale: float = 5.0
    teacher_steps: int = 25
    batch: int = 32
    rate: float = 2e-4
    average: float = 0.98
    most_photos: int = 4_000
    seed: int = 0


@dataclass(frozen=True)
class Schedule:
    """Noise of each timestep, and the timesteps at which trajectories are cut.

    Attributes:
        signal: (1000,) cumulative products of alpha.
        timesteps: (n,) ascending; the teacher steps from each to the one before, and from the first to no noise.
    """

    signal: Tensor
    timesteps: Tensor

    @staticmethod
    def of(scheduler: DDIMScheduler, steps: int, device: torch.device) -> Schedule:
        """Trailing timesteps, as few-step solvers take them."""
        signal = scheduler.alphas_cumprod.float().to(device)
        timesteps = torch.linspace(0, len(signal), steps + 1, device=device)[1:].round().long() - 1
        return Schedule(signal, timesteps)

    def clean(self, noisy: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents (b, c, h, w) that a velocity at timesteps (b,) points to."""
        kept = self._kept(timesteps)
        return kept.sqrt() * noisy - (1 - kept).sqrt() * velocity

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents with the noise of timesteps (b,)."""
        kept = self._kept(timesteps)
        return kept.sqrt() * latents + (1 - kept).sqrt() * noise

    def teacher_step(self, noisy: Tensor, velocity: Tensor, timesteps: Tensor, to: Tensor) -> Tensor:
        """One step of DDIM (arXiv 2010.02502, eq. 12, sigma 0) from timesteps (b,) to `to` (b,), -1 for no noise."""
        kept = self._kept(timesteps)
        noise = kept.sqrt() * velocity + (1 - kept).sqrt() * noisy
        after = torch.where((to < 0).view(-1, 1, 1, 1), torch.ones_like(kept), self._kept(to.clamp(min=0)))
        return after.sqrt() * self.clean(noisy, velocity, timesteps) + (1 - after).sqrt() * noise

    def consistent(self, noisy: Tensor, velocity: Tensor, timesteps: Tensor) -> Tensor:
        """The end of the trajectory by a model's velocity; at timestep -1 the latents (2310.04378, eq. 9)."""
        scaled = timesteps.clamp(min=0).view(-1, 1, 1, 1).float() * _TIMESTEP_SCALING
        keep = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        take = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
        ended = (timesteps < 0).view(-1, 1, 1, 1)
        found = keep * noisy + take * self.clean(noisy, velocity, timesteps.clamp(min=0))
        return torch.where(ended, noisy, found)

    def _kept(self, timesteps: Tensor) -> Tensor:
        return self.signal[timesteps].view(-1, 1, 1, 1)


def distill(run: Distillation, report: Report) -> None:
    """Train until the time is over, from the last checkpoint on, and write the student's folder.

    Raises:
        FileNotFoundError: There are no shards.
        ValueError: The teacher does not predict velocities.
    """
    scheduler = DDIMScheduler.from_pretrained(run.teacher / "scheduler")
    if scheduler.config.prediction_type != "v_prediction":
        given = scheduler.config.prediction_type
        raise ValueError(f"teacher: must predict velocities (v_prediction), got {given}")
    torch.manual_seed(run.seed)
    training = _Training(run, Schedule.of(scheduler, run.teacher_steps, run.device), report)
    training.run()
    write_student(run.teacher, run.teacher_steps, training.average, run.out)
    report(f"written to {run.out}")


class _Training:
    def __init__(self, run: Distillation, schedule: Schedule, report: Report) -> None:
        self._run, self._schedule, self._report = run, schedule, report
        device = run.device
        self._teacher = _unet(run.teacher, device)
        self._teacher.requires_grad_(False)
        self._student = copy.deepcopy(self._teacher).requires_grad_(True)
        self.average = copy.deepcopy(self._teacher)
        self._text = CLIPTextModel.from_pretrained(run.teacher / "text_encoder").float().to(device).eval()
        self._text.requires_grad_(False)
        tokenizer = CLIPTokenizer.from_pretrained(run.teacher / "tokenizer")
        self._empty = token_ids(tokenizer, [""]).to(device)[0]
        size = 8 * int(self._teacher.config.sample_size)
        self._corpus = DeviceCorpus(run.shards, size, device, run.most_photos, translation(tokenizer))
        self._optimizer = torch.optim.AdamW(self._student.parameters(), run.rate, betas=(0.9, 0.99), weight_decay=0.0)

    def run(self) -> None:
        run, corpus = self._run, self._corpus
        state = load_checkpoint(run.work / CHECKPOINT, run.device)
        if state is not None:
            self._student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
        number = 0 if state is None else int(state["step"])
        torch.manual_seed(run.seed + number)
        corpus.look()
        if not corpus.photos:
            raise FileNotFoundError(f"shards: no photos in {run.shards}")
        autoencoder = AutoencoderKL.from_pretrained(run.teacher / "vae").float().to(run.device).eval()
        corpus.read_by(autoencoder)
        del autoencoder
        self._report(f"{corpus.photos} photos")
        clock = PhaseClock(run.seconds, 0.0 if state is None else state["worked_seconds"])
        averaged: list[Tensor] = [*self.average.parameters()]
        current: list[Tensor] = [*self._student.parameters()]
        saved, smooth = time.monotonic(), math.nan
        while (progress := clock.progress) < 1:
            corpus.look()
            loss = self._loss()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self._student.parameters(), 1.0)
            for group in self._optimizer.param_groups:
                group["lr"] = run.rate * rate_factor(progress, number, warm_up_steps=50)
            self._optimizer.step()
            number += 1
            with torch.no_grad():
                torch._foreach_lerp_(averaged, current, 1 - min(run.average, number / (10 + number)))
            smooth = loss.item() if math.isnan(smooth) else smooth + 0.02 * (loss.item() - smooth)
            if number % 50 == 0:
                self._report(f"step {number}, {progress:.1%}, {number * run.batch} samples, loss {smooth:.4f}")
            if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                self._save(number, clock)
                saved = time.monotonic()
        self._save(number, clock)

    def _loss(self) -> Tensor:
        run, corpus, schedule, device = self._run, self._corpus, self._schedule, self._run.device
        index = torch.randint(corpus.encoded, (run.batch,), device=device)
        sides = torch.randint(2, (run.batch,), device=device)
        unsaid = torch.rand(run.batch, 1, device=device) < _EMPTY_CAPTIONS
        tokens = torch.where(unsaid, self._empty, corpus.tokens(index))
        # One cut from each of b equal slices of the trajectory: less variance than independent draws.
        slices = (torch.randperm(run.batch, device=device) + torch.rand(run.batch, device=device)) / run.batch
        place = (slices * run.teacher_steps).long().clamp(max=run.teacher_steps - 1)
        begin = schedule.timesteps[place]
        end = torch.where(place > 0, schedule.timesteps[(place - 1).clamp(min=0)], torch.full_like(begin, -1))
        latents = corpus.latents[sides, index]
        noisy = schedule.noised(latents, torch.randn_like(latents), begin)
        with torch.no_grad():
            states = self._text(input_ids=torch.cat([self._empty.expand_as(tokens), tokens])).last_hidden_state
            named_states = states[run.batch :]
            both = self._predict(self._teacher, torch.cat([noisy, noisy]), torch.cat([begin, begin]), states)
            free, named = both.chunk(2)
            onward = schedule.teacher_step(noisy, free + run.guidance_scale * (named - free), begin, end)
            aimed = self._predict(self.average, onward, end.clamp(min=0), named_states)
            target = schedule.consistent(onward, aimed, end)
        velocity = self._predict(self._student, noisy, begin, named_states)
        difference = schedule.consistent(noisy, velocity, begin) - target
        return ((difference.square() + _HUBER**2).sqrt() - _HUBER).mean()

    def _predict(self, unet: UNet2DConditionModel, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        # On a CPU, the plain product form of attention trains faster than the fused kernel at these sizes.
        is_cpu = latents.device.type == "cpu"
        attention = SDPBackend.MATH if is_cpu else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=not is_cpu), sdpa_kernel(attention):
            latents = latents.contiguous(memory_format=torch.channels_last)
            predicted: Tensor = unet(latents, timesteps, states, return_dict=False)[0]
        return predicted.float()

    def _save(self, number: int, clock: PhaseClock) -> None:
        state: dict[str, Any] = {
            "student": self._student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": number,
            "worked_seconds": clock.worked_seconds,
        }
        save_checkpoint(self._run.work / CHECKPOINT, state)


def write_student(teacher: Path, teacher_steps: int, unet: UNet2DConditionModel, out: Path) -> None:
    """Write the teacher's folder with the student's UNet in fp16 and the scheduler of consistency models."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".export-") as temporary:
        folder = Path(temporary) / "model"
        shutil.copytree(teacher, folder, ignore=shutil.ignore_patterns("unet", "scheduler", "made_by", "*.md"))
        student = copy.deepcopy(unet).cpu().half().to(memory_format=torch.contiguous_format)
        student.save_pretrained(folder / "unet", max_shard_size=MAX_SHARD_SIZE)
        scheduler = DDIMScheduler.from_pretrained(teacher / "scheduler")
        options = {"original_inference_steps": teacher_steps, "timestep_scaling": _TIMESTEP_SCALING}
        LCMScheduler.from_config(scheduler.config, **options).save_pretrained(folder / "scheduler")
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["scheduler"] = ["diffusers", "LCMScheduler"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


def translation(tokenizer: CLIPTokenizer) -> Callable[[Tensor], Tensor] | None:
    """Token ids of shards as a model's tokenizer has them; None where it is the one that shards are written with."""
    written = build_tokenizer()
    if tokenizer.get_vocab() == written.get_vocab():
        return None

    def translate(tokens: Tensor) -> Tensor:
        captions = written.batch_decode(tokens.flatten(0, -2).tolist(), skip_special_tokens=True)
        ids = token_ids(tokenizer, captions)
        return ids.view(tokens.shape).to(tokens)

    return translate


def _unet(folder: Path, device: torch.device) -> UNet2DConditionModel:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float()
    return unet.to(device, memory_format=torch.channels_last).eval()
