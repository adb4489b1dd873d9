"""Plain words without those that the rendered world has names for.

The trainer's list of plain words holds the world's poses, scenes and colours, as it holds much else. What that is worth
is measured by taking them away: each photo's right word is then missing, as it may be for a photo of the real world.
"""

from typing import Final

from benchmarks.showroom.captions import POSE_PHRASES, SCENE_PHRASES
from benchmarks.showroom.factors import COLOURS, MATERIALS, PATTERNS, POSES, SCENES
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary

_LITTLE_WORDS: Final = frozenset(["a", "at", "by", "from", "in", "its", "of", "on", "the", "to"])


def vocabulary_without_the_world() -> AttributeVocabulary:
    """The built-in words but for all that have a word in common with the world's, poses and scenes in any wording."""
    phrases = [*POSES, *SCENES, *COLOURS, *PATTERNS, *MATERIALS]
    phrases += [phrase for wordings in (*POSE_PHRASES.values(), *SCENE_PHRASES.values()) for phrase in wordings]
    named = {word for phrase in phrases for word in phrase.split()} - _LITTLE_WORDS
    built_in = AttributeVocabulary()

    def unnamed(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for word in words if not named & set(word.split()))

    return AttributeVocabulary(
        subject=unnamed(built_in.subject),
        background=unnamed(built_in.background),
        everywhere=unnamed(built_in.everywhere),
        appearance=unnamed(built_in.appearance),
    )
