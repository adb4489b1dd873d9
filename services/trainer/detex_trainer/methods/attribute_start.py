"""Where attribute words begin: at the plain word by which the base model explains the photo best.

A word that begins at its meaning, "lying" or "beach", needs to learn only how this photo differs from it, and stays
where the base model can combine it with anything. Which word that is, the base model says itself: the one under which
its denoising error in the word's region is lowest (a diffusion classifier: Li, Prabhudesai, Duggal, Brown, Pathak,
*Your Diffusion Model is Secretly a Zero-Shot Classifier*, ICCV 2023). The paper begins at no word in particular.

Legend: N photos, K candidate words, E width of word embeddings, (h, h) latent size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch, project
from detex_diffusion.text import encode_text, tokenize
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.attribute_vocabulary import AttributeVocabulary
from detex_trainer.attributes import Attribute, Region
from detex_trainer.dataset import PhotoSet
from detex_trainer.methods.concept_words import AttributeStart, class_token_embeddings
from detex_trainer.prompts import surroundings_prompt

_NAME = "subject"
_FIRST_LEVELS = (0.55, 0.8)
"""Noise levels, as shares of the schedule, at which all candidates are tried; most of a picture's content is decided
between them."""
_SECOND_LEVELS = (0.4, 0.65, 0.75, 0.9)
"""At which the best of each photo are tried."""
_FINALISTS = 4
_LARGEST_SIDE = 64
"""Of the latents that are looked at: what a photo shows can be told from a smaller one."""
_MOST_ROWS = 32
_MOST_POSITIONS = 16 * _LARGEST_SIDE**2
"""Of latents in one pass of the UNet."""
_TINY = 1e-12
_SMALLEST_LEAD = 4.0
"""How far a word must stand out from all others to be begun at, in deviations of theirs: the best of a hundred that say
nothing leads by two to three. A measure without a scale, for how much words explain differs from model to model."""
_COMMON_SHARE = 0.5
"""How much of what a word explains in the mean over all photos is held against it where the subject is concerned: the
subject's colour is in all photos, and for the subject word to say."""


@dataclass(frozen=True)
class _Words:
    """A concept without anything learned: one photo, one word for each attribute."""

    class_word: str
    attribute_counts: Mapping[str, int]
    subject_tokens: int = 1


@torch.no_grad()
def attribute_starts(
    base_model: BaseModel,
    class_word: str,
    attributes: Sequence[Attribute],
    photo_set: PhotoSet,
    vocabulary: AttributeVocabulary,
    seed: int,
) -> dict[str, AttributeStart]:
    """Choose a plain word for each attribute and photo.

    Background words are chosen first, words for the whole picture then, words for the subject last, each with those
    that were chosen before in the prompt: a pose shows best where the place is explained.

    Args:
        base_model: Whose UNet is asked.
        class_word: What the subject is.
        attributes: Of the job.
        photo_set: Its photos; looked at as they are.
        vocabulary: Words to choose from.
        seed: Of the noise, which is the same for all candidates.
    """
    chooser = _Chooser(base_model, class_word, tuple(attributes), photo_set, vocabulary, seed)
    order = (Region.BACKGROUND, Region.EVERYWHERE, Region.SUBJECT)
    for attribute in sorted(attributes, key=lambda each: order.index(each.region)):
        chooser.choose(attribute)
    return chooser.chosen


def plain_embedding(base_model: BaseModel, words: str) -> Tensor:
    """Mean embedding (E,) float32 of the tokens of some plain words, before positions are added."""
    return class_token_embeddings(base_model, words).mean(dim=0)


