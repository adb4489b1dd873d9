"""Subjects and splits: drawn by seed, and never shared."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.showroom.factors import CLASSES
from benchmarks.showroom.subject import SPLITS, sample_subject, split_of, subject_seeds

seeds = st.integers(min_value=0, max_value=2**53 - 1)


@settings(deadline=None)
@given(seed=st.integers(min_value=0, max_value=10**6), count=st.integers(min_value=1, max_value=40))
def test_splits_share_no_subject_and_repeat_themselves(seed: int, count: int) -> None:
    drawn = {split: subject_seeds(split, seed, count) for split in SPLITS}
    assert drawn == {split: subject_seeds(split, seed, count) for split in SPLITS}
    everything = [subject_seed for chosen in drawn.values() for subject_seed in chosen]
    assert len(set(everything)) == 3 * count
    assert all(split_of(subject_seed) == split for split, chosen in drawn.items() for subject_seed in chosen)


@settings(deadline=None)
@given(seed=seeds)
def test_a_subject_depends_on_its_seed_alone(seed: int) -> None:
    subject = sample_subject(seed)
    assert subject == sample_subject(seed)
    assert subject.main_colour != subject.accent_colour
    assert all(0 < value <= 0.95 for value in (*subject.main_rgb, *subject.accent_rgb))


@settings(deadline=None)
@given(seed=seeds, class_word=st.sampled_from(CLASSES))
def test_a_named_class_changes_nothing_else(seed: int, class_word: str) -> None:
    named = sample_subject(seed, class_word)
    assert named.class_word == class_word
    assert named.model_copy(update={"class_word": ""}) == sample_subject(seed).model_copy(update={"class_word": ""})


def test_different_seeds_give_different_subjects() -> None:
    subjects = [sample_subject(seed) for seed in range(400)]
    assert len({subject.shape for subject in subjects}) == 400
    assert {subject.class_word for subject in subjects} == set(CLASSES)
    plain = sum(subject.pattern == "plain" for subject in subjects)
    assert 160 < plain < 240


@pytest.mark.parametrize(
    ("split", "seed", "count", "field"),
    [("training", 0, 1, "split"), ("train", -1, 1, "seed"), ("train", 0, 0, "count")],
)
def test_bad_draws_name_the_argument(split: str, seed: int, count: int, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: got"):
        subject_seeds(split, seed, count)  # type: ignore[arg-type]


def test_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match="class_word: got 'spoon', expected one of mug, "):
        sample_subject(1, "spoon")
