"""Scenes to choose from, and the prompt that a choice comes to."""

from dataclasses import dataclass

from detex_client import ConceptReference

SCENES = {
    "wooden_table": "on a wooden table",
    "kitchen": "in a kitchen",
    "studio": "in a studio",
    "white": "on a plain white background",
    "library": "in a library",
    "brick_wall": "in front of a brick wall",
    "city": "in a city",
    "beach": "on a beach",
    "meadow": "in a meadow",
    "forest": "in a forest",
    "snow": "in the snow",
    "desert": "in a desert",
    "sunset": "at sunset",
    "stage": "on a stage",
    "underwater": "underwater",
    "space": "in space",
}
"""Words of each scene in prompts. The page shows them in its own language."""


@dataclass(frozen=True)
class Choice:
    """What a picture shall show.

    Attributes:
        scene: Words for the scene, for example `on a beach`; may be empty.
        pose: Photo whose pose is taken; None leaves it open.
        background: Photo whose background is taken; None leaves it to the scene.
    """

    scene: str = ""
    pose: int | None = None
    background: int | None = None


def prompt_of(concept: ConceptReference, choice: Choice) -> str:
    """The prompt: `a photo of a [my-mug] with [my-mug:pose:1] on a beach`.

    A background that is taken from a photo stands in the place of the scene; further words follow it.
    """
    words = f"a photo of a {concept.word}"
    if choice.pose is not None:
        words += f" with {concept.attribute_word('pose', choice.pose)}"
    if choice.background is not None:
        words += f" in {concept.attribute_word('background', choice.background)}"
        return f"{words}, {choice.scene}" if choice.scene else words
    return f"{words} {choice.scene}" if choice.scene else words


def escaped(words: str) -> str:
    """Free words in which square brackets are plain ones, for words of concepts are the page's to write."""
    return words.replace("[", "\\[").replace("]", "\\]")
