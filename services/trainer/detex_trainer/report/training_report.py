"""The report of a training: what was measured, and in plain words whether the concept is fit for use."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from detex_trainer.report.findings import Finding, Observations, find


class Verdict(StrEnum):
    """Whether a concept is fit for use."""

    FIT = "fit"
    DOUBTFUL = "doubtful"
    UNFIT = "unfit"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Candidate(_Record):
    """A state of the learner that could be chosen.

    Attributes:
        step: Steps done.
        measures: As `WordLearner.measure` gives them, on noise that no step depends on.
        attention_outside: Share of the subject word's attention outside of the subject, where 1 is as much as chance
            puts there; None if unknown.
        background_similarity: How much more pictures of the concept resemble the surroundings in its photos than those
            of the class word do, 0 to about 1; None if unknown.
    """

    step: int
    measures: dict[str, float]
    attention_outside: float | None = None
    background_similarity: float | None = None

    @property
    def loss(self) -> float:
        """The denoising loss."""
        return self.measures["denoising_loss"]

    @property
    def leakage(self) -> float:
        """Mean of what is known of attention and pictures; the less the better."""
        known = [each for each in (self.attention_outside, self.background_similarity) if each is not None]
        return sum(known) / len(known) if known else 0.0


class LossPoint(_Record):
    """Mean losses of some steps in a row.

    Attributes:
        step: The last of them.
        losses: By name.
    """

    step: int
    losses: dict[str, float]


class Report(_Record):
    """Contents of report.json.

    Attributes:
        schema_version: Version of this schema.
        verdict: Whether the concept is fit for use.
        summary: The verdict in a sentence.
        findings: Sentences on what may be wrong and what to do about it; empty where nothing is.
        before: Measures at the start, when the subject word means the class word or nothing.
        after: The same measures of the state that was chosen.
        losses: Smoothed losses of the last steps.
        loss_curve: Losses over the course of training.
        delta_share: Size of what was added to the base model's weights, as a share of them.
        energy_kept: Share of the deltas' energy that the artifact keeps.
        steps: Steps trained.
        chosen_step: The step whose state was published.
        candidates: All states that were looked at, in their order.
        class_word_gain: Share by which the class word lowers the base model's loss on the photos against no word; below
            0 the base model sees something else in them. None if unknown.
        subject_gain: Share by which the subject word, alone in its prompt, lowers the loss on the photos' subjects
            against the base model's under the class word. None if unknown.
        mask_shares: Share of each photo that its mask covers, for the first photos.
        sample_prompts: Prompts of the sample pictures in report.png, in their order.
        subject_words: The plain words that describe the subject best in the eyes of the base model, at which the
            subject word began; empty where none stand out, or none were asked for.
        attribute_words: By attribute, the plain word that describes each photo best in the eyes of the base model, and
            at which the photo's attribute word began; "" where none does.
        seconds: Time of training in seconds.
    """

    schema_version: Literal[2] = 2
    verdict: Verdict
    summary: str
    findings: tuple[str, ...]
    before: dict[str, float]
    after: dict[str, float]
    losses: dict[str, float]
    loss_curve: tuple[LossPoint, ...] = ()
    delta_share: float
    energy_kept: float
    steps: int
    chosen_step: int
    candidates: tuple[Candidate, ...] = ()
    class_word_gain: float | None = None
    subject_gain: float | None = None
    mask_shares: tuple[float, ...] = ()
    sample_prompts: tuple[str, ...] = ()
    subject_words: str = ""
    attribute_words: dict[str, tuple[str, ...]] = {}
    seconds: float


def make_report(
    *,
    before: dict[str, float],
    chosen: Candidate,
    candidates: tuple[Candidate, ...],
    losses: Mapping[str, float],
    loss_curve: tuple[LossPoint, ...],
    delta_share: float,
    energy_kept: float,
    steps: int,
    seconds: float,
    mask_shares: tuple[float, ...],
    photos: int,
    class_word: str,
    class_word_gain: float | None,
    subject_gain: float | None,
    surroundings_alike: bool,
    sample_prompts: tuple[str, ...],
    subject_words: str,
    attribute_words: Mapping[str, Sequence[str]],
    learns_attributes: bool,
) -> Report:
    """The report of a training.

    Args:
        before: As of `Report`.
        chosen: The state that is published.
        candidates: As of `Report`.
        losses: As of `Report`.
        loss_curve: As of `Report`.
        delta_share: As of `Report`.
        energy_kept: As of `Report`.
        steps: As of `Report`.
        seconds: As of `Report`.
        mask_shares: As of `Report`.
        photos: Number of photos.
        class_word: What the subject is.
        class_word_gain: As of `Report`.
        subject_gain: As of `Report`.
        surroundings_alike: Whether all photos show the subject in the same surroundings.
        sample_prompts: As of `Report`.
        subject_words: As of `Report`.
        attribute_words: As of `Report`.
        learns_attributes: Whether the method has words for what surrounds the subject.
    """
    found = find(
        Observations(
            after=chosen.measures,
            background_similarity=chosen.background_similarity,
            delta_share=delta_share,
            photos=photos,
            class_word=class_word,
            class_word_gain=class_word_gain,
            subject_gain=subject_gain,
            surroundings_alike=surroundings_alike,
            learns_attributes=learns_attributes,
        )
    )
    verdict = Verdict.UNFIT if any(each.is_grave for each in found) else Verdict.DOUBTFUL if found else Verdict.FIT
    return Report(
        verdict=verdict,
        summary=_summary(verdict, found),
        findings=tuple(each.text for each in found),
        before=before,
        after=chosen.measures,
        losses=dict(losses),
        loss_curve=loss_curve,
        delta_share=delta_share,
        energy_kept=energy_kept,
        steps=steps,
        chosen_step=chosen.step,
        candidates=candidates,
        class_word_gain=class_word_gain,
        subject_gain=subject_gain,
        mask_shares=mask_shares,
        sample_prompts=sample_prompts,
        subject_words=subject_words,
        attribute_words={name: tuple(words) for name, words in attribute_words.items()},
        seconds=round(seconds, 3),
    )


def _summary(verdict: Verdict, found: tuple[Finding, ...]) -> str:
    texts = " ".join(each.text for each in found)
    if verdict is Verdict.UNFIT:
        return f"The concept is not fit for use: {texts}"
    if verdict is Verdict.DOUBTFUL:
        return f"The concept is usable, but check its pictures first: {texts}"
    return "The concept is fit for use: the subject was learned, and its word attends to the subject."
