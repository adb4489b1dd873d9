"""The prompts that a concept is trained on, in the prompt language of generation, so that both read the same.

a photo of a [my-mug] with [my-mug:pose:2] in [my-mug:background:2]

Those that draw import torch themselves: whoever only wants to know how long prompts are does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detex_core.prompt import AttributeWord, Part, Prompt, SubjectWord, Text
from detex_trainer.domain.attributes import Attribute
from detex_trainer.domain.views import View

if TYPE_CHECKING:
    import torch

PREFIXES = ("a photo of a ", "a picture of a ", "an image of a ", "a close photo of a ", "a ")
"""Ways to begin; several of them, so that the words do not come to depend on one."""

RARE_WORD = "sks"
"""Stands for the subject where a word is wanted that means nothing yet (DreamBooth, Ruiz et al. 2023, section 3.1)."""

VIEWS = {View.AS_IT_IS: ("",), View.SMALL: ("far away", "very small"), View.NEAR: ("zoomed in", "close up")}
"""What is said of a photo that is shown small or from near, so that size is not learned as part of the subject (Custom
Diffusion, Kumari et al. 2023, section 3.3)."""

REGULARISATION_PROMPTS = (
    "a photo of a {class_word}",
    "a picture of a {class_word} on a beach",
    "a photo of a {class_word} in a forest",
    "a {class_word} in the snow",
    "a photo of a {class_word} in a city at night",
    "a {class_word} on a wooden table",
    "a photo of a red {class_word}",
    "a photo of a person",
    "a photo",
    "",
)
"""Text whose keys and values shall stay as they are while a concept is learned."""


def training_prompt(
    concept: str,
    photo_index: int,
    kept: Sequence[Attribute],
    *,
    prefix: str = PREFIXES[0],
    caption: str = "",
    class_word: str = "",
) -> Prompt:
    """The prompt for one photo.

    Args:
        concept: Name of the concept.
        photo_index: Which photo's attribute words.
        kept: Attributes in the prompt, in the order in which they are said.
        prefix: What leads to the subject word.
        caption: What the user says of the photo; the class word in it becomes the subject word.
        class_word: As in the training set; only needed with a caption.
    """
    parts: list[Part] = [Text(prefix), SubjectWord(concept)]
    if caption:
        parts = _captioned(concept, caption, class_word)
    return Prompt(tuple(_joined(parts + _attribute_parts(concept, photo_index, kept))))


def class_prompt(class_word: str) -> str:
    """What is said of any member of the class, in plain words."""
    return f"{PREFIXES[0]}{class_word}"


def view_prefix(view: str) -> str:
    """What leads to the subject word of a photo that is shown in some view, for example `a far away photo of a `."""
    return f"a {view} photo of a "


def surroundings_prompt(
    concept: str, photo_index: int, kept: Sequence[Attribute], class_word: str, *, prefix: str = PREFIXES[0]
) -> Prompt:
    """The prompt for one photo with the plain class word in place of the subject word.

    What surrounds the subject must then be explained by the attribute words alone.
    """
    parts: list[Part] = [Text(f"{prefix}{class_word}")]
    return Prompt(tuple(_joined(parts + _attribute_parts(concept, photo_index, kept))))


def random_prefix(generator: torch.Generator) -> str:
    """One of the prefixes; the first, which people use most, half of the time."""
    import torch

    draw = int(torch.randint(0, 2 * (len(PREFIXES) - 1), (), generator=generator))
    return PREFIXES[draw + 1] if draw < len(PREFIXES) - 1 else PREFIXES[0]


def random_view(view: View, generator: torch.Generator) -> str:
    """Words for how a photo is shown; empty where it is shown as it is."""
    import torch

    words = VIEWS[view]
    return words[int(torch.randint(0, len(words), (), generator=generator))]


def random_subset(
    attributes: Sequence[Attribute], keep_probability: float, generator: torch.Generator
) -> tuple[Attribute, ...]:
    """The attributes that stay in a prompt, each with the given probability, in their order."""
    import torch

    draws = torch.rand(len(attributes), generator=generator).tolist()
    return tuple(attribute for attribute, draw in zip(attributes, draws, strict=True) if draw < keep_probability)


def _captioned(concept: str, caption: str, class_word: str) -> list[Part]:
    words, wanted = caption.split(), class_word.lower().split()
    plain = [word.lower().strip(".,;:!?") for word in words]
    for start in range(len(words) - len(wanted) + 1):
        if wanted and plain[start : start + len(wanted)] == wanted:
            before, after = " ".join(words[:start]), " ".join(words[start + len(wanted) :])
            return [Text(f"{before} " if before else ""), SubjectWord(concept), Text(f" {after}" if after else "")]
    return [Text(PREFIXES[0]), SubjectWord(concept), Text(f", {' '.join(words)}")]


def _attribute_parts(concept: str, photo_index: int, kept: Sequence[Attribute]) -> list[Part]:
    parts: list[Part] = []
    for attribute in kept:
        parts += [Text(f" {attribute.preposition} "), AttributeWord(concept, attribute.name, photo_index)]
    return parts


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Adjacent texts as one, empty texts left out, as `parse_prompt` gives them."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + part.text)
        elif not isinstance(part, Text) or part.text:
            joined.append(part)
    return joined