class _Chooser:
    def __init__(
        self,
        base_model: BaseModel,
        class_word: str,
        attributes: tuple[Attribute, ...],
        photo_set: PhotoSet,
        vocabulary: AttributeVocabulary,
        seed: int,
    ) -> None:
        self._base_model = base_model
        self._class_word = class_word
        self._attributes = attributes
        self._latents = _small(photo_set.latents[:, 0])  # (N, C, h, h)
        self._masks = _small(photo_set.masks[:, 0])  # (N, 1, h, h)
        self._valid = _small(photo_set.valid[:, 0])
        self._rows = max(1, min(_MOST_ROWS, _MOST_POSITIONS // self._latents[0, 0].numel()))
        self._vocabulary = vocabulary
        self._seed = seed
        self._unet = KeyValueUNet(base_model.unet, base_model.pixels_per_latent)
        self._words = _Words(class_word, dict.fromkeys([each.name for each in attributes], 1))
        self.chosen: dict[str, AttributeStart] = {}

    def choose(self, attribute: Attribute) -> None:
        """Choose a word of one attribute for each photo."""
        noun = attribute.name.replace("_", " ").replace("-", " ")
        words = ["", *self._vocabulary.of(attribute.region)]
        embeddings = torch.stack([plain_embedding(self._base_model, word or noun) for word in words])  # (K, E)
        first = self._errors(attribute, embeddings, _FIRST_LEVELS)  # (N, K)
        best = self._ranking(attribute, first).topk(min(_FINALISTS, len(words)), largest=False).indices
        finalists = torch.tensor(sorted({0, *best.flatten().tolist()}))
        second = self._errors(attribute, embeddings[finalists.to(embeddings.device)], _SECOND_LEVELS)
        total = len(_FIRST_LEVELS) * first[:, finalists] + len(_SECOND_LEVELS) * second
        places = finalists[self._ranking(attribute, total).argmin(dim=1)]  # (N,)
        leads = _leads(self._ranking(attribute, first), places)
        places = torch.where(leads < _SMALLEST_LEAD, 0, places)
        self.chosen[attribute.name] = AttributeStart(
            tuple(words[place] for place in places.tolist()), embeddings[places.to(embeddings.device)]
        )

    def _ranking(self, attribute: Attribute, errors: Tensor) -> Tensor:
        """(N, K) errors, less what a word explains in all photos where another word is there to explain that."""
        if attribute.region is not Region.SUBJECT:
            return errors
        return errors - _COMMON_SHARE * errors.mean(dim=0)

    def _errors(self, attribute: Attribute, embeddings: Tensor, levels: Sequence[float]) -> Tensor:
        """Logarithm of the denoising error of each photo under each word (N, K), mean over noise levels."""
        errors = torch.zeros(len(self._latents), len(embeddings))
        for start in range(0, len(embeddings), self._rows):
            part = embeddings[start : start + self._rows]
            for photos in self._photos_by_context().values():
                key_values = self._key_values(attribute, photos[0], part)
                for photo in photos:
                    found = self._errors_of(photo, self._weights(attribute.region, photo), key_values, levels)
                    errors[photo, start : start + len(part)] = found
        return errors

    def _photos_by_context(self) -> Mapping[tuple[str, ...], Sequence[int]]:
        """Photos of which the words chosen so far say the same share prompts."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for photo in range(len(self._latents)):
            groups.setdefault(tuple(each.words[photo] for each in self.chosen.values()), []).append(photo)
        return groups

    def _key_values(self, attribute: Attribute, photo: int, embeddings: Tensor) -> KeyValueBatch:
        """Keys and values of the prompts of a photo, one for each candidate word of an attribute."""
        kept = [each for each in self._attributes if each.name in self.chosen or each is attribute]
        prompt = surroundings_prompt(_NAME, 0, kept, self._class_word)
        tokenized = tokenize(prompt, {_NAME: self._words}, self._base_model.tokenizer)
        names = [used.word.attribute or "" for used in tokenized.words]
        fixed = {name: start.embeddings[photo] for name, start in self.chosen.items()}
        rows = [torch.stack([fixed.get(name, row) for name in names]) for row in embeddings]
        text = encode_text(self._base_model, [tokenized] * len(rows), rows)
        return project(self._base_model.unet, text.hidden, (), text.pooled)

    def _errors_of(self, photo: int, weights: Tensor, key_values: KeyValueBatch, levels: Sequence[float]) -> Tensor:
        """(B,) for the B prompts of the keys and values; the noise is the same for all of them."""
        latents = self._latents[photo][None]
        schedule = self._base_model.noise_schedule
        generator = torch.Generator().manual_seed(self._seed)
        rows = key_values.rows
        errors = torch.zeros(rows)
        for level in levels:
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            timesteps = torch.tensor([int(level * schedule.training_timesteps)], device=latents.device)
            noisy = schedule.add_noise(latents, noise, timesteps).to(self._base_model.dtype)
            target = schedule.target(latents, noise, timesteps)
            prediction = self._unet(noisy.expand(rows, -1, -1, -1), timesteps.expand(rows), key_values).float()
            error = ((prediction - target).square() * weights).mean(dim=(1, 2, 3))
            errors += error.clamp_min(_TINY).log().cpu() / len(levels)
        return errors

    def _weights(self, region: Region, photo: int) -> Tensor:
        """(1, h, h), 1 where a word of a region is looked for."""
        mask, valid = self._masks[photo], self._valid[photo]
        if region is Region.SUBJECT:
            return mask * valid
        return (1 - mask) * valid if region is Region.BACKGROUND else valid


def _leads(ranking: Tensor, places: Tensor) -> Tensor:
    """(N,) how far the words at some places are below the median of all, in deviations told from absolute ones.

    Args:
        ranking: (N, K) errors.
        places: (N,) of words.
    """
    middle = ranking.median(dim=1, keepdim=True).values
    deviation = 1.4826 * (ranking - middle).abs().median(dim=1).values  # of a normal distribution, the standard one
    return (middle - ranking.gather(1, places[:, None]))[:, 0] / deviation.clamp_min(_TINY)


def _small(pictures: Tensor) -> Tensor:
    """(N, C, h, h) with a side of at most `_LARGEST_SIDE`."""
    side = max(pictures.shape[-2:])
    return pictures if side <= _LARGEST_SIDE else nn.functional.adaptive_avg_pool2d(pictures, _LARGEST_SIDE)
