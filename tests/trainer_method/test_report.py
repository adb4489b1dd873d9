"""Reports: what they say of good and bad concepts, and their picture."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFont

from detex_trainer.report.picture import TILE, ReportTitle, draw_report, wrapped
from detex_trainer.report.training_report import Candidate, LossPoint, Report, Verdict, make_report

BEFORE = {"denoising_loss": 1.0, "subject_share": 0.2, "subject_attention_on_subject_alone": 0.2}
AFTER = {"denoising_loss": 0.8, "subject_share": 0.2, "subject_attention_on_subject_alone": 0.5}


def report(
    *,
    photos: int = 4,
    delta_share: float = 0.03,
    background_similarity: float | None = 0.05,
    class_word_gain: float | None = 0.1,
    subject_gain: float | None = 0.2,
    surroundings_alike: bool = False,
    learns_attributes: bool = True,
    **after: float,
) -> Report:
    chosen = Candidate(
        step=80, measures=AFTER | after, attention_outside=0.6, background_similarity=background_similarity
    )
    return make_report(
        before=BEFORE,
        chosen=chosen,
        candidates=(chosen,),
        losses={"total": 0.8},
        loss_curve=tuple(LossPoint(step=10 * i, losses={"total": 1 / i, "denoising": 1 / i}) for i in range(1, 11)),
        delta_share=delta_share,
        energy_kept=0.99,
        steps=100,
        seconds=12.3456,
        mask_shares=(0.2, 0.25),
        photos=photos,
        class_word="mug",
        class_word_gain=class_word_gain,
        subject_gain=subject_gain,
        surroundings_alike=surroundings_alike,
        sample_prompts=("a photo of a [m]", "a photo of a mug"),
        subject_words="green striped",
        attribute_words={"pose": ("lying", ""), "background": ("beach", "snow")},
        learns_attributes=learns_attributes,
    )


def test_a_good_concept_is_fit_for_use() -> None:
    made = report()
    assert made.verdict is Verdict.FIT
    assert made.findings == ()
    assert "fit for use" in made.summary
    assert (made.chosen_step, made.after) == (80, AFTER)
    assert Report.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (report(photos=1), "There is only one photo; 3 to 5"),
        (report(photos=2), "There are only 2 photos; 3 to 5"),
        (
            report(surroundings_alike=True),
            "in the same surroundings, so the two cannot be separated: add photos",
        ),
        (report(subject_gain=0.01), "the loss on the photos is 1% lower"),
        (report(subject_share=0.01), "covers 1.0% of the photos"),
        (
            report(class_word_gain=-0.03),
            "does not recognize a 'mug' in the photos: with this word its loss is 3.0%",
        ),
        (report(class_word_gain=-0.03), "Try a plainer or more general class word"),
        (report(subject_attention_on_subject_alone=0.21), "may leak into it"),
        (report(background_similarity=0.4), "add photos in other places, or train for fewer steps."),
        (report(background_similarity=0.4, learns_attributes=False), "or use METHOD_DETEX"),
        (report(delta_share=0.7), "moved by 70% of their size"),
    ],
)
def test_what_may_be_wrong_is_said_with_what_to_do(made: Report, words: str) -> None:
    assert made.verdict is Verdict.DOUBTFUL
    (finding,) = made.findings
    assert words in finding
    assert made.summary == f"The concept is usable, but check its pictures first: {finding}"


@pytest.mark.parametrize(
    "made", [report(background_similarity=0.8), report(subject_gain=0.0), report(subject_gain=-0.2, photos=2)]
)
def test_a_concept_that_has_learned_nothing_or_only_its_surroundings_is_not_fit(made: Report) -> None:
    assert made.verdict is Verdict.UNFIT
    assert made.summary.startswith("The concept is not fit for use: ")
    assert all(finding in made.summary for finding in made.findings)


def test_what_is_unknown_is_no_matter() -> None:
    assert report(subject_share=1.0, subject_attention_on_subject_alone=1.0).findings == ()
    assert report(background_similarity=None, class_word_gain=None, subject_gain=None).findings == ()


@pytest.mark.parametrize("photos", [1, 4, 9])
def test_the_picture_shows_it_all_and_stays_small(photos: int) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(photos + 2)]
    masks = [Image.new("L", (64, 64), 255) for _ in range(photos)]
    maps = [np.ones((8, 8), dtype=np.float32) for _ in range(photos)]
    made = report(photos=photos, delta_share=0.7)
    title = ReportTitle("my-mug", "mug", "20260131T120000Z-0123abcd", "showroom")
    data = draw_report(made, title, noise[:photos], masks, maps, noise[photos:])
    with Image.open(io.BytesIO(data)) as picture:
        drawn = np.asarray(picture.convert("RGB"))
    assert drawn.shape[1] == 736
    assert len(data) < 250_000  # of noise, which nothing compresses
    other = draw_report(made, title, noise[:photos], masks, maps, list(reversed(noise[photos:])))
    assert other != data
    dim = draw_report(made, title, noise[:photos], [Image.new("L", (64, 64), 0)] * photos, maps, noise[photos:])
    with Image.open(io.BytesIO(dim)) as picture:
        assert np.asarray(picture.convert("RGB")).mean() < drawn.mean()
    later = draw_report(
        made, replace(title, version="20260201T120000Z-0123abcd"), noise[:photos], masks, maps, noise[photos:]
    )
    assert later != data


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a [my-mug] with [my-mug:background:0]",
        "a photo of a [autumn-collection-ceramic-teapot] in [autumn-collection-ceramic-teapot:background:12]",
    ],
)
def test_no_prompt_is_broken_inside_of_a_word(prompt: str) -> None:
    lines = wrapped(prompt, 11, TILE)
    font = ImageFont.load_default(11)
    at = 0
    for line in lines:
        assert font.getlength(line) <= TILE
        assert prompt.startswith(line, at)
        at += len(line)
        assert at == len(prompt) or prompt[at] == " " or line[-1] in ":-"
        at += prompt.startswith(" ", at)
    assert at == len(prompt)


def test_a_word_that_no_line_holds_is_shortened() -> None:
    (line, rest) = wrapped("[" + "unbroken" * 7 + "] there", 11, TILE)
    assert line.startswith("[unbroken")
    assert line.endswith("…")
    assert rest == "there"
    assert ImageFont.load_default(11).getlength(line) <= TILE


def test_the_title_tells_when_a_concept_was_published() -> None:
    title = ReportTitle("my-mug", "mug", "20260131T120000Z-0123abcd", "showroom")
    assert title.date == "31 January 2026, 12:00 UTC"
    assert replace(title, version="draft").date == ""
