"""The class word: what the subject is, in words that the base model knows."""

import unicodedata

from detex_core.errors import invalid_input
from detex_core.name_form import shown_character, shown_text
from detex_trainer.domain.training_set_record import MAX_CLASS_WORD_CHARACTERS

_ACCEPTED = (
    f"1 to {MAX_CLASS_WORD_CHARACTERS} letters, digits, spaces and hyphens with at least one letter, for example mug"
)

_LONGEST_GIVEN = 8 * MAX_CLASS_WORD_CHARACTERS  # a letter may come with its marks apart, and spaces around all


def checked_class_word(class_word: str) -> str:
    """The class word without the spaces around it, its letters composed (NFC), as tokenizers read them.

    Raises:
        InvalidInputError: It is none; field `header.class_word`.
    """
    words = unicodedata.normalize("NFC", class_word[:_LONGEST_GIVEN]).strip(" ")
    well_formed = (
        len(class_word) <= _LONGEST_GIVEN
        and len(words) <= MAX_CLASS_WORD_CHARACTERS
        and all(_is_word(word) for word in words.replace("-", " ").split(" "))
        and any(character.isalpha() for character in words)
    )
    if not well_formed:
        raise invalid_input("header.class_word", f"{shown_text(class_word)}{_fault(words)}", _ACCEPTED)
    return words


def _fault(words: str) -> str:
    """What is wrong, where a character or the length is; otherwise the words show it themselves."""
    for character in words:
        if character not in " -" and unicodedata.category(character)[0] not in "LNM":
            return f", where {shown_character(character)} is not allowed"
    return f", which has {len(words):,} characters" if len(words) > MAX_CLASS_WORD_CHARACTERS else ""


def _is_word(word: str) -> bool:
    """Whether it is of letters and digits, with the marks that many scripts put to their letters."""
    kinds = [unicodedata.category(character)[0] for character in word]
    return bool(kinds) and kinds[0] in "LN" and set(kinds) <= set("LNM")
