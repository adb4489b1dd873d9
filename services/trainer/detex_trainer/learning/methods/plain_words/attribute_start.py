"""Where attribute words begin: at the plain word by which the base model explains the photo best.

A word that begins at its meaning, "lying" or "beach", needs to learn only how this photo differs from it, and stays
where the base model can combine it with anything. The paper begins at no word in particular.

Legend: N photos, K candidate words, E width of word embeddings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attributes import Attribute, Region
from detex_trainer.learning.methods.concept_words import AttributeStart, plain_embedding
from detex_trainer.learning.methods.plain_words.errors import PlainWordErrors, leads
from detex_trainer.learning.methods.plain_words.noise_levels import NoiseLevels, is_made_of_patches

_LEVELS = NoiseLevels(first=(0.55, 0.8), second=(0.4, 0.65, 0.75, 0.9))
"""Most of a picture's content is decided between the first ones."""
_PLACES_IN_PATCHES = NoiseLevels(first=(0.83,), second=(0.75, 0.8, 0.85, 0.88, 0.91))
"""A place says itself under much noise; under less of it, words for its colour do as well."""
_OTHERS_IN_PATCHES = NoiseLevels(first=(0.55, 0.65, 0.8), second=(0.6, 0.7, 0.75, 0.85))
"""A pose may show at any level, and one noise hardly tells two poses from each other."""
_FINALISTS = 4
_SMALLEST_LEAD = 4.0
"""How far a word must stand out from all others to be begun at: the best of a hundred that say nothing leads by two to
three deviations."""
_COMMON_SHARE = 0.5
"""How much of what a word explains in the mean over all photos is held against it where the subject is concerned: the
subject's colour is in all photos, and for the subject word to say."""


def attribute_start(
    base_model: BaseModel, errors: PlainWordErrors, attribute: Attribute, candidates: Sequence[str]
) -> AttributeStart:
    """Choose a plain word of an attribute for each photo; the attribute's noun where none stands out.

    Args:
        base_model: Whose words they are.
        errors: Measures them.
        attribute: One of the job's.
        candidates: To choose from.
    """
    levels = _LEVELS
    if is_made_of_patches(base_model):
        levels = _PLACES_IN_PATCHES if attribute.region is Region.BACKGROUND else _OTHERS_IN_PATCHES
    noun = attribute.name.replace("_", " ").replace("-", " ")
    words = ["", *candidates]
    embeddings = torch.stack([plain_embedding(base_model, word or noun) for word in words])  # (K, E)
    first = errors.of_attribute(attribute, embeddings, levels.first)  # (N, K)
    best = _ranking(attribute, first).topk(min(_FINALISTS, len(words)), largest=False).indices
    finalists = torch.tensor(sorted({0, *best.flatten().tolist()}))
    second = errors.of_attribute(attribute, embeddings[finalists.to(embeddings.device)], levels.second)
    total = len(levels.first) * first[:, finalists] + len(levels.second) * second
    places = finalists[_ranking(attribute, total).argmin(dim=1)]  # (N,)
    places = torch.where(leads(_ranking(attribute, first), places) < _SMALLEST_LEAD, 0, places)
    return AttributeStart(tuple(words[place] for place in places.tolist()), embeddings[places.to(embeddings.device)])


def _ranking(attribute: Attribute, errors: Tensor) -> Tensor:
    """(N, K) errors, less what a word explains in all photos where another word is there to explain that."""
    if attribute.region is not Region.SUBJECT:
        return errors
    return errors - _COMMON_SHARE * errors.mean(dim=0)
