"""Training on one device that holds everything: minutes on a data-centre GPU, from fresh weights or from a model.

The phases are those of `training`. The UNet runs in bfloat16, compiled, with float32 masters of all that is trained;
batches are large, and photos that are rendered meanwhile are taken in.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from benchmarks.showroom.base_model.architecture import build_autoencoder, build_scheduler, build_unet
from benchmarks.showroom.base_model.autoencoder_training import CHECKPOINT as AUTOENCODER
from benchmarks.showroom.base_model.autoencoder_training import reconstruction_loss
from benchmarks.showroom.base_model.corpus import FACTORS, token_ids
from benchmarks.showroom.base_model.device_corpus import DeviceCorpus
from benchmarks.showroom.base_model.diffusion_training import CHECKPOINT as DIFFUSION
from benchmarks.showroom.base_model.encoder_training import ALIGNMENT, ENCODERS, EncoderPair
from benchmarks.showroom.base_model.export import export_model
from benchmarks.showroom.base_model.masters import Masters
from benchmarks.showroom.base_model.patch_code import PatchCode, install_patch_code
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.schedule import rate_factor, save_checkpoint
from benchmarks.showroom.base_model.tokenizer import build_tokenizer

_SHARES: Final = {"autoencoder": 0.12, "encoders": 0.06, "diffusion": 0.76, "alignment": 0.06}
_SHARES_FROM_A_MODEL: Final = {"autoencoder": 0.12, "encoders": 0.0, "diffusion": 0.8, "alignment": 0.08}
_MOST_PHOTOS: Final = 60_000
_CALIBRATION_PHOTOS: Final = 1_000
_EMPTY_CAPTIONS: Final = 0.1
_SAVE_EVERY_SECONDS: Final = 60.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class DeviceRun:
    """One training.

    Attributes:
        recipe: Sizes and weights of losses; learning rates and batches are those of here.
        shards: Folder of small shards.
        work: Folder of checkpoints.
        out: Folder of the exported model.
        device: Where.
        seconds: For all phases together, once there are photos enough.
        start: Folder of a model to go on from; None for fresh weights.
        first_photos: Photos before which nothing begins.
        batch: Of diffusion and encoders.
        rate: Highest learning rate of the UNet; the text encoder's is half of it.
        is_compiled: Whether the UNet is compiled.
    """

    recipe: Recipe
    shards: Path
    work: Path
    out: Path
    device: torch.device
    seconds: float
    start: Path | None = None
    first_photos: int = 3_000
    batch: int = 512
    rate: float = 1.5e-3
    is_compiled: bool = True


def train_on_device(run: DeviceRun) -> None:
    """Train all phases and export.

    Raises:
        FileNotFoundError: No photos came within the time.
    """
    began = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - began:7.1f} s] {line}", flush=True)

    torch.manual_seed(run.recipe.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    training = _Training(run, build_tokenizer(), report)
    training.warm_up()
    training.wait_for_photos()
    shares = _SHARES if run.start is None else _SHARES_FROM_A_MODEL
    training.train_autoencoder(run.seconds * shares["autoencoder"])
    if shares["encoders"]:
        training.train_encoders(run.seconds * shares["encoders"], ENCODERS)
    training.train_diffusion(run.seconds * shares["diffusion"])
    training.train_encoders(run.seconds * shares["alignment"], ALIGNMENT)
    export_model(run.recipe, run.work, run.out)
    report(f"exported to {run.out}, {training.corpus.photos} photos")


class _Training:
    def __init__(self, run: DeviceRun, tokenizer: CLIPTokenizer, report: Report) -> None:
        self.run, self.report = run, report
        size, device = run.recipe.size, run.device
        self.corpus = DeviceCorpus(
            run.shards, size.picture_pixels, device, _MOST_PHOTOS if device.type == "cuda" else 2_000
        )
        self.autoencoder = build_autoencoder(size)
        self.unet = build_unet(size)
        self.pair = EncoderPair(run.recipe, tokenizer)
        if run.start is not None:
            _load(run.start, self.autoencoder, self.unet, self.pair, tokenizer)
        self.autoencoder = self.autoencoder.to(device, memory_format=torch.channels_last)
        self.autoencoder.register_to_config(scaling_factor=1.0)
        self.unet = self.unet.to(device, memory_format=torch.channels_last)
        self.pair = self.pair.to(device)
        self.low_unet = copy.deepcopy(self.unet).to(torch.bfloat16)
        self.low_text = copy.deepcopy(self.pair.text.text_model).to(torch.bfloat16)
        self.forward: Callable[..., Any] = self.low_unet
        if run.is_compiled:
            self.forward = torch.compile(self.low_unet, dynamic=False)
        self.signal = build_scheduler().alphas_cumprod.to(device)
        self.empty = token_ids(tokenizer, [""]).to(device)[0]

    def warm_up(self) -> None:
        """Let the UNet be compiled while the first photos are rendered."""
        if not self.run.is_compiled:
            return
        side = self.run.recipe.size.picture_pixels // 8
        latents = torch.randn(self.run.batch, 16, side, side, device=self.run.device)
        tokens = self.empty.expand(self.run.batch, -1)
        for _ in range(2):
            torch.autograd.backward(self._velocity_loss(latents, torch.ones_like(latents[:, :1]), tokens))
        for parameter in (*self.low_unet.parameters(), *self.low_text.parameters()):
            parameter.grad = None
        self.report("the UNet is compiled")

    def wait_for_photos(self) -> None:
        """Wait until there are enough to begin with."""
        patience = time.monotonic() + max(120.0, self.run.seconds)
        while self.corpus.photos < self.run.first_photos:
            self.corpus.look()
            if time.monotonic() > patience:
                raise FileNotFoundError(f"shards: {self.corpus.photos} photos in {self.run.shards} within the time")
            time.sleep(0.5)
        self.report(f"{self.corpus.photos} photos at the start")

    def train_autoencoder(self, seconds: float) -> None:
        """The decoder; the encoder computes the linear code of patches, or is that of the model that was given."""
        run, corpus, model = self.run, self.corpus, self.autoencoder
        if run.start is None:
            index = torch.randperm(corpus.photos, device=run.device)[:_CALIBRATION_PHOTOS]
            plain = torch.zeros(len(index), dtype=torch.bool, device=run.device)
            code = PatchCode(corpus.pixels(index, plain).cpu(), corpus.cover_pixels(index, plain).cpu())
            install_patch_code(model.cpu(), code)
            model.to(run.device, memory_format=torch.channels_last)
            self.report(f"the code holds {code.explained:.1%} of the patches' weighted variance")
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
        corpus.read_by(model)
        trained = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
        rate = run.recipe.autoencoder_rate * (1.0 if run.start is None else 0.5)
        optimizer = torch.optim.AdamW(trained, rate, betas=(0.9, 0.99), weight_decay=1e-4)
        batch = min(64, run.batch)

        def step(progress: float, number: int) -> None:
            index = torch.randint(corpus.encoded, (batch,), device=run.device)
            sides = torch.randint(2, (batch,), device=run.device)
            pictures, cover = corpus.pixels(index, sides > 0), corpus.cover_pixels(index, sides > 0)
            noise = 2 * run.recipe.autoencoder_noise * torch.rand(batch, 1, 1, 1, device=run.device)
            latents = corpus.latents[sides, index]
            latents = latents + noise * torch.randn_like(latents)
            with torch.autocast(run.device.type, torch.bfloat16):
                decoded = model.decode(latents.contiguous(memory_format=torch.channels_last)).sample
            loss = reconstruction_loss(pictures, decoded.float(), cover, run.recipe.autoencoder_edge_weight)
            _descend(loss, optimizer, trained, rate * rate_factor(progress, number, decay_share=0.6))
            if number % 200 == 0:
                self.report(f"autoencoder: step {number}, {progress:.0%}, reconstruction {loss.item():.4f}")

        self._repeat(seconds, step)
        save_checkpoint(run.work / AUTOENCODER, _plain_state(model=model.state_dict()))
        model.eval()

    def train_encoders(self, seconds: float, checkpoint: str) -> None:
        """Both encoders by contrast; for the alignment, the text encoder stays as diffusion left it."""
        run, corpus, pair = self.run, self.corpus, self.pair
        trained = [parameter for parameter in pair.parameters() if parameter.requires_grad]
        rate = run.recipe.encoder_rate
        optimizer = torch.optim.AdamW(trained, rate, betas=(0.9, 0.98), weight_decay=0.02)

        def step(progress: float, number: int) -> None:
            index = torch.randint(corpus.photos, (run.batch,), device=run.device)
            mirrored = torch.rand(run.batch, device=run.device) < 0.5
            with torch.autocast(run.device.type, torch.bfloat16):
                similarity, logits = pair(corpus.pixels(index, mirrored), corpus.tokens(index))
            similarity, target = similarity.float(), torch.arange(run.batch, device=run.device)
            contrast = (
                functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)
            ) / 2
            naming = torch.stack(
                [
                    functional.cross_entropy(logits[name].float(), corpus.factors[index, place].long())
                    for place, name in enumerate(FACTORS)
                ]
            ).mean()
            loss = contrast + run.recipe.encoder_label_weight * naming
            _descend(loss, optimizer, trained, rate * rate_factor(progress, number, decay_share=0.6))
            if number % 100 == 0:
                self.report(f"{checkpoint}: step {number}, contrast {contrast.item():.3f}, naming {naming.item():.3f}")

        self._repeat(seconds, step)
        save_checkpoint(run.work / checkpoint, _plain_state(pair=pair.state_dict()))

    def train_diffusion(self, seconds: float) -> None:
        """UNet and text encoder; afterwards both are their moving averages, and the text encoder is frozen."""
        run, corpus = self.run, self.corpus
        text = self.pair.text.text_model
        self.low_text.load_state_dict(text.state_dict())
        groups = [
            (list(self.low_unet.parameters()), list(self.unet.parameters()), run.rate),
            (list(self.low_text.parameters()), list(text.parameters()), run.rate / 2),
        ]
        masters = Masters(groups, average=0.9995 if run.device.type == "cuda" else 0.9)
        saved = time.monotonic()
        smooth, half = 1.0, run.batch // 2
        decay_share = 0.5 if run.start is None else 0.7

        def step(progress: float, number: int) -> None:
            nonlocal saved, smooth
            index = torch.randint(corpus.encoded, (run.batch,), device=run.device)
            sides = (torch.arange(run.batch, device=run.device) >= half).long()
            tokens = corpus.tokens(index)
            unsaid = torch.rand(run.batch, 1, device=run.device) < _EMPTY_CAPTIONS
            tokens = torch.where(unsaid, self.empty, tokens)
            loss = self._velocity_loss(corpus.latents[sides, index], corpus.cover[sides, index], tokens)
            torch.autograd.backward(loss)
            masters.update(rate_factor(progress, number, warm_up_steps=200, decay_share=decay_share))
            if number % 100 == 0:
                smooth = loss.item() if number == 0 else smooth + 0.3 * (loss.item() - smooth)
                self.report(
                    f"diffusion: step {number}, {progress:.0%}, {number * run.batch} samples, loss {smooth:.4f}"
                )
            if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                self._save_diffusion(masters)
                saved = time.monotonic()

        self._repeat(seconds, step)
        self._save_diffusion(masters)
        masters.average_into([*self.unet.parameters(), *text.parameters()])
        text.requires_grad_(False)

    def _velocity_loss(self, latents: Tensor, cover: Tensor, tokens: Tensor) -> Tensor:
        """As `diffusion_training.velocity_loss`, with all chance drawn on the device."""
        batch, device = len(latents), latents.device
        offset = (torch.randperm(batch, device=device) + torch.rand(batch, device=device)) / batch
        timesteps = (offset * len(self.signal)).long().clamp(max=len(self.signal) - 1)
        kept = self.signal[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        states = self.low_text(input_ids=tokens).last_hidden_state
        noisy = noisy.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        predicted = self.forward(noisy, timesteps, states, return_dict=False)[0]
        weight = 1 + self.run.recipe.diffusion_mask_weight * cover
        error = functional.mse_loss(predicted.float(), velocity, reduction="none")
        return (error * weight).mean() / weight.mean()

    def _save_diffusion(self, masters: Masters) -> None:
        unet = [name for name, _ in self.unet.named_parameters()]
        text = [f"text_model.{name}" for name, _ in self.pair.text.text_model.named_parameters()]
        whole = {name: tensor.detach().float().cpu() for name, tensor in self.pair.text.state_dict().items()}
        states = {}
        for name, values in (("average", masters.averages), ("model", masters.values)):
            tensors = [value.detach().cpu().contiguous() for value in values]
            read = dict(zip(text, tensors[len(unet) :], strict=True))
            states[name] = {"unet": dict(zip(unet, tensors, strict=False)), "text": whole | read}
        save_checkpoint(self.run.work / DIFFUSION, {**states, "optimizer": {}, **_COUNTS})

    def _repeat(self, seconds: float, step: Callable[[float, int], None]) -> None:
        began, number = time.monotonic(), 0
        while (progress := (time.monotonic() - began) / seconds) < 1:
            self.corpus.look()
            step(progress, number)
            number += 1


_COUNTS: Final[dict[str, Any]] = {"step": 0, "worked_seconds": 0.0, "losses": []}


def _plain_state(**parts: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint as the other phases write it, without an optimiser to go on with."""
    on_cpu = {
        part: {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
        for part, tensors in parts.items()
    }
    return {**on_cpu, "optimizer": {}, **_COUNTS}


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], rate: float) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(trained, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _load(
    folder: Path, autoencoder: AutoencoderKL, unet: UNet2DConditionModel, pair: EncoderPair, tokenizer: CLIPTokenizer
) -> None:
    """Weights of an exported model; words that its tokenizer did not have begin at the mean of all embeddings."""
    autoencoder.load_state_dict(AutoencoderKL.from_pretrained(folder / "vae").float().state_dict())
    unet.load_state_dict(UNet2DConditionModel.from_pretrained(folder / "unet").float().state_dict())
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").float().state_dict()
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    known = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    table = text["embeddings.token_embedding.weight"]
    rows = table.mean(dim=0).repeat(len(tokenizer), 1)
    for token, number in tokenizer.get_vocab().items():
        if token in known:
            rows[number] = table[known[token]]
    text["embeddings.token_embedding.weight"] = rows
    pair.text.text_model.load_state_dict(text)
    image = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").float()
    pair.image.load_state_dict(image.state_dict())
    projection = load_file(folder / "text_projection" / "projection.safetensors")
    with torch.no_grad():
        pair.text.text_projection.weight.copy_(projection["text_projection.weight"])
        pair.log_scale.copy_(projection["logit_scale"])
