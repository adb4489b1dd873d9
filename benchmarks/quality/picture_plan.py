"""Which pictures are drawn of a subject: the same prompts and seeds for every method and for the base model.

A prompt has two wordings. The first names the concept, `a photo of a [subject] on a beach`; the second, which the base
model draws, says the same in plain words, `a photo of a mug on a beach`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from typing import Final

import numpy as np

from benchmarks.showroom.captions import SCENE_PHRASES
from benchmarks.showroom.factors import CLASSES, POSES, SCENES

CONCEPT_NAME: Final = "subject"
_PLAN_STREAM: Final = 0x91A7
_FREE_PICTURES: Final = 6
_PICTURES_PER_POSE: Final = 2
_OTHER_CLASSES: Final = 2
_CLASS_PICTURES: Final = 8


class Task(StrEnum):
    """What is asked of a picture."""

    FREE = "free"  # the subject alone
    SCENE = "scene"  # in a named scene that no photo shows
    POSE = "pose"  # in a named pose
    BOTH = "both"  # in a named pose and a named scene that no photo shows
    REUSE = "reuse"  # in the pose of one photo and the background of another, by their words
    OTHER_CLASS = "other_class"  # something else in the background of a photo, by its word
    CLASS = "class"  # the plain class word, to see whether it still means what it meant


SUBJECT_TASKS: Final = (Task.FREE, Task.SCENE, Task.POSE, Task.BOTH)
"""What every method can be asked."""
WORD_TASKS: Final = (Task.REUSE, Task.OTHER_CLASS)
"""What only a method with words for poses and backgrounds can be asked."""


@dataclass(frozen=True)
class PictureRequest:
    """One picture to draw.

    Attributes:
        task: What is asked.
        prompt: In the prompt language, with the concept `subject`.
        plain_prompt: The same in plain words.
        seed: Of the initial noise.
        class_word: What the picture must show.
        pose: Pose that was asked, or None.
        scene: Scene that was asked, or None.
    """

    task: Task
    prompt: str
    plain_prompt: str
    seed: int
    class_word: str
    pose: str | None = None
    scene: str | None = None


def plan_pictures(class_word: str, photos: Sequence[tuple[str, str]], seed: int) -> tuple[PictureRequest, ...]:
    """All pictures of a subject.

    Args:
        class_word: What the subject is.
        photos: Pose and scene of each photo that it is learned from.
        seed: Of this subject in this benchmark; decides chance choices and the seeds of the pictures.
    """
    rng = np.random.default_rng([_PLAN_STREAM, seed])
    free_scenes = [str(scene) for scene in rng.permutation(SCENES) if scene not in {scene for _, scene in photos}]
    mixed_poses = [str(pose) for pose in rng.permutation(POSES)]
    strangers = [word for word in CLASSES if word != class_word]
    rows: list[tuple[Task, str, str, str | None, str | None]] = []
    rows += [(Task.FREE, "", class_word, None, None)] * _FREE_PICTURES
    rows += [(Task.SCENE, f" {SCENE_PHRASES[scene][0]}", class_word, None, scene) for scene in free_scenes]
    rows += [(Task.POSE, f" with {pose} pose", class_word, pose, None) for pose in POSES * _PICTURES_PER_POSE]
    for place, scene in enumerate(free_scenes):
        pose = mixed_poses[place % len(mixed_poses)]
        rows.append((Task.BOTH, f" with {pose} pose in {scene} background", class_word, pose, scene))
    requests = [
        _request(rng, task, f"[{CONCEPT_NAME}]{ending}", f"{word}{ending}", word, pose, scene)
        for task, ending, word, pose, scene in rows
    ]
    for of_pose, of_scene in permutations(range(len(photos)), 2):
        pose, scene = photos[of_pose][0], photos[of_scene][1]
        words = f"[{CONCEPT_NAME}] with [{CONCEPT_NAME}:pose:{of_pose}] in [{CONCEPT_NAME}:background:{of_scene}]"
        plain = f"{class_word} with {pose} pose in {scene} background"
        requests.append(_request(rng, Task.REUSE, words, plain, class_word, pose, scene))
    for place, (_, scene) in enumerate(photos):
        for word in rng.choice(strangers, _OTHER_CLASSES, replace=False).tolist():
            words = f"{word} in [{CONCEPT_NAME}:background:{place}]"
            plain = f"{word} in {scene} background"
            requests.append(_request(rng, Task.OTHER_CLASS, words, plain, word, None, scene))
    for place in range(_CLASS_PICTURES):
        named = free_scenes[place] if place % 2 and place < len(free_scenes) else None
        plain = f"{class_word} {SCENE_PHRASES[named][0]}" if named else class_word
        requests.append(_request(rng, Task.CLASS, plain, plain, class_word, None, named))
    return tuple(requests)


def _request(
    rng: np.random.Generator,
    task: Task,
    words: str,
    plain_words: str,
    class_word: str,
    pose: str | None,
    scene: str | None,
) -> PictureRequest:
    return PictureRequest(
        task=task,
        prompt=f"a photo of a {words}",
        plain_prompt=f"a photo of a {plain_words}",
        seed=int(rng.integers(1 << 32)),
        class_word=class_word,
        pose=pose,
        scene=scene,
    )
