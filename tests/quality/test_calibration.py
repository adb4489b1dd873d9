"""What calibration says of warnings that are right, wrong, or say nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.calibration import JudgedConcept, area_under_curve, best_threshold, calibration_rows
from detex_trainer.report.training_report import Candidate, Report, Verdict

VALUES = st.lists(st.floats(-10, 10), min_size=1, max_size=20)
BASE = {"fidelity": 0.3, "scene_accuracy": 1.0, "pose_accuracy": 0.9, "scene_leakage": 0.05}
GOOD = BASE | {"fidelity": 0.7}


def concept(likeness: float, own: dict[str, float], verdict: Verdict = Verdict.FIT) -> JudgedConcept:
    after = {"denoising_loss": 0.5, "subject_share": 0.2, "subject_attention_on_subject_alone": 0.6}
    report = Report(
        verdict=verdict,
        summary="",
        findings=(),
        before=after | {"denoising_loss": 1.0},
        after=after,
        losses={},
        delta_share=0.1,
        subject_gain=0.2,
        energy_kept=1.0,
        steps=10,
        chosen_step=10,
        candidates=(
            Candidate(step=5, measures=after, background_similarity=9.0),
            Candidate(step=10, measures=after, background_similarity=likeness),
        ),
        seconds=1.0,
    )
    return JudgedConcept(report, own, BASE)


def test_a_warning_that_knows_is_told_from_one_that_guesses() -> None:
    leaking = GOOD | {"scene_leakage": 0.3}
    concepts = [concept(0.5, leaking, Verdict.DOUBTFUL), concept(0.4, leaking)] + [concept(0.1, GOOD)] * 2
    rows = {row.what: row for row in calibration_rows(concepts)}
    assert rows["likeness to the photos' surroundings: harmed concepts"].note.startswith("2 of 4")
    assert rows["likeness to the photos' surroundings: area under the curve"].value == 1
    assert rows["attention on the subject against chance: area under the curve"].value == 0.5
    assert rows["what the subject word says more than the class word: area under the curve"].value is None
    assert rows["likeness to the photos' surroundings: caught at the best one, 0.25"].value == 1
    assert rows["likeness to the photos' surroundings: false alarms at the best one, 0.25"].value == 0
    assert rows["harmed, of the concepts that are called doubtful"].value == 1
    assert rows["harmed, of the concepts that are called fit"].note.startswith("1 of 3")
    assert rows["harmed, of the concepts that are called unfit"].value is None


def test_disobedience_and_what_was_not_learned_are_harm() -> None:
    concepts = [concept(0.0, GOOD | {"pose_accuracy": 0.5}), concept(0.0, GOOD | {"fidelity": 0.4}), concept(0.0, GOOD)]
    rows = {row.what: row for row in calibration_rows(concepts)}
    assert rows["size of the deltas: harmed concepts"].note.startswith("1 of 3")
    assert rows["what the subject word says more than the class word: harmed concepts"].note.startswith("1 of 3")


@given(VALUES, VALUES)
def test_the_area_is_that_of_the_other_side_turned_round(bad: list[float], good: list[float]) -> None:
    there, back = area_under_curve(bad, good), area_under_curve(good, bad)
    assert there is not None
    assert back is not None
    assert there + back == pytest.approx(1)


@given(VALUES, VALUES)
def test_the_best_threshold_is_fair_and_none_that_is_fair_catches_more(bad: list[float], good: list[float]) -> None:
    found = best_threshold(bad, good)
    if found is None:
        return
    assert sum(value > found for value in good) <= 0.1 * len(good)
    caught = sum(value > found for value in bad)
    for other in {*bad, *good}:
        if sum(value > other for value in good) <= 0.1 * len(good) and other < max(*bad, *good):
            assert sum(value > other for value in bad) <= caught
