"""What may be wrong with a concept, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass

SMALLEST_SUBJECT_GAIN = 0.03
SMALLEST_ATTENTION_GAIN = 0.16
SMALLEST_SUBJECT_SHARE = 0.02
LARGEST_DELTA_SHARE = 0.06
LARGEST_BACKGROUND_SIMILARITY = 0.375
GRAVE_BACKGROUND_SIMILARITY = 0.6
SMALLEST_CLASS_WORD_GAIN = -0.005
"""Thresholds of attention, deltas and background similarity are those that warn of a tenth of the harmless concepts of
the rendered world, where harm is known (docs/experiments.md); the others are chosen by hand. They stem from the former
embedded base model, of 64 pixels, and have not been chosen again since."""


@dataclass(frozen=True)
class Observations:
    """What is known of a training.

    Attributes:
        after: Measures of the state that is published.
        background_similarity: See `LeakageProbe.similarity`; None if unknown.
        delta_share: |dW| / |W| of what was trained of the base model's weights.
        photos: Number of photos.
        class_word: What the subject is.
        class_word_gain: Share by which the class word lowers the base model's loss on the photos; None if unknown.
        subject_gain: Share by which the subject word lowers it against the class word; None if unknown.
        surroundings_alike: Whether all photos show the subject in the same surroundings.
        learns_attributes: Whether the method has words for what surrounds the subject.
    """

    after: Mapping[str, float]
    background_similarity: float | None
    delta_share: float
    photos: int
    class_word: str
    class_word_gain: float | None
    subject_gain: float | None
    surroundings_alike: bool
    learns_attributes: bool


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong.

    Attributes:
        text: What it is and what to do, in plain words.
        is_grave: Whether the concept is not fit for use because of it.
    """

    text: str
    is_grave: bool = False


def attention_gain(after: Mapping[str, float]) -> float | None:
    """How far the subject word's attention is from chance (0) to the subject alone (1); None if it cannot be told."""
    share = after["subject_share"]
    if not SMALLEST_SUBJECT_SHARE <= share < 1:
        return None
    return (after["subject_attention_on_subject_alone"] - share) / (1 - share)


def find(observed: Observations) -> tuple[Finding, ...]:
    """All findings, in the order in which they are best addressed."""
    return tuple(_photos(observed) + _learning(observed) + _leakage(observed) + _obedience(observed))


def _photos(observed: Observations) -> list[Finding]:
    found = []
    if observed.photos < 3:
        there = "There is only one photo" if observed.photos == 1 else f"There are only {observed.photos} photos"
        found.append(Finding(f"{there}; 3 to 5 from several sides give better results."))
    elif observed.surroundings_alike:
        found.append(
            Finding(
                "All photos show the subject in the same surroundings, so the two cannot be separated: add photos in "
                "other places."
            )
        )
    share = observed.after["subject_share"]
    if share < SMALLEST_SUBJECT_SHARE:
        found.append(Finding(f"The subject covers {share:.1%} of the photos on average; take closer photos."))
    return found


def _learning(observed: Observations) -> list[Finding]:
    found = []
    gain = observed.class_word_gain
    if gain is not None and gain < SMALLEST_CLASS_WORD_GAIN:
        found.append(
            Finding(
                f"The base model does not recognize a {observed.class_word!r} in the photos: with this word its loss "
                f"is {-gain:.1%} higher than without. Try a plainer or more general class word."
            )
        )
    learned = observed.subject_gain
    if learned is not None and learned < SMALLEST_SUBJECT_GAIN:
        found.append(
            Finding(
                f"The subject word describes the subject hardly better than {observed.class_word!r} does: with it, the "
                f"loss on the photos is {max(learned, 0):.0%} lower. Train for more steps, or check that "
                f"{observed.class_word!r} describes what the photos show.",
                is_grave=learned <= 0,
            )
        )
    return found


def _leakage(observed: Observations) -> list[Finding]:
    found = []
    share, inside = observed.after["subject_share"], observed.after["subject_attention_on_subject_alone"]
    gain = attention_gain(observed.after)
    if gain is not None and gain < SMALLEST_ATTENTION_GAIN:
        found.append(
            Finding(
                f"The subject word attends to the subject hardly more than to its surroundings ({inside:.0%} of its "
                f"attention; chance level is {share:.0%}): the surroundings may leak into it. Check the masks, add "
                "photos in other places, or raise attention_loss_weight."
            )
        )
    similarity = observed.background_similarity
    if similarity is not None and similarity > LARGEST_BACKGROUND_SIMILARITY:
        remedy = (
            "add photos in other places, or train for fewer steps"
            if observed.learns_attributes
            else "add photos in other places, train for fewer steps, or use METHOD_DETEX"
        )
        found.append(
            Finding(
                f"Pictures of the concept show the surroundings of its photos without being prompted to (similarity "
                f"{similarity:.2f} above that of plain {observed.class_word!r}): {remedy}.",
                is_grave=similarity > GRAVE_BACKGROUND_SIMILARITY,
            )
        )
    return found


def _obedience(observed: Observations) -> list[Finding]:
    if observed.delta_share <= LARGEST_DELTA_SHARE:
        return []
    return [
        Finding(
            f"The trained weights moved by {observed.delta_share:.0%} of their size: the concept may follow prompts "
            "poorly. Train for fewer steps or lower the learning rate of the weights (key_value_learning_rate, or "
            "unet_learning_rate)."
        )
    ]
