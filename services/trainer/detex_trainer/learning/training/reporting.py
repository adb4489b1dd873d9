"""From a trained learner to its report: what is measured once at the end, sample pictures, and report.png."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from PIL import Image

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.solver import Solver
from detex_trainer.domain.attributes import Attribute, Region
from detex_trainer.domain.prompts import class_prompt
from detex_trainer.intake.masks import mask_from_image, mask_share
from detex_trainer.learning.methods.learner import ConceptLearner
from detex_trainer.learning.photos.dataset import PhotoSet
from detex_trainer.learning.training.evaluation import measuring_noise, plain_losses
from detex_trainer.learning.training.leakage import surroundings
from detex_trainer.learning.training.pictures import draw_pictures
from detex_trainer.report.picture import ReportTitle, draw_report
from detex_trainer.report.training_report import Candidate, LossPoint, Report, make_report

_MOST_PHOTOS = 6
_SAMPLE_STEPS = 12
_THUMBNAIL = 8
_ALIKE = 0.06  # of the range of a pixel


@dataclass(frozen=True, eq=False)
class Training:
    """What is known of a training when its learner is in the state that is published.

    Attributes:
        base_model: The frozen one.
        learner: In that state.
        concept: As it is stored.
        name: Of the concept.
        class_word: What the subject is.
        attributes: With words of their own.
        photo_set: What it was trained on.
        before: Measures at the start.
        chosen: The state.
        candidates: All that were looked at.
        losses: Smoothed losses of the last steps.
        loss_curve: Losses over the course of training.
        energy_kept: Share of the deltas' energy that is stored.
        steps: Steps trained.
        seconds: Time of training in seconds.
        seed: Of the job.
    """

    base_model: BaseModel
    learner: ConceptLearner
    concept: Concept
    name: str
    class_word: str
    attributes: Sequence[Attribute]
    photo_set: PhotoSet
    before: dict[str, float]
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    losses: dict[str, float]
    loss_curve: tuple[LossPoint, ...]
    energy_kept: float
    steps: int
    seconds: float
    seed: int


def report_on(training: Training) -> tuple[Report, Callable[[str], bytes]]:
    """The report of a training, and what draws its picture, a PNG, for the version that is published."""
    base_model, photo_set = training.base_model, training.photo_set
    prompts = sample_prompts(training.name, training.class_word, training.attributes, photo_set.photos)
    words = training.learner.first_words()
    plain = plain_losses(base_model, photo_set, training.class_word)
    report = make_report(
        before=training.before,
        chosen=training.chosen,
        candidates=training.candidates,
        losses=training.losses,
        loss_curve=training.loss_curve,
        delta_share=training.learner.delta_share(),
        energy_kept=training.energy_kept,
        steps=training.steps,
        seconds=training.seconds,
        mask_shares=tuple(
            round(mask_share(mask_from_image(subject)), 4) for subject in photo_set.subjects[:_MOST_PHOTOS]
        ),
        photos=photo_set.photos,
        class_word=training.class_word,
        class_word_gain=plain.class_word_gain,
        subject_gain=plain.subject_gain(training.chosen.measures["subject_loss_alone"]),
        surroundings_alike=surroundings_alike(photo_set.pictures, photo_set.subjects),
        sample_prompts=prompts,
        subject_words=words.subject,
        attribute_words=words.attributes,
        learns_attributes=bool(training.attributes),
    )
    samples = draw_pictures(
        base_model,
        prompts,
        {training.name: training.concept.to(base_model.device, base_model.dtype)},
        seeds=[training.seed] * len(prompts),
        steps=_SAMPLE_STEPS,
        solver=Solver.DPM_SOLVER_PP_2M,
    )
    indices = range(min(photo_set.photos, _MOST_PHOTOS))
    batch = photo_set.report_batch(indices)
    attention = training.learner.subject_attention(batch, measuring_noise(batch, base_model.noise_schedule))
    maps = [each.cpu().numpy().astype(np.float32) for each in attention]

    def draw(version: str) -> bytes:
        title = ReportTitle(training.name, training.class_word, version, base_model.name)
        return draw_report(report, title, photo_set.pictures, photo_set.subjects, maps, samples)

    return report, draw


def sample_prompts(name: str, class_word: str, attributes: Sequence[Attribute], photos: int) -> tuple[str, ...]:
    """Prompts that show what a concept can do: alone, elsewhere, with a photo's words; last the plain class word."""
    prompts = [f"a photo of a [{name}]", f"a photo of a [{name}] on a beach", f"a photo of a [{name}] in a forest"]
    elsewhere = ["in the snow", "on a wooden table"]
    for place, attribute in enumerate(sorted(attributes, key=lambda each: each.region is Region.BACKGROUND)[:2]):
        word = f"[{name}:{attribute.name}:{place % photos}]"
        prompts.append(f"a photo of a [{name}] {attribute.preposition} {word}")
    while len(prompts) < 5:
        prompts.append(f"a photo of a [{name}] {elsewhere.pop(0)}")
    return (*prompts, class_prompt(class_word))


def surroundings_alike(pictures: Sequence[Image.Image], subjects: Sequence[Image.Image]) -> bool:
    """Whether several photos show their subject in the same surroundings: their thumbnails without it hardly differ."""
    painted = [surroundings(*pair) for pair in zip(pictures, subjects, strict=False)]
    thumbnails = [
        np.asarray(each.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.float32) / 255
        for each in painted
        if each is not None
    ]
    if len(thumbnails) < 2:
        return False
    differences = [float(np.sqrt(np.square(one - other).mean())) for one, other in combinations(thumbnails, 2)]
    return float(torch.tensor(differences).mean()) < _ALIKE
