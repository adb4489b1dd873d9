"""What the demonstration draws of a sample subject."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations

from detex_client.concept import ConceptReference
from detex_showroom import SampleSubject

SCENES = {
    "beach": "on a beach",
    "forest": "in a forest",
    "snow": "in the snow",
    "space": "in space",
    "wooden table": "on a wooden table",
    "city": "in a city",
    "meadow": "in a meadow",
    "underwater": "underwater",
    "desert": "in a desert",
    "kitchen": "in a kitchen",
    "brick wall": "in front of a brick wall",
    "stage": "on a stage",
}
"""Scenes that the embedded base model knows, in the order in which they are taken, and their words in prompts."""

SCENE_COUNT = 6
RECOMBINATION_COUNT = 2
OTHER_CLASSES = ("bowl", "mug")


class DrawingKind(StrEnum):
    """What a drawing of the demonstration shows."""

    SCENE = "new scene"
    RECOMBINATION = "pose of one photo, background of another"
    OTHER_CLASS = "another product in a photo's background"


@dataclass(frozen=True)
class Drawing:
    """One prompt of the demonstration.

    Attributes:
        kind: What it shows.
        prompt: Prompt.
        seed: Seed.
    """

    kind: DrawingKind
    prompt: str
    seed: int


def drawings(subject: SampleSubject, concept: ConceptReference, seed: int) -> list[Drawing]:
    """Six scenes that are in none of the photos, two recombinations of photos, and another class in the first's scene.

    Args:
        subject: Whose photos the concept was learned from; at least two.
        concept: The concept.
        seed: Seed of the first drawing; each next one takes the next seed.
    """
    seen = {photo.scene for photo in subject.photos}
    unseen = [words for scene, words in SCENES.items() if scene not in seen]
    prompts = [(DrawingKind.SCENE, f"a photo of a {concept.word} {words}") for words in unseen[:SCENE_COUNT]]
    for pose, background in _recombinations(subject):
        pose_word = concept.attribute_word("pose", pose)
        background_word = concept.attribute_word("background", background)
        prompt = f"a photo of a {concept.word} with {pose_word} in {background_word}"
        prompts.append((DrawingKind.RECOMBINATION, prompt))
    other = next(word for word in OTHER_CLASSES if word != subject.class_word)
    background_word = concept.attribute_word("background", 0)
    prompts.append((DrawingKind.OTHER_CLASS, f"a photo of a {other} in {background_word}"))
    return [Drawing(kind, prompt, seed + index) for index, (kind, prompt) in enumerate(prompts)]


def _recombinations(subject: SampleSubject) -> list[tuple[int, int]]:
    """Pairs (photo of the pose, photo of the background), those first whose poses and scenes both differ."""
    photos = subject.photos
    pairs = sorted(
        permutations(range(len(photos)), 2),
        key=lambda pair: (
            photos[pair[0]].pose == photos[pair[1]].pose,
            photos[pair[0]].scene == photos[pair[1]].scene,
        ),
    )
    chosen: list[tuple[int, int]] = []
    for pose, background in pairs:
        if all(pose != other[0] and background != other[1] for other in chosen):
            chosen.append((pose, background))
    return chosen[:RECOMBINATION_COUNT]
