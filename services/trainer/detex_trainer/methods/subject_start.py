"""Where the subject word begins: at the plain words by which the base model explains the subject best in all photos.

A descent from the class word has to find each of a subject's traits, its colour above all, far away in the space of
word embeddings, and often ends without some of them. One that begins at "green striped" before the class word has them
from the first step, and spends its steps on what no word says.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_trainer.methods.attribute_start import FIRST_LEVELS, SECOND_LEVELS
from detex_trainer.methods.concept_words import SubjectStart, plain_embedding
from detex_trainer.methods.plain_word_errors import PlainWordErrors, leads

_FINALISTS = 5
_SMALLEST_LEAD = 6.0
"""How far a word must stand out from all others to be begun at, in deviations. Errors are means over all photos, so
that words lead by more than those of one photo: by ten and more for a colour, by up to five if they say nothing."""


def subject_start(base_model: BaseModel, errors: PlainWordErrors, candidates: Sequence[str], most: int) -> SubjectStart:
    """Choose plain words that describe the subject, one after another as long as one stands out.

    Args:
        base_model: Whose words they are.
        errors: Measures them, beside the words that were chosen for the photos' surroundings.
        candidates: To choose from.
        most: How many there may be.

    Returns:
        Words in the order in which they stand before the class word; possibly none.
    """
    embeddings = [plain_embedding(base_model, word) for word in candidates]

    def mean_errors(phrases: Sequence[tuple[int, ...]], levels: Sequence[float]) -> Tensor:
        rows = [torch.stack([embeddings[word] for word in phrase]) for phrase in phrases]
        return errors.of_subject(rows, levels).mean(dim=0)

    said: tuple[int, ...] = ()
    while len(said) < most:
        phrases = [(*said, word) for word in range(len(candidates)) if word not in said]
        if not phrases:
            break
        first = mean_errors(phrases, FIRST_LEVELS)  # (K,)
        best = first.topk(min(_FINALISTS, len(phrases)), largest=False).indices.tolist()
        places = [(index, position) for index in best for position in range(len(said) + 1)]
        finalists = [(*said[:position], phrases[index][-1], *said[position:]) for index, position in places]
        total = len(FIRST_LEVELS) * mean_errors(finalists, FIRST_LEVELS)
        total += len(SECOND_LEVELS) * mean_errors(finalists, SECOND_LEVELS)
        chosen = int(total.argmin())
        if float(leads(first[None], torch.tensor([places[chosen][0]]))) < _SMALLEST_LEAD:
            break
        said = finalists[chosen]
    found = [embeddings[word] for word in said]
    nothing = torch.zeros(0, base_model.embedding_width, device=base_model.device)
    return SubjectStart(tuple(candidates[word] for word in said), torch.stack(found) if found else nothing)
