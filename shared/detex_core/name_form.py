"""Name syntax, and which character makes a name invalid."""

import re
from dataclasses import dataclass, field

_SHOWN_CHARACTERS = 32


@dataclass(frozen=True)
class NameForm:
    """A kind of name.

    Attributes:
        first: Characters allowed in first place, as in a regular expression's brackets, for example `a-z`.
        others: Characters allowed after it, likewise.
        longest: Maximum length in characters.
        accepted: The rule in words, for error messages.
        shortest: Minimum length in characters.
        pattern: Matches a whole name.
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
        """An invalid name and what is wrong with it: `'my_mug', where '_' is not allowed`."""
        return f"{shown_text(text)}{self.fault(text)}"

    def fault(self, text: str) -> str:
        """What is wrong with a name: `, where '_' is not allowed`; nothing for an empty one."""
        if not text:
            return ""
        for position, character in enumerate(text[: self.longest]):
            if re.fullmatch(rf"[{self.first if position == 0 else self.others}]", character):
                continue
            if re.fullmatch(rf"[{self.others}]", character):
                return f", which begins with {shown_character(character)}"
            return f", where {shown_character(character)} is not allowed"
        return f", which has {len(text):,} characters"


def shown_text(text: str) -> str:
    """Text in quotes, shortened for error messages, with non-printable characters escaped."""
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]!r}..."


def shown_character(character: str) -> str:
    """A character in quotes; with its code point where it is not printable ASCII and could be misread."""
    plain = character.isascii() and character.isprintable()
    return repr(character) if plain else f"{character!r} (U+{ord(character):04X})"
