"""What names are made of, and which character of a name that is none is at fault."""

import re
from dataclasses import dataclass, field

_SHOWN_CHARACTERS = 32


@dataclass(frozen=True)
class NameForm:
    """A kind of name.

    Attributes:
        first: The characters that it may begin with, as in a regular expression's brackets, for example `a-z`.
        others: Those that may follow, likewise.
        longest: Most characters.
        accepted: The same in words, for errors.
        shortest: Fewest characters.
        pattern: Matches whole names.
    """

    first: str
    others: str
    longest: int
    accepted: str
    shortest: int = 1
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.compile(rf"[{self.first}][{self.others}]{{{self.shortest - 1},{self.longest - 1}}}")
        object.__setattr__(self, "pattern", pattern)

    def is_name(self, text: str) -> bool:
        """Whether the whole text is such a name."""
        return self.pattern.fullmatch(text) is not None

    def given(self, text: str) -> str:
        """A text that is no such name, with what is wrong with it: `'my_mug', where '_' is not accepted`."""
        return f"{shown_text(text)}{self.fault(text)}"

    def fault(self, text: str) -> str:
        """What is wrong with a text: `, where '_' is not accepted`; nothing for an empty one, which says it."""
        if not text:
            return ""
        for position, character in enumerate(text[: self.longest]):
            if re.fullmatch(rf"[{self.first if position == 0 else self.others}]", character):
                continue
            if re.fullmatch(rf"[{self.others}]", character):
                return f", which begins with {shown_character(character)}"
            return f", where {shown_character(character)} is not accepted"
        return f", which has {len(text):,} characters"


def shown_text(text: str) -> str:
    """A text in quotes, shortened for errors, with what does not print as escapes."""
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]!r}..."


def shown_character(character: str) -> str:
    """A character in quotes; one that is not ASCII, and so may look like another one or like none, with its number."""
    plain = character.isascii() and character.isprintable()
    return repr(character) if plain else f"{character!r} (U+{ord(character):04X})"
