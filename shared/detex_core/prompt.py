r"""The prompt language: plain text with words of concepts in square brackets.

    [my-mug] on a beach                                      the subject
    [my-mug] with [my-mug:pose:2] in [my-mug:background:0]   the pose word of photo 2, the background word of photo 0
    a \[boxed\] word                                           plain brackets

A word of a concept brings the noun it was trained beside: `[my-mug]` reads as its embedding and the class word,
`[my-mug:pose:2]` as its embedding and `pose`; where the prompt has that noun next already, it is not said twice.
"""

import re
from dataclasses import dataclass

from detex_core.errors import InvalidInputError, invalid_input
from detex_core.name_form import NameForm

CONCEPT_NAMES = NameForm("a-z", "a-z0-9-", 63, "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter")
ATTRIBUTE_NAMES = NameForm("a-z", "a-z0-9_-", 32, "1 to 32 of a-z, 0-9, _ and -, beginning with a letter")
CONCEPT_NAME = CONCEPT_NAMES.pattern
ATTRIBUTE_NAME = ATTRIBUTE_NAMES.pattern
MAX_PROMPT_CHARACTERS = 10_000
_SHOWN_CHARACTERS = 40

_TOKEN = re.compile(r"\\(?P<escaped>[\[\]\\])|\[(?P<word>[^\[\]]*)\]|(?P<stray>[\[\]])|(?P<text>[^\[\]\\]+|\\)")


@dataclass(frozen=True)
class Text:
    """Plain words between the words of concepts."""

    text: str


@dataclass(frozen=True)
class SubjectWord:
    """`[concept]`: the subject of a concept."""

    concept: str


@dataclass(frozen=True)
class AttributeWord:
    """`[concept:attribute:photo_index]`: what one photo of a concept shows beside its subject."""

    concept: str
    attribute: str
    photo_index: int


Part = Text | SubjectWord | AttributeWord


@dataclass(frozen=True)
class Prompt:
    """A prompt taken apart; adjacent texts are joined, empty texts left out."""

    parts: tuple[Part, ...]

    def concepts(self) -> tuple[str, ...]:
        """Names of the concepts in the order of their first word."""
        return tuple(dict.fromkeys(part.concept for part in self.parts if not isinstance(part, Text)))

    def __str__(self) -> str:
        return "".join(_written(part) for part in self.parts)


def parse_prompt(prompt: str, *, field: str = "prompt") -> Prompt:
    """Take a prompt apart.

    Args:
        prompt: At most 10,000 characters; may be empty.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: The prompt is too long, a bracket has no partner, or a word in brackets is none.
    """
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise invalid_input(field, f"{len(prompt):,} characters", f"at most {MAX_PROMPT_CHARACTERS:,} characters")
    parts: list[Part] = []
    for match in _TOKEN.finditer(prompt):
        if match["stray"]:
            raise invalid_input(field, f"an unmatched {match['stray']!r} at character {match.start()}", _LANGUAGE)
        if match["word"] is not None:
            parts.append(_parse_word(match["word"], field))
            continue
        text = match["escaped"] or match["text"]
        if parts and isinstance(parts[-1], Text):
            parts[-1] = Text(parts[-1].text + text)
        else:
            parts.append(Text(text))
    return Prompt(tuple(parts))


_LANGUAGE = r"text with [concept], [concept:attribute:photo] (photo index from 0), or \[ and \] for literal brackets"
_ARTICLES = {"concept": "a", "attribute": "an"}


def _parse_word(word: str, field: str) -> SubjectWord | AttributeWord:
    pieces = word.split(":")
    if len(pieces) == 1 and CONCEPT_NAME.fullmatch(pieces[0]):
        return SubjectWord(pieces[0])
    if (
        len(pieces) == 3
        and CONCEPT_NAME.fullmatch(pieces[0])
        and ATTRIBUTE_NAME.fullmatch(pieces[1])
        and re.fullmatch(r"0|[1-9][0-9]{0,3}", pieces[2], re.ASCII)
    ):
        return AttributeWord(pieces[0], pieces[1], int(pieces[2]))
    raise _word_error(word, field)


def _word_error(word: str, field: str) -> InvalidInputError:
    pieces = word.split(":")
    if len(pieces) in (1, 3):
        for what, form, name in zip(("concept", "attribute"), (CONCEPT_NAMES, ATTRIBUTE_NAMES), pieces, strict=False):
            if name and not form.is_name(name):
                given = f"[{_shown(word)}]{form.fault(name)}"
                return invalid_input(field, given, _LANGUAGE, note=f"{_ARTICLES[what]} {what} name is {form.accepted}")
    return invalid_input(field, f"[{_shown(word)}]", _LANGUAGE)


def _shown(word: str) -> str:
    """A word for errors: shortened, with what does not print as escapes."""
    cut = word if len(word) <= _SHOWN_CHARACTERS else f"{word[: _SHOWN_CHARACTERS - 3]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]


def _written(part: Part) -> str:
    match part:
        case Text(text):
            return re.sub(r"[\[\]\\]", lambda match: f"\\{match[0]}", text)
        case SubjectWord(concept):
            return f"[{concept}]"
        case AttributeWord(concept, attribute, photo_index):
            return f"[{concept}:{attribute}:{photo_index}]"
