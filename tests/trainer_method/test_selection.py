"""Which state of a learner is published, the probe that has a say in it, and that neither minds an interruption."""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detex_core.artifact import ConceptArchive
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.evaluation import measure, plain_losses
from detex_trainer.learning.training.leakage import LeakageProbe, outside_share, surroundings
from detex_trainer.learning.training.loop import train
from detex_trainer.learning.training.reporting import sample_prompts, surroundings_alike
from detex_trainer.learning.training.run import TrainingRun
from detex_trainer.learning.training.selection import (
    LOSS_TOLERANCE,
    CheckpointSelection,
    best_candidate,
    candidate_steps,
)
from detex_trainer.report.training_report import Candidate, Report
from tests.trainer_method.conftest import RecordingReporter
from tests.trainer_method.learners import make_learner

pytestmark = pytest.mark.slow

MakeSpec = Callable[..., JobSpec]


def candidate(step: int, loss: float, leakage: float | None = None) -> Candidate:
    return Candidate(step=step, measures={"denoising_loss": loss}, background_similarity=leakage)


shares = st.floats(0.01, 2)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6))
def test_the_best_leaks_least_of_the_good(pairs: list[tuple[float, float]]) -> None:
    candidates = [candidate(step, *pair) for step, pair in enumerate(pairs)]
    best = best_candidate(candidates)
    lowest = min(each.loss for each in candidates)
    assert best.loss <= lowest * (1 + LOSS_TOLERANCE)
    assert all(best.leakage <= each.leakage for each in candidates if each.loss <= lowest * (1 + LOSS_TOLERANCE))


def test_of_equals_the_last_is_the_best() -> None:
    assert best_candidate([candidate(1, 1.0), candidate(2, 0.99), candidate(3, 0.995)]).step == 3


@pytest.mark.parametrize(("steps", "at"), [(1, (1,)), (49, (49,)), (50, (28, 35, 42, 50)), (400, (220, 280, 340, 400))])
def test_long_trainings_are_looked_at_on_the_way(steps: int, at: tuple[int, ...]) -> None:
    assert candidate_steps(steps) == at
    assert candidate_steps(steps, several=False) == (steps,)


class TellingProbe:
    """A probe whose answers are given."""

    def __init__(self, answers: list[float]) -> None:
        self.answers = iter(answers)

    def similarity(self, concept: object) -> float:
        return next(self.answers)


def test_the_chosen_state_comes_back(base_model: BaseModel, training_set: TrainingSet) -> None:
    """Of four states alike in loss the second leaks least: its weights are those of a run that ended there."""
    learner, photo_set = make_learner(base_model, training_set, "detex")
    frozen_rate = resolve_hyperparameters(
        "detex", {"steps": 50, "batch_size": 1, "subject_learning_rate": 1e-7, "key_value_learning_rate": 1e-7}
    )
    probe = TellingProbe([0.3, 0.1, 0.2, 0.4])
    selection = CheckpointSelection(learner, photo_set, base_model, probe)  # type: ignore[arg-type]
    run = TrainingRun(
        learner,
        photo_set,
        base_model.noise_schedule,
        frozen_rate,
        torch.Generator().manual_seed(0),
        {"selection": selection},
    )
    seen: dict[int, torch.Tensor] = {}

    class Noting:
        def after_step(self, run: TrainingRun, losses: object) -> None:
            seen[run.step] = learner.concept().subject

        def before_stop(self, run: TrainingRun) -> None: ...

    train(run, [selection, Noting()], lambda: False)
    best, candidates = selection.choose(50)
    assert best.step == 35
    assert [each.step for each in candidates] == [28, 35, 42, 50]
    assert torch.equal(learner.concept().subject, seen[35])
    assert not torch.equal(learner.concept().subject, seen[50])


