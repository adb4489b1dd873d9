"""Which words of a prompt speak of which subject, so that subjects can be distinguished by place.

A prompt is cut into clauses at punctuation and at English prepositions and conjunctions. A clause speaks of the subject
whose word stands in it; one that describes (`with red dots`, `[my-mug:pose:2]`) speaks of the subject before it; all
others speak of the scene:

    a red [my-mug] with dots | next to [my-vase] | on a beach
          my-mug                  my-vase           scene

The rules are for English. Where they do not fit, a region brings its own prompt.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from detex_core.prompt import AttributeWord, Part, Prompt, SubjectWord, Text

_PREPOSITIONS = (
    "about above across against along alongside among and around at atop before behind below beneath beside besides "
    "between by from in inside into near next of on onto opposite or outside over plus to toward towards under "
    "underneath while"
)
_DESCRIBING = "with without made covered decorated filled painted"
_INSIDE_PREPOSITIONS = "the a front back left right side top bottom middle centre center"
_FIRST = "|".join((_PREPOSITIONS + " " + _DESCRIBING).split())
_PREPOSITION = "|".join(_PREPOSITIONS.split())
_INSIDE = "|".join(_INSIDE_PREPOSITIONS.split())
# `in front of`, `to the left of`: further words belong to it where a preposition ends it.
_BOUNDARY = re.compile(
    rf"[,;.:!?()]+\s*(?:(?:and|or)\b)?|\b(?:{_FIRST})\b(?:(?:\s+(?:{_INSIDE}))*\s+(?:{_PREPOSITION})\b)*",
    re.IGNORECASE,
)
_SCENE_ATTRIBUTE = "background"


@dataclass(frozen=True)
class Clause:
    """Words that belong together.

    Attributes:
        connective: What ties it to the words before it, `next to` for example; may be empty.
        parts: Its words after that; may be empty.
        subject: Name of the concept that it speaks of; None for the scene.
    """

    connective: str
    parts: tuple[Part, ...]
    subject: str | None


def clauses(prompt: Prompt) -> tuple[Clause, ...]:
    """The clauses of a prompt, in their order; nothing of the prompt is lost."""
    found: list[Clause] = []
    subject: str | None = None  # that a describing clause would speak of
    for connective, parts in _separated(prompt):
        own = next((part.concept for part in parts if isinstance(part, SubjectWord)), None)
        attribute = any(isinstance(part, AttributeWord) and part.attribute != _SCENE_ATTRIBUTE for part in parts)
        scene = any(isinstance(part, AttributeWord) and part.attribute == _SCENE_ATTRIBUTE for part in parts)
        describing = attribute or (not scene and connective.strip().lower().split(" ")[0] in _DESCRIBING.split())
        if own is not None or not describing:
            subject = own
        found.append(Clause(connective, parts, subject))
    return tuple(found)


def by_subject(prompt: Prompt) -> tuple[Prompt, tuple[str | None, ...]]:
    """The prompt with its texts cut at clauses, and for each part the concept it speaks of, None for the scene.

    The new prompt reads the same; connectives belong to the scene.
    """
    parts: list[Part] = []
    subjects: list[str | None] = []
    for clause in clauses(prompt):
        if clause.connective:
            parts.append(Text(clause.connective))
            subjects.append(None)
        parts.extend(clause.parts)
        subjects.extend([clause.subject] * len(clause.parts))
    return Prompt(tuple(parts)), tuple(subjects)


def prompt_of_subject(prompt: Prompt, concept: str) -> Prompt:
    """The prompt as it would be with one subject alone: what speaks of the other subjects is left out.

    `a photo of a red [my-mug] and [my-vase] on a beach` is, for `my-vase`, `a photo of [my-vase] on a beach`.
    """
    parts: list[Part] = []
    inherited: str | None = None  # connective of a clause that was left out just before
    for clause in clauses(prompt):
        if clause.subject not in (None, concept):
            inherited = clause.connective if inherited is None else inherited
            continue
        connective = clause.connective
        if inherited is not None and clause.subject == concept:
            connective = inherited
        if inherited is not None:
            parts.append(Text(" "))
        inherited = None
        parts.append(Text(connective))
        parts.extend(clause.parts)
    return _joined(parts)


def _separated(prompt: Prompt) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """Connective and parts of each clause."""
    connective = ""
    parts: list[Part] = []
    for part in prompt.parts:
        if isinstance(part, Text):
            start = 0
            for boundary in _BOUNDARY.finditer(part.text):
                if before := part.text[start : boundary.start()]:
                    parts.append(Text(before))
                if connective or parts:
                    yield connective, tuple(parts)
                connective, parts, start = boundary.group(), [], boundary.end()
            if rest := part.text[start:]:
                parts.append(Text(rest))
            continue
        if isinstance(part, SubjectWord):
            last = max((i for i, each in enumerate(parts) if isinstance(each, SubjectWord)), default=-1)
            if last >= 0 and parts[last] != part:
                # Two subjects with nothing between that separates: adjectives go with the word that follows.
                yield connective, tuple(parts[: last + 1])
                connective, parts = "", parts[last + 1 :]
        parts.append(part)
    if connective or parts:
        yield connective, tuple(parts)


def _joined(parts: list[Part]) -> Prompt:
    """Adjacent texts joined, white space made even, and what separates nothing taken off the ends."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + part.text)
        else:
            joined.append(part)
    texts = [
        re.sub(r"\s+(?=[,;.:!?)])", "", re.sub(r"\s+", " ", part.text)) if isinstance(part, Text) else ""
        for part in joined
    ]
    if texts:
        texts[0], texts[-1] = texts[0].lstrip(" ,;.:!?)"), texts[-1].rstrip(" ,;:(")
    return Prompt(
        tuple(
            Text(text) if isinstance(part, Text) else part
            for part, text in zip(joined, texts, strict=True)
            if text or not isinstance(part, Text)
        )
    )
