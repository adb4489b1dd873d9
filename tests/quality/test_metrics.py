from collections.abc import Callable

import pytest

from benchmarks.quality.facts import PictureFacts
from benchmarks.quality.metrics import METRICS, subject_metrics
from benchmarks.quality.picture_plan import Task

Seen = Callable[..., PictureFacts]
PHOTOS = [("lying", "snow"), ("upright", "city")]


def subject_pictures(seen: Seen) -> list[PictureFacts]:
    """One picture of each task that every method has, all as asked; none shows a pose or scene of the photos."""
    return [
        seen(Task.FREE, sees_pose="tilted"),
        seen(Task.FREE, sees_pose="floating", features=(0.0, 1.0), similarity=0.7),
        seen(Task.SCENE, scene="forest", sees_pose="tilted"),
        seen(Task.POSE, pose="tilted"),
        seen(Task.BOTH, pose="floating", scene="desert"),
    ]


def test_a_faultless_method(seen: Seen) -> None:
    found = subject_metrics(subject_pictures(seen), [], PHOTOS)
    assert found["fidelity"] == pytest.approx(0.54)
    assert found["retrieval"] == 1.0
    assert found["retrieval_in_class"] == pytest.approx(0.2)
    assert found["scene_accuracy"] == found["pose_accuracy"] == found["both_accuracy"] == 1.0
    assert found["leakage"] == found["scene_leakage"] == found["pose_leakage"] == 0.0
    assert found["diversity"] == pytest.approx(1.0)
    assert found["text_similarity"] == pytest.approx(0.25)
    assert found["drift"] == found["drift_to_subject"] == 0.0
    assert "reuse" not in found
    assert set(found) <= set(METRICS)


def test_leakage_counts_what_was_not_asked(seen: Seen) -> None:
    pictures = subject_pictures(seen)
    pictures[0] = seen(Task.FREE, sees_pose="lying", sees_scene="snow")
    pictures[2] = seen(Task.SCENE, scene="forest", sees_scene="city", sees_pose="tilted")
    found = subject_metrics(pictures, [], PHOTOS)
    # No scene is asked of the free pictures and of that in a pose, another one of the other two.
    assert found["scene_leakage_none_asked"] == pytest.approx(1 / 3)
    assert found["scene_leakage_other_asked"] == pytest.approx(1 / 2)
    assert found["scene_leakage"] == pytest.approx(2 / 5)
    assert found["pose_leakage"] == pytest.approx(1 / 5)
    assert found["leakage"] == pytest.approx(0.3)
    assert found["scene_accuracy"] == 0.0


def test_a_pose_of_the_photos_is_no_leak_where_it_was_asked(seen: Seen) -> None:
    pictures = [*subject_pictures(seen), seen(Task.POSE, pose="lying")]
    assert subject_metrics(pictures, [], PHOTOS)["pose_leakage"] == 0.0


def test_reuse_needs_both(seen: Seen) -> None:
    pictures = [
        *subject_pictures(seen),
        seen(Task.REUSE, pose="lying", scene="city"),
        seen(Task.REUSE, pose="upright", scene="snow", sees_scene="city"),
        seen(Task.OTHER_CLASS, scene="snow", sees_class="duck"),
        seen(Task.OTHER_CLASS, scene="city"),
    ]
    found = subject_metrics(pictures, [], PHOTOS)
    assert (found["reuse"], found["reuse_pose"], found["reuse_scene"]) == (0.5, 1.0, 0.5)
    assert found["other_class"] == 0.5
    assert found["leakage"] == 0.0


def test_drift_is_the_change_of_the_plain_class_word(seen: Seen) -> None:
    before = [seen(Task.CLASS, similarity=0.1), seen(Task.CLASS, similarity=0.2)]
    after = [seen(Task.CLASS, similarity=0.4), seen(Task.CLASS, similarity=0.3, features=(0.6, 0.8))]
    found = subject_metrics([*subject_pictures(seen), *after], before, PHOTOS)
    assert found["drift"] == pytest.approx(0.2)
    assert found["drift_to_subject"] == pytest.approx(0.2)


def test_no_text_similarity_without_a_text_projection(seen: Seen) -> None:
    pictures = [
        seen(each.request.task, pose=each.request.pose, scene=each.request.scene, text_similarity=None)
        for each in subject_pictures(seen)
    ]
    assert "text_similarity" not in subject_metrics(pictures, [], PHOTOS)