def test_states_that_cannot_win_are_not_kept(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_learner(base_model, training_set, "textual_inversion")
    probe = TellingProbe([0.4, 0.3, 0.2, 0.1])
    selection = CheckpointSelection(learner, photo_set, base_model, probe)  # type: ignore[arg-type]
    run = TrainingRun(
        learner,
        photo_set,
        base_model.noise_schedule,
        resolve_hyperparameters("textual_inversion", {"steps": 50, "batch_size": 1, "subject_learning_rate": 1e-9}),
        torch.Generator().manual_seed(0),
        {"selection": selection},
    )
    train(run, [selection], lambda: False)
    assert {key.partition("/")[0] for key in selection.state().tensors} == {"50"}
    restored = CheckpointSelection(learner, photo_set, base_model, probe)  # type: ignore[arg-type]
    restored.restore(selection.state())
    assert restored.choose(50)[0].step == 50


def test_an_interrupted_job_chooses_and_reports_as_one_that_was_not(
    make_spec: MakeSpec, training_set: TrainingSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reports, tensors = [], []
    for interrupted in (False, True):
        store = FolderStore(tmp_path_factory.mktemp("store"))
        spec = make_spec("textual_inversion", steps=50, batch_size=1).model_copy(
            update={"checkpoint_interval_seconds": 3600.0}
        )
        if interrupted:
            answers = iter([False] * 40 + [True])
            with pytest.raises(TrainingStopped):
                train_concept(spec, training_set, store, RecordingReporter(), partial(next, answers))
        manifest = train_concept(spec, training_set, store, RecordingReporter(), lambda: False)
        archive = ConceptArchive(store)
        stored = archive.resolve("default", "my-mug", manifest.version)
        reports.append(Report.model_validate_json(archive.read(stored, "report.json")))
        tensors.append(safetensors.torch.load(archive.read(stored, "concept.safetensors")))
    assert [each.step for each in reports[0].candidates] == [28, 35, 42, 50]
    assert reports[0].model_dump(exclude={"seconds"}) == reports[1].model_dump(exclude={"seconds"})
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize("method", ["detex", "custom_diffusion", "dreambooth_lora"])
def test_every_artifact_has_its_report_and_picture(
    make_spec: MakeSpec, training_set: TrainingSet, store: FolderStore, method: str
) -> None:
    spec = make_spec(method, steps=2, prior_images=1, attribute_start="plain_words")
    vocabulary = AttributeVocabulary(background=("sea", "forest"), subject=())
    spec = spec.model_copy(update={"attribute_vocabulary": vocabulary})
    manifest = train_concept(spec, training_set, store, RecordingReporter(), lambda: False)
    assert set(manifest.files) == {"concept.safetensors", "report.json", "report.png"}
    archive = ConceptArchive(store)
    stored = archive.resolve("default", "my-mug", manifest.version)
    report = Report.model_validate_json(archive.read(stored, "report.json"))
    assert (report.steps, report.chosen_step) == (2, 2)
    assert [point.step for point in report.loss_curve] == [1, 2]
    assert report.after["subject_share"] < 0.5  # also where the method learns whole photos
    assert len(report.mask_shares) == 3
    assert report.subject_words == ""  # none were asked for
    assert report.candidates[-1].background_similarity is not None
    assert report.candidates[-1].attention_outside == pytest.approx(
        outside_share(report.after["subject_attention_on_subject_alone"], report.after["subject_share"])
    )
    assert "my-mug:" in " ".join(report.sample_prompts) if method == "detex" else len(report.sample_prompts) == 6
    if method == "detex":
        assert report.attribute_words["pose"] == ("", "", "")
        assert len(report.attribute_words["background"]) == 3
        assert set(report.attribute_words["background"]) <= {"", "sea", "forest"}
    else:
        assert not report.attribute_words
    with Image.open(io.BytesIO(archive.read(stored, "report.png"))) as picture:
        assert picture.format == "PNG"
        assert picture.height > 500


def test_the_probe_knows_surroundings_that_come_back(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_learner(base_model, training_set, "detex")
    probe = LeakageProbe(base_model, photo_set, "my-mug", "mug")
    painted = [surroundings(*pair) for pair in zip(photo_set.pictures, photo_set.subjects, strict=True)]
    again = probe.similarity_of([each for each in painted if each is not None])
    plain = probe.similarity(learner.concept())
    assert again is not None
    assert plain is not None
    assert 0 <= plain < 0.3  # the concept still means its class
    assert again > 0.5


def test_where_photos_are_all_subject_nothing_can_be_said(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_learner(base_model, training_set, "detex")
    whole = tuple(Image.new("L", each.size, 255) for each in photo_set.subjects)
    probe = LeakageProbe(base_model, replace(photo_set, subjects=whole), "my-mug", "mug")
    assert probe.similarity(learner.concept()) is None
    assert outside_share(1.0, 1.0) is None
    assert outside_share(0.2, 0.2) == pytest.approx(1)
    assert outside_share(1.0, 0.2) == 0


def test_surroundings_are_the_photo_without_its_subject() -> None:
    picture, mask = Image.new("RGB", (20, 20), (10, 200, 30)), Image.new("L", (20, 20))
    for image, color in ((picture, (255, 0, 0)), (mask, 255)):
        image.paste(color, (5, 5, 15, 15))  # type: ignore[arg-type]
    painted = surroundings(picture, mask)
    assert painted is not None
    assert np.asarray(painted).reshape(-1, 3).std(axis=0).max() < 1
    assert surroundings_alike([picture, picture], [mask, mask])
    assert not surroundings_alike([picture, Image.new("RGB", (20, 20), "white")], [mask, mask])
    assert not surroundings_alike([picture], [mask])


def test_the_class_word_is_tried_on_the_photos(base_model: BaseModel, training_set: TrainingSet) -> None:
    _, photo_set = make_learner(base_model, training_set, "detex")
    mug, bowl = (plain_losses(base_model, photo_set, word) for word in ("mug", "bowl"))
    assert plain_losses(base_model, photo_set, "").class_word_gain == pytest.approx(0, abs=0.05)
    assert mug.class_word_gain != bowl.class_word_gain
    assert mug.no_word == bowl.no_word


def test_a_subject_word_that_means_the_class_word_gains_nothing(
    base_model: BaseModel, training_set: TrainingSet
) -> None:
    learner, photo_set = make_learner(base_model, training_set, "textual_inversion", subject_tokens=1)
    measures = measure(learner, photo_set, base_model.noise_schedule)
    plain = plain_losses(base_model, photo_set, "mug")
    # "[V] mug" with [V] at the class word says "mug mug"
    assert plain.subject_gain(measures["subject_loss_alone"]) == pytest.approx(0, abs=0.02)
    assert plain.subject_gain(plain.class_word / 2) == pytest.approx(0.5)


def test_sample_prompts_show_attributes_where_there_are_any() -> None:
    assert sample_prompts("m", "mug", (), 3)[3:] == (
        "a photo of a [m] in the snow",
        "a photo of a [m] on a wooden table",
        "a photo of a mug",
    )
