"""The peers: textual inversion and Custom Diffusion in training loops of the kind that diffusers' example scripts show.

Written anew after their recipe, without their extras (trackers, accelerate, validation): a data set that opens, resizes
and normalises each photo when it is asked for; per step one pass of the VAE's encoder, of the text encoder and of
diffusers' UNet over the batch; AdamW; rows of the embedding table that belong to other words put back (textual
inversion) or their gradients set to zero (Custom Diffusion, whose new keys and values sit in diffusers' own attention
processors).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer

_WORD = "<subject>"
_TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a rendering of a {}",
    "a close-up photo of a {}",
    "the photo of a {}",
)


class PhotoFiles(Dataset[dict[str, Tensor]]):
    """Photos that are read from their files each time."""

    def __init__(self, paths: Sequence[Path], tokenizer: Any, words: str, size: int, *, repeats: int = 100) -> None:
        self._paths = list(paths)
        self._tokenizer = tokenizer
        self._words = words
        self._size = size
        self._repeats = repeats
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._paths) * self._repeats

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        text = _TEMPLATES[self._rng.integers(len(_TEMPLATES))].format(self._words)
        ids = self._tokenizer(
            text,
            padding="max_length",
            truncation=True,
            max_length=self._tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids[0]
        picture = Image.open(self._paths[index % len(self._paths)]).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize(
            (self._size, self._size), Image.Resampling.BICUBIC
        )
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)
        return {"input_ids": ids, "pixel_values": pixels}


class PeerLoop:
    """What both loops share: models, data, noise, the loss."""

    def __init__(
        self, folder: Path, paths: Sequence[Path], class_word: str, *, size: int, batch: int, word_first: str
    ) -> None:
        """Load the base model.

        Args:
            folder: Base model in diffusers format.
            paths: Photos.
            class_word: Whose embedding the new word begins at.
            size: Side of the photos in pixels.
            batch: Photos of a step.
            word_first: What stands for the subject in prompts, with {} for the new word.
        """
        torch.manual_seed(0)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
        self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False)
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").requires_grad_(False)
        self.scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        self.tokenizer.add_tokens([_WORD])
        self.row = self.tokenizer.convert_tokens_to_ids(_WORD)
        self.text_encoder.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        table = self.text_encoder.get_input_embeddings().weight
        [first, *_] = self.tokenizer(class_word, add_special_tokens=False).input_ids
        with torch.no_grad():
            table[self.row] = table[first]
        self.text_encoder.requires_grad_(False)
        table.requires_grad_(True)
        self.table = table
        data = PhotoFiles(paths, self.tokenizer, word_first.format(_WORD), size)
        self._loader = DataLoader(data, batch_size=batch, shuffle=True)
        self._batches: Iterator[dict[str, Tensor]] = iter(())

    def loss(self) -> Tensor:
        """The denoising loss of the next batch."""
        batch = self._next()
        with torch.no_grad():
            latents = self.vae.encode(batch["pixel_values"]).latent_dist.sample() * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (latents.shape[0],))
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        hidden = self.text_encoder(batch["input_ids"])[0]
        prediction = self.unet(noisy, timesteps, hidden).sample
        is_velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
        return functional.mse_loss(prediction.float(), target.float(), reduction="mean")

    def _next(self) -> dict[str, Tensor]:
        found = next(self._batches, None)
        if found is None:
            self._batches = iter(self._loader)
            found = next(self._batches)
        return found


class TextualInversionPeer(PeerLoop):
    """Learns one row of the embedding table."""

    def __init__(self, folder: Path, paths: Sequence[Path], class_word: str, *, size: int, batch: int) -> None:
        super().__init__(folder, paths, class_word, size=size, batch=batch, word_first=f"{{}} {class_word}")
        self.text_encoder.train()
        self._optimizer = torch.optim.AdamW([self.table], lr=5e-3, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.ConstantLR(self._optimizer, factor=1.0)
        self._original = self.table.detach().clone()
        self._others = torch.ones(len(self._original), dtype=torch.bool)
        self._others[self.row] = False

    def step(self) -> float:
        """One step; returns its loss."""
        loss = self.loss()
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self.table[self._others] = self._original[self._others]
        return float(loss.detach())


class CustomDiffusionPeer(PeerLoop):
    """Learns one row of the embedding table and the key and value projections of all cross-attention."""

    def __init__(self, folder: Path, paths: Sequence[Path], class_word: str, *, size: int, batch: int) -> None:
        super().__init__(folder, paths, class_word, size=size, batch=batch, word_first=f"{{}} {class_word}")
        processors: dict[str, Any] = {}
        weights = self.unet.state_dict()
        for name in self.unet.attn_processors:
            layer = name.removesuffix(".processor")
            is_cross = layer.endswith("attn2")
            key = weights[f"{layer}.to_k.weight"]
            processor = CustomDiffusionAttnProcessor2_0(
                train_kv=is_cross,
                train_q_out=False,
                hidden_size=key.shape[0] if is_cross else None,
                cross_attention_dim=key.shape[1] if is_cross else None,
            )
            if is_cross:
                with torch.no_grad():
                    processor.to_k_custom_diffusion.weight.copy_(key)
                    processor.to_v_custom_diffusion.weight.copy_(weights[f"{layer}.to_v.weight"])
            processors[name] = processor
        self.unet.set_attn_processor(processors)
        self._projections = [p for processor in processors.values() for p in processor.parameters()]
        parameters: list[nn.Parameter] = [self.table, *self._projections]
        self._optimizer = torch.optim.AdamW(parameters, lr=3e-4, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.ConstantLR(self._optimizer, factor=1.0)
        self._others = torch.arange(len(self.table)) != self.row
        self._parameters = parameters

    def step(self) -> float:
        """One step; returns its loss."""
        loss = self.loss()
        torch.autograd.backward(loss)
        gradient = self.table.grad
        if gradient is not None:
            gradient.data[self._others] = gradient.data[self._others].fill_(0)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return float(loss.detach())


Peer = TextualInversionPeer | CustomDiffusionPeer
PEERS: dict[str, type[Peer]] = {"textual_inversion": TextualInversionPeer, "custom_diffusion": CustomDiffusionPeer}
