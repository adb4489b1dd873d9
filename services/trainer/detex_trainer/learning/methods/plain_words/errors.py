"""How well the base model explains photos when plain words stand in the places of a concept's words.

The measure of a diffusion classifier (Li, Prabhudesai, Duggal, Brown, Pathak, *Your Diffusion Model is Secretly a
Zero-Shot Classifier*, ICCV 2023): the denoising error, here in the region of the photo that the words are about.

Legend: N photos, K candidates, k words of the subject, E width of word embeddings, (h, h) latent size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, project
from detex_diffusion.text import encode_text, tokenize
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.attributes import Attribute, Region
from detex_trainer.domain.prompts import surroundings_prompt, training_prompt
from detex_trainer.learning.methods.concept_words import AttributeStart, SubjectStart
from detex_trainer.learning.methods.learner import FirstWords
from detex_trainer.learning.methods.plain_words.noise_levels import timestep_of
from detex_trainer.learning.photos.dataset import PhotoSet

_NAME = "subject"
_LARGEST_SIDE = 64
"""Of the latents that are looked at: what a photo shows can be told from a smaller one."""
_MOST_ROWS = 32
_MOST_POSITIONS = 16 * _LARGEST_SIDE**2
"""Of latents in one pass of the UNet."""
_MOST_ROWS_ON_GPU = 512
_MOST_POSITIONS_ON_GPU = 32 * _LARGEST_SIDE**2
"""On a GPU, where small passes wait for their launch, photos and noise levels share a pass too."""
_TINY = 1e-12


@dataclass(frozen=True)
class _Words:
    """A concept without anything learned: one photo, one word for each attribute."""

    class_word: str
    attribute_counts: Mapping[str, int]
    subject_tokens: int


@dataclass
class ChosenWords:
    """What has been chosen so far, and is said in every prompt.

    Attributes:
        subject: Before the class word.
        attributes: By name, a word for each photo.
    """

    subject: SubjectStart
    attributes: dict[str, AttributeStart] = field(default_factory=dict)

    def as_words(self) -> FirstWords:
        """The words themselves."""
        return FirstWords(self.subject.words, {name: start.words for name, start in self.attributes.items()})


class PlainWordErrors:
    """Measures candidates for the words of a concept, beside those that were chosen before.

    Attributes:
        chosen: Added to by those who choose.
    """

    def __init__(
        self, base_model: BaseModel, class_word: str, attributes: Sequence[Attribute], photo_set: PhotoSet, seed: int
    ) -> None:
        """With nothing chosen.

        Args:
            base_model: Whose UNet is asked.
            class_word: What the subject is.
            attributes: Of the job, in the order in which prompts say them.
            photo_set: Its photos; looked at as they are.
            seed: Of the noise, which is the same for all candidates.
        """
        nothing = torch.zeros(0, base_model.embedding_width, device=base_model.device)
        self.chosen = ChosenWords(SubjectStart("", nothing))
        self._base_model = base_model
        self._class_word = class_word
        self._attributes = tuple(attributes)
        self._latents = _small(photo_set.latents[:, 0])  # (N, C, h, h)
        self._masks = _small(photo_set.masks[:, 0])  # (N, 1, h, h)
        self._valid = _small(photo_set.valid[:, 0])
        on_gpu = base_model.device.type != "cpu"
        most_rows = _MOST_ROWS_ON_GPU if on_gpu else _MOST_ROWS
        most_positions = _MOST_POSITIONS_ON_GPU if on_gpu else _MOST_POSITIONS
        self._most_rows = max(1, min(most_rows, most_positions // self._latents[0, 0].numel()))
        self._candidates = min(_MOST_ROWS, self._most_rows)
        self._seed = seed
        self._unet = KeyValueUNet(base_model.unet, base_model.pixels_per_latent)

    @torch.no_grad()
    def of_attribute(self, attribute: Attribute, embeddings: Tensor, levels: Sequence[float]) -> Tensor:
        """Logarithm of the error (N, K) in an attribute's region with each candidate (K, E) as its word.

        Args:
            attribute: One of the job's.
            embeddings: Candidates.
            levels: Noise levels as shares of the schedule; the mean over them is given.
        """
        kept = [each for each in self._attributes if each.name in self.chosen.attributes or each is attribute]
        subject = self.chosen.subject.embeddings
        candidates = [(subject, {attribute.name: row}) for row in embeddings]
        return self._errors(attribute.region, kept, candidates, levels)

    @torch.no_grad()
    def of_subject(self, phrases: Sequence[Tensor], levels: Sequence[float]) -> Tensor:
        """The same in the subject's region with each of K phrases (k, E) before the class word, k the same for all."""
        kept = [each for each in self._attributes if each.name in self.chosen.attributes]
        return self._errors(Region.SUBJECT, kept, [(phrase, {}) for phrase in phrases], levels)

    def _errors(
        self,
        region: Region,
        kept: Sequence[Attribute],
        candidates: Sequence[tuple[Tensor, Mapping[str, Tensor]]],
        levels: Sequence[float],
    ) -> Tensor:
        errors = torch.zeros(len(self._latents), len(candidates))
        for start in range(0, len(candidates), self._candidates):
            part = candidates[start : start + self._candidates]
            for photos in self._photos_by_context().values():
                key_values = self._key_values(kept, photos[0], part)
                views = [(photo, level) for photo in photos for level in levels]
                at_once = max(1, self._most_rows // len(part))
                for first in range(0, len(views), at_once):
                    some = views[first : first + at_once]
                    found = self._errors_of(region, some, key_values)  # (views, candidates)
                    for (photo, _), row in zip(some, found, strict=True):
                        errors[photo, start : start + len(part)] += row / len(levels)
        return errors

    def _photos_by_context(self) -> Mapping[tuple[str, ...], Sequence[int]]:
        """Photos of which the words chosen so far say the same share prompts."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for photo in range(len(self._latents)):
            said = tuple(each.words[photo] for each in self.chosen.attributes.values())
            groups.setdefault(said, []).append(photo)
        return groups

    def _key_values(
        self, kept: Sequence[Attribute], photo: int, candidates: Sequence[tuple[Tensor, Mapping[str, Tensor]]]
    ) -> KeyValueBatch:
        """Keys and values of the prompts of a photo, one for each candidate."""
        tokens = len(candidates[0][0])
        prompt = training_prompt(_NAME, 0, kept)
        if not tokens:
            prompt = surroundings_prompt(_NAME, 0, kept, self._class_word)
        words = _Words(self._class_word, dict.fromkeys([each.name for each in kept], 1), tokens)
        tokenized = tokenize(prompt, {_NAME: words}, self._base_model.tokenizer)
        fixed = {name: start.embeddings[photo] for name, start in self.chosen.attributes.items()}
        rows = []
        for subject, varied in candidates:
            said = {**fixed, **varied}
            used = [each.word for each in tokenized.words]
            found = [subject[word.index] if word.attribute is None else said[word.attribute] for word in used]
            rows.append(torch.stack(found) if found else None)
        text = encode_text(self._base_model, [tokenized] * len(rows), rows)
        return project(self._base_model.unet, text.hidden, (), text.pooled)

    def _errors_of(self, region: Region, views: Sequence[tuple[int, float]], key_values: KeyValueBatch) -> Tensor:
        """Logarithm of the error (V, K) of V photos at noise levels under the K prompts of the keys and values.

        The noise of a photo and level is the same for all prompts, and its own, so that means over photos and levels
        are not of one chance alone.
        """
        schedule, prompts = self._base_model.noise_schedule, key_values.rows
        photos = torch.tensor([photo for photo, _ in views], device=self._latents.device)
        latents = self._latents[photos]  # (V, C, h, h)
        noise = torch.stack([self._noise(photo, level) for photo, level in views]).to(latents)
        timesteps = torch.tensor([timestep_of(self._base_model, level, latents) for _, level in views])
        timesteps = timesteps.to(latents.device)
        noisy = schedule.add_noise(latents, noise, timesteps).to(self._base_model.dtype)
        target = schedule.target(latents, noise, timesteps)
        prediction = self._unet(
            noisy.repeat_interleave(prompts, dim=0),
            timesteps.repeat_interleave(prompts),
            key_values.select([*range(prompts)] * len(views)),
        )
        prediction = prediction.float().view(len(views), prompts, *latents.shape[1:])
        weights = torch.stack([self._weights(region, photo) for photo, _ in views])[:, None]  # (V, 1, 1, h, h)
        errors = ((prediction - target[:, None]).square() * weights).mean(dim=(2, 3, 4))
        return errors.clamp_min(_TINY).log().cpu()

    def _noise(self, photo: int, level: float) -> Tensor:
        """(C, h, h)."""
        generator = torch.Generator().manual_seed((self._seed << 24) + (photo << 12) + round(1000 * level))
        return torch.randn(self._latents.shape[1:], generator=generator)

    def _weights(self, region: Region, photo: int) -> Tensor:
        """(1, h, h), 1 where a word of a region is looked for."""
        mask, valid = self._masks[photo], self._valid[photo]
        if region is Region.SUBJECT:
            return mask * valid
        return (1 - mask) * valid if region is Region.BACKGROUND else valid


def leads(errors: Tensor, places: Tensor) -> Tensor:
    """(R,) how far the candidates at some places are below the median of all, in deviations told from absolute ones.

    A measure without a scale, for how much words explain differs from model to model.

    Args:
        errors: (R, K).
        places: (R,) of candidates.
    """
    middle = errors.median(dim=1, keepdim=True).values
    deviation = 1.4826 * (errors - middle).abs().median(dim=1).values  # of a normal distribution, the standard one
    return (middle - errors.gather(1, places[:, None]))[:, 0] / deviation.clamp_min(_TINY)


def _small(pictures: Tensor) -> Tensor:
    """(N, C, h, h) with a side of at most `_LARGEST_SIDE`."""
    side = max(pictures.shape[-2:])
    return pictures if side <= _LARGEST_SIDE else nn.functional.adaptive_avg_pool2d(pictures, _LARGEST_SIDE)
