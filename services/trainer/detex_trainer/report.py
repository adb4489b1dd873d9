"""The report of a training: what was measured, and in plain words whether the concept is fit for use."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

SMALLEST_LOSS_FALL = 0.03
SMALLEST_ATTENTION_GAIN = 1.15
SMALLEST_SUBJECT_SHARE = 0.02
LARGEST_DELTA_SHARE = 0.5


class Verdict(StrEnum):
    """Whether a concept is fit for use."""

    FIT = "fit"
    DOUBTFUL = "doubtful"


class Report(BaseModel):
    """Contents of report.json.

    Attributes:
        schema_version: Version of this schema.
        verdict: Whether the concept is fit for use.
        summary: The verdict in a sentence.
        findings: Sentences on what may be wrong and what to do about it; empty where nothing is.
        before: Measures at the start, when the subject word means the class word.
        after: The same measures at the end.
        losses: Smoothed losses of the last steps.
        delta_share: |dW| / |W| of the key and value projections.
        energy_kept: Share of the deltas' energy that the artifact keeps.
        steps: Steps trained.
        seconds: Time of training in seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    verdict: Verdict
    summary: str
    findings: tuple[str, ...]
    before: dict[str, float]
    after: dict[str, float]
    losses: dict[str, float]
    delta_share: float
    energy_kept: float
    steps: int
    seconds: float


def findings(
    before: Mapping[str, float], after: Mapping[str, float], delta_share: float, photos: int, class_word: str
) -> tuple[str, ...]:
    """What may be wrong with a concept, and what to do.

    Args:
        before: Measures at the start, see `WordLearner.measure`.
        after: Measures at the end.
        delta_share: |dW| / |W| of the key and value projections.
        photos: Number of photos.
        class_word: What the subject is.
    """
    found = []
    if photos < 3:
        found.append(f"There are only {photos} photos; with 3 to 5 from several sides the subject is learned better.")
    fall = 1 - after["denoising_loss"] / max(before["denoising_loss"], 1e-12)
    if fall < SMALLEST_LOSS_FALL:
        found.append(
            f"The loss on the photos fell by {fall:.0%} only: hardly anything was learned. Train for more steps, or "
            f"check that {class_word!r} says what the photos show."
        )
    share = after["subject_share"]
    if share < SMALLEST_SUBJECT_SHARE:
        found.append(f"The subject covers {share:.1%} of the photos on average; photos from nearer show more of it.")
    elif share < 1 and after["subject_attention_on_subject_alone"] < min(1.0, SMALLEST_ATTENTION_GAIN * share):
        found.append(
            f"The subject word looks at the subject hardly more than at its surroundings "
            f"({after['subject_attention_on_subject_alone']:.0%} of its attention, where chance gives {share:.0%}): "
            "its surroundings may leak into it. Check the masks, add photos in other places, or raise "
            "attention_loss_weight."
        )
    if delta_share > LARGEST_DELTA_SHARE:
        found.append(
            f"The key and value projections moved by {delta_share:.0%} of their size: the concept may obey prompts "
            "badly. Train for fewer steps or lower key_value_learning_rate."
        )
    return tuple(found)


def make_report(
    before: dict[str, float],
    after: dict[str, float],
    losses: dict[str, float],
    delta_share: float,
    energy_kept: float,
    steps: int,
    seconds: float,
    photos: int,
    class_word: str,
) -> Report:
    """The report of a training; arguments as of `Report` and `findings`."""
    found = findings(before, after, delta_share, photos, class_word)
    if found:
        summary = "The concept can be used, but look at its pictures first: " + " ".join(found)
    else:
        summary = "The concept is fit for use: the subject was learned, and its word looks at the subject."
    return Report(
        verdict=Verdict.DOUBTFUL if found else Verdict.FIT,
        summary=summary,
        findings=found,
        before=before,
        after=after,
        losses=losses,
        delta_share=delta_share,
        energy_kept=energy_kept,
        steps=steps,
        seconds=round(seconds, 3),
    )
