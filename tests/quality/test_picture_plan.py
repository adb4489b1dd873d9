from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.picture_plan import Task, plan_pictures
from benchmarks.showroom.factors import CLASSES, POSES, SCENES
from detex_core.prompt import parse_prompt

photos = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.lists(st.sampled_from(POSES), min_size=count, max_size=count, unique=True),
        st.lists(st.sampled_from(SCENES), min_size=count, max_size=count, unique=True),
    ).map(lambda words: list(zip(*words, strict=True)))
)


@given(st.sampled_from(CLASSES), photos, st.integers(0, 2**53))
def test_plans(class_word: str, words: list[tuple[str, str]], seed: int) -> None:
    plan = plan_pictures(class_word, words, seed)
    assert plan == plan_pictures(class_word, words, seed)
    of_photos = {scene for _, scene in words}
    for request in plan:
        parse_prompt(request.prompt)
        assert "[" not in request.plain_prompt
        assert 0 <= request.seed < 2**32
        if request.task in (Task.SCENE, Task.BOTH):
            assert request.scene not in of_photos
    asked = Counter((r.pose, r.scene) for r in plan if r.task is Task.REUSE)
    assert asked == Counter((p, s) for p, own in words for _, s in words if s != own)
    assert Counter(r.pose for r in plan if r.task is Task.POSE) == dict.fromkeys(POSES, 2)
    assert {r.scene for r in plan if r.task is Task.SCENE} == set(SCENES) - of_photos
    assert all(r.class_word != class_word and r.scene in of_photos for r in plan if r.task is Task.OTHER_CLASS)


def test_prompts() -> None:
    plan = plan_pictures("mug", [("lying", "snow"), ("upright", "city")], 1)
    free = next(request for request in plan if request.task is Task.FREE)
    assert (free.prompt, free.plain_prompt) == ("a photo of a [subject]", "a photo of a mug")
    reuse = next(request for request in plan if request.task is Task.REUSE)
    assert reuse.prompt == "a photo of a [subject] with [subject:pose:0] in [subject:background:1]"
    assert reuse.plain_prompt == "a photo of a mug with lying pose in city background"
