"""Text that has nothing to do with a concept, encoded: what its deltas shall leave alone.

Legend: T' text tokens up to the end of a prompt, E text width.
"""

import torch
from torch import Tensor

from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.text import encode, tokenize
from detex_trainer.domain.prompts import REGULARISATION_PROMPTS


def regularisation_states(base_model: BaseModel, class_word: str) -> list[Tensor]:
    """Hidden states (T', E) float32 of the regularisation prompts up to their end."""
    prompts = [text.format(class_word=class_word) for text in REGULARISATION_PROMPTS]
    tokenized = [tokenize(parse_prompt(text), {}, base_model.tokenizer) for text in prompts]
    with torch.no_grad():
        hidden = encode(base_model, tokenized).float()
    return [each[: prompt.length] for each, prompt in zip(hidden, tokenized, strict=True)]
