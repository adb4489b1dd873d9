"""Metrics of one method on one subject, made of the facts of its pictures. README.md tells what each means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.quality.facts import PictureFacts
from benchmarks.quality.picture_plan import SUBJECT_TASKS, Task


@dataclass(frozen=True)
class Metric:
    """What a metric is called, and which way is better: 1 for more, -1 for less, 0 where neither is."""

    title: str
    better: int


METRICS: dict[str, Metric] = {
    "fidelity": Metric("Identity similarity of the subject to held-out photos", 1),
    "retrieval": Metric("Retrieval top-1 among 50 subjects", 1),
    "retrieval_in_class": Metric("Retrieval top-1 among 10 subjects of its class", 1),
    "scene_accuracy": Metric("Named scene right", 1),
    "pose_accuracy": Metric("Named pose right", 1),
    "both_accuracy": Metric("Named pose and scene right", 1),
    "scene_leakage": Metric("A photo's scene although another, or none, was asked", -1),
    "scene_leakage_none_asked": Metric("A photo's scene although none was asked", -1),
    "scene_leakage_other_asked": Metric("A photo's scene although another was asked", -1),
    "pose_leakage": Metric("A photo's pose although another, or none, was asked", -1),
    "pose_leakage_none_asked": Metric("A photo's pose although none was asked", -1),
    "pose_leakage_other_asked": Metric("A photo's pose although another was asked", -1),
    "leakage": Metric("Mean of scene and pose leakage", -1),
    "reuse": Metric("Pose of one photo and scene of another, by their words: both right", 1),
    "reuse_pose": Metric("Pose of one photo by its word right", 1),
    "reuse_scene": Metric("Scene of another photo by its word right", 1),
    "other_class": Metric("Another class in a photo's background: class and scene right", 1),
    "diversity": Metric("Spread between seeds of the plain subject", 0),
    "nearest_photo": Metric("Distance to the nearest training photo", 0),
    "drift": Metric("Change of the plain class word's pictures", -1),
    "drift_to_subject": Metric("Plain class word's pictures nearer to the subject", -1),
    "text_similarity": Metric("CLIP-T by the base model's own encoders", 1),
    "image_similarity": Metric("CLIP-I by the base model's own encoder", 0),
    "foreground_similarity": Metric("CLIP-I FG by the base model's own encoder", 1),
}
"""All metrics in the order in which they are told."""


def subject_metrics(
    facts: Sequence[PictureFacts], base: Sequence[PictureFacts], photos: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """Metrics of one method on one subject; those that the method cannot be asked for are absent.

    Args:
        facts: Of the method's pictures.
        base: Of the base model's pictures for the same requests.
        photos: Pose and scene of each training photo.
    """
    of_subject = [each for each in facts if each.request.task in SUBJECT_TASKS]
    poses, scenes = {pose for pose, _ in photos}, {scene for _, scene in photos}
    found = {
        "fidelity": _mean(of_subject, lambda each: each.identity_similarity),
        "retrieval": _mean(of_subject, lambda each: each.retrieved),
        "retrieval_in_class": _mean(of_subject, lambda each: each.retrieved_in_class),
        "scene_accuracy": _mean(_of(facts, Task.SCENE), scene_is_right),
        "pose_accuracy": _mean(_of(facts, Task.POSE), pose_is_right),
        "both_accuracy": _mean(_of(facts, Task.BOTH), both_are_right),
        **_leakage(of_subject, "scene", scenes, lambda each: each.request.scene, lambda each: each.scene),
        **_leakage(of_subject, "pose", poses, lambda each: each.request.pose, lambda each: each.pose),
        "diversity": _spread(_of(facts, Task.FREE)),
        "nearest_photo": _mean(_of(facts, Task.FREE), lambda each: each.nearest_photo_rmse),
        "image_similarity": _mean(of_subject, lambda each: each.image_similarity),
        "foreground_similarity": _mean(of_subject, lambda each: each.foreground_similarity),
        **_drift(facts, base),
    }
    found["leakage"] = (found["scene_leakage"] + found["pose_leakage"]) / 2
    texts = [each.text_similarity for each in of_subject if each.text_similarity is not None]
    if texts:
        found["text_similarity"] = float(np.mean(texts))
    if reused := _of(facts, Task.REUSE):
        found["reuse"] = _mean(reused, both_are_right)
        found["reuse_pose"] = _mean(reused, pose_is_right)
        found["reuse_scene"] = _mean(reused, scene_is_right)
    if others := _of(facts, Task.OTHER_CLASS):
        found["other_class"] = _mean(others, lambda each: class_is_right(each) and scene_is_right(each))
    return {name: found[name] for name in METRICS if name in found}


def class_is_right(facts: PictureFacts) -> bool:
    """Whether the judge sees the class that was asked."""
    return facts.class_word == facts.request.class_word


def scene_is_right(facts: PictureFacts) -> bool:
    """Whether the judge sees the scene that was asked."""
    return facts.scene == facts.request.scene


def pose_is_right(facts: PictureFacts) -> bool:
    """Whether the judge sees the pose that was asked."""
    return facts.pose == facts.request.pose


def both_are_right(facts: PictureFacts) -> bool:
    """Whether the judge sees the pose and the scene that were asked."""
    return pose_is_right(facts) and scene_is_right(facts)


def _leakage(
    facts: Sequence[PictureFacts],
    factor: str,
    of_photos: set[str],
    asked: Callable[[PictureFacts], str | None],
    seen: Callable[[PictureFacts], str],
) -> dict[str, float]:
    """How often a word of the photos is seen where it was not asked: none was, or one that no photo has."""
    none_asked = [seen(each) in of_photos for each in facts if asked(each) is None]
    other_asked = [seen(each) in of_photos for each in facts if asked(each) and asked(each) not in of_photos]
    return {
        f"{factor}_leakage": float(np.mean(none_asked + other_asked)),
        f"{factor}_leakage_none_asked": float(np.mean(none_asked)),
        f"{factor}_leakage_other_asked": float(np.mean(other_asked)),
    }


def _drift(facts: Sequence[PictureFacts], base: Sequence[PictureFacts]) -> dict[str, float]:
    """Change of the plain class word; 0 for a method that leaves the base model as it is, and so draws none of them."""
    after, before = _of(facts, Task.CLASS), _of(base, Task.CLASS)
    if not after:
        return {"drift": 0.0, "drift_to_subject": 0.0}
    cosines = [float(one.features @ other.features) for one, other in zip(after, before, strict=True)]
    nearer = [x.identity_similarity - y.identity_similarity for x, y in zip(after, before, strict=True)]
    return {"drift": 1 - float(np.mean(cosines)), "drift_to_subject": float(np.mean(nearer))}


def _spread(facts: Sequence[PictureFacts]) -> float:
    """Mean of 1 - cosine between the image features of all pairs of pictures."""
    return float(np.mean([1 - float(one.features @ other.features) for one, other in combinations(facts, 2)]))


def _of(facts: Sequence[PictureFacts], task: Task) -> list[PictureFacts]:
    return [each for each in facts if each.request.task is task]


def _mean(facts: Sequence[PictureFacts], value: Callable[[PictureFacts], float]) -> float:
    return float(np.mean([value(each) for each in facts]))
