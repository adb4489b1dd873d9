"""Which prompt a photo is shown with in a step: a random subset of its words (DETEX, joint training)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detex_core.prompt import Prompt
from detex_trainer.domain.attributes import Attribute, Region, explained_regions
from detex_trainer.domain.prompts import random_prefix, random_subset, surroundings_prompt, training_prompt, view_prefix


@dataclass(frozen=True)
class PhotoPrompt:
    """What is said of one photo in one step.

    Attributes:
        prompt: In the prompt language.
        explained: The regions that its words can explain.
    """

    prompt: Prompt
    explained: frozenset[Region]


@dataclass(frozen=True)
class PhotoPrompts:
    """Makes the prompts of a training set.

    Attributes:
        concept: Name of the concept.
        class_word: What the subject is.
        attributes: What has a word of its own per photo.
        captions: What the user says of each photo; may be empty.
        keep_probability: Probability that an attribute word stays in a prompt.
        surroundings_probability: How often a prompt with a background word says the plain class word in place of the
            subject word, and explains the surroundings alone.
    """

    concept: str
    class_word: str
    attributes: tuple[Attribute, ...]
    captions: Sequence[str]
    keep_probability: float
    surroundings_probability: float = 0.0

    def draw(self, photo_index: int, generator: torch.Generator, view: str = "") -> PhotoPrompt:
        """A random prompt for a photo; `view` is what is to be said of how it is shown, see `Batch`."""
        kept = random_subset(self.attributes, self.keep_probability, generator)
        prefix = random_prefix(generator)
        if view:
            prefix = view_prefix(view)
        without_subject = bool(torch.rand((), generator=generator) < self.surroundings_probability)
        explained = explained_regions(self.attributes, kept)
        if without_subject and Region.BACKGROUND in explained:
            outside = [attribute for attribute in kept if attribute.region is not Region.SUBJECT]
            prompt = surroundings_prompt(self.concept, photo_index, outside, self.class_word, prefix=prefix)
            return PhotoPrompt(prompt, explained - {Region.SUBJECT})
        caption = self.captions[photo_index]
        prompt = training_prompt(
            self.concept, photo_index, kept, prefix=prefix, caption=caption, class_word=self.class_word
        )
        return PhotoPrompt(prompt, explained)

    def full(self, photo_index: int, kept: Sequence[Attribute] | None = None) -> PhotoPrompt:
        """The plain prompt of a photo with the given attribute words, by default all of them."""
        kept = self.attributes if kept is None else kept
        return PhotoPrompt(training_prompt(self.concept, photo_index, kept), explained_regions(self.attributes, kept))
