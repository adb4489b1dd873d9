"""The class word: what the subject is, in words that the base model knows."""

import re

from detex_core.errors import invalid_input
from detex_trainer.training_set.record import MAX_CLASS_WORD_CHARACTERS

_ACCEPTED = (
    f"1 to {MAX_CLASS_WORD_CHARACTERS} letters, digits, spaces and hyphens with at least one letter, for example mug"
)
_WORDS = re.compile(r"[^\W_]+(?:[ -][^\W_]+)*")


def checked_class_word(class_word: str) -> str:
    """The class word without the spaces around it.

    Raises:
        InvalidInputError: It is none; field `header.class_word`.
    """
    words = class_word.strip(" ")
    well_formed = (
        len(words) <= MAX_CLASS_WORD_CHARACTERS
        and _WORDS.fullmatch(words)
        and any(character.isalpha() for character in words)
    )
    if not well_formed:
        raise invalid_input("header.class_word", repr(class_word), _ACCEPTED)
    return words
