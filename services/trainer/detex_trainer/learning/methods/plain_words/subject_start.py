"""Where the subject word begins: at the plain words by which the base model explains the subject best in all photos.

A descent from the class word has to find each of a subject's traits, its second colour for example, far away in the
space of word embeddings, and often ends without some of them. One that begins at "green robot with purple details" has
them from the first step, and spends its steps on what no word says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.learning.methods.concept_words import SubjectStart, class_token_embeddings, plain_embedding
from detex_trainer.learning.methods.plain_words.errors import PlainWordErrors, leads
from detex_trainer.learning.methods.plain_words.noise_levels import NoiseLevels, is_made_of_patches

MOST_TOKENS = 8
_LEVELS = NoiseLevels(first=(0.6,), second=(0.45, 0.55, 0.7, 0.85))
"""Lower than those of attribute words: a detail is decided after the whole."""
_LEVELS_OF_PATCHES = NoiseLevels(first=(0.8,), second=(0.6, 0.7, 0.85))
_FINALISTS = 8
_MOST_TRAITS = 3
_SMALLEST_LEAD = 5.0
"""How far a trait must stand out from all others that could be said in its place, in deviations. Errors are means over
all photos, so that words lead by more than those of one photo: most colours by ten and more, the best of those that
say nothing by up to four."""


@dataclass(frozen=True)
class Description:
    """Plain words that describe a subject, said before its class word.

    Attributes:
        adjectives: In their order.
        second: A further adjective, after "and".
        details: What its details are.
    """

    adjectives: tuple[str, ...] = ()
    second: str = ""
    details: str = ""

    @property
    def traits(self) -> tuple[str, ...]:
        """All that is said of the subject."""
        return tuple(trait for trait in (*self.adjectives, self.second, self.details) if trait)

    def text(self, class_word: str) -> str:
        """For example "green striped", "green and purple", or "green robot with purple details"."""
        words = [*self.adjectives, *(["and", self.second] if self.second else [])]
        if self.details:
            words += [class_word, "with", self.details, "details"]
        return " ".join(words)

    def embeddings(self, base_model: BaseModel, class_word: str) -> Tensor:
        """(k, E) of its text, where each adjective is one token."""
        rows = [plain_embedding(base_model, word)[None] for word in self.adjectives]
        if self.second:
            rows += [class_token_embeddings(base_model, "and"), plain_embedding(base_model, self.second)[None]]
        if self.details:
            rows += [class_token_embeddings(base_model, f"{class_word} with")]
            rows += [plain_embedding(base_model, self.details)[None], class_token_embeddings(base_model, "details")]
        return torch.cat(rows) if rows else torch.zeros(0, base_model.embedding_width, device=base_model.device)

    def longer(self, words: Sequence[str]) -> Iterator[tuple[str, "Description"]]:
        """Each description that says one thing more, with the way in which it says it."""
        for word in words:
            if word in self.traits:
                continue
            if not self.second:
                yield "adjective", replace(self, adjectives=(*self.adjectives, word))
            if self.adjectives and not self.second and not self.details:
                yield "second", replace(self, second=word)
            if self.adjectives and not self.details:
                yield "details", replace(self, details=word)


def subject_start(
    base_model: BaseModel, errors: PlainWordErrors, class_word: str, candidates: Sequence[str]
) -> SubjectStart:
    """Choose plain words that describe the subject, one after another as long as one stands out.

    Args:
        base_model: Whose words they are.
        errors: Measures them, beside the words that were chosen for the photos' surroundings.
        class_word: What the subject is.
        candidates: Words to choose from.

    Returns:
        A description of at most 8 tokens, possibly empty.
    """

    def mean_errors(descriptions: Sequence[Description], at: Sequence[float]) -> Tensor:
        rows = [each.embeddings(base_model, class_word) for each in descriptions]
        found = torch.zeros(len(rows))
        for length in {len(row) for row in rows}:
            places = [place for place, row in enumerate(rows) if len(row) == length]
            found[places] = errors.of_subject([rows[place] for place in places], at).mean(dim=0)
        return found

    levels = _LEVELS_OF_PATCHES if is_made_of_patches(base_model) else _LEVELS
    chosen = Description()
    while len(chosen.traits) < _MOST_TRAITS:
        tried = [
            (way, each)
            for way, each in chosen.longer(candidates)
            if len(each.embeddings(base_model, class_word)) <= MOST_TOKENS
        ]
        if not tried:
            break
        first = mean_errors([each for _, each in tried], levels.first)
        finalists = first.topk(min(_FINALISTS, len(tried)), largest=False).indices
        second = mean_errors([tried[place][1] for place in finalists.tolist()], levels.second)
        total = len(levels.first) * first[finalists] + len(levels.second) * second
        best = int(finalists[total.argmin()])
        alike = [place for place, (way, _) in enumerate(tried) if way == tried[best][0]]
        if float(leads(first[None, alike], torch.tensor([alike.index(best)]))) < _SMALLEST_LEAD:
            break
        chosen = tried[best][1]
    return SubjectStart(chosen.text(class_word), chosen.embeddings(base_model, class_word))
