import pytest

from detex_trainer.report import Report, Verdict, make_report

BEFORE = {"denoising_loss": 1.0, "subject_share": 0.2, "subject_attention_on_subject_alone": 0.2}
AFTER = {"denoising_loss": 0.8, "subject_share": 0.2, "subject_attention_on_subject_alone": 0.5}


def report(photos: int = 4, delta_share: float = 0.1, **after: float) -> Report:
    return make_report(BEFORE, AFTER | after, {"total": 0.8}, delta_share, 0.99, 100, 12.3456, photos, "mug")


def test_a_good_concept_is_fit_for_use() -> None:
    made = report()
    assert made.verdict is Verdict.FIT
    assert made.findings == ()
    assert "fit for use" in made.summary
    assert Report.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (report(photos=2), "only 2 photos"),
        (report(denoising_loss=0.99), "fell by 1% only"),
        (report(subject_share=0.01), "covers 1.0% of the photos"),
        (report(subject_attention_on_subject_alone=0.21), "may leak into it"),
        (report(delta_share=0.7), "moved by 70% of their size"),
    ],
)
def test_what_may_be_wrong_is_said_with_what_to_do(made: Report, words: str) -> None:
    assert made.verdict is Verdict.DOUBTFUL
    (finding,) = made.findings
    assert words in finding
    assert finding in made.summary


def test_without_masks_attention_is_no_matter() -> None:
    assert report(subject_share=1.0, subject_attention_on_subject_alone=1.0).findings == ()
