"""Concepts that are learned in one pass come out as they do alone."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from detex_core.artifact import Manifest
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.failures import DivergedError, NoRoomError, TrainingStopped
from detex_trainer.domain.hyperparameters import resolve_hyperparameters, trainable_methods
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.packing import PackedJob, shares_passes
from detex_trainer.domain.training_set import TrainingPhoto, TrainingSet
from detex_trainer.intake.segmenters import SubjectNotFoundError
from detex_trainer.learning.methods.learner import PackableLearner
from detex_trainer.learning.training import train_concept
from detex_trainer.learning.training.loop import TrainingPack
from detex_trainer.learning.training.pack_training import train_pack
from detex_trainer.learning.training.run import TrainingRun
from tests.trainer_method.conftest import RecordingReporter, make_training_set
from tests.trainer_method.learners import make_learner

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
ATTRIBUTES = {"detex": "pose background"}
IMAGES = {"prior_preservation": "images", "prior_loss_weight": 1.0}
PROMPT = {"prior_preservation": "prompt", "prior_loss_weight": 1.0}


class LossRecorder:
    """Keeps the losses of a run."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.stopped_at: int | None = None

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        self.losses.append(dict(losses))

    def before_stop(self, run: TrainingRun) -> None:
        self.stopped_at = run.step


def make_run(
    base_model: BaseModel, training_set: TrainingSet, method: str, *, seed: int, steps: int, **overrides: object
) -> TrainingRun:
    chosen = {"seed": seed, "steps": steps, "prior_loss_weight": 0.0, **overrides}
    learner, photo_set = make_learner(base_model, training_set, method, ATTRIBUTES.get(method, ""), **chosen)
    generator = torch.Generator().manual_seed(seed + 100)
    hyperparameters = resolve_hyperparameters(method, chosen)
    return TrainingRun(learner, photo_set, base_model.noise_schedule, hyperparameters, generator)


def run_all(base_model: BaseModel, runs: Sequence[TrainingRun]) -> list[list[dict[str, float]]]:
    """Train runs in one pack to their ends; the losses of each."""
    pack, recorders = TrainingPack(base_model), [LossRecorder() for _ in runs]
    for run, recorder in zip(runs, recorders, strict=True):
        pack.add(run, [recorder])
    while pack.runs:
        assert pack.advance() == {}
    return [recorder.losses for recorder in recorders]


def assert_close(found: Sequence[Mapping[str, float]], expected: Sequence[Mapping[str, float]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], abs=TOLERANCE, rel=TOLERANCE)


def weights(run: TrainingRun) -> list[torch.Tensor]:
    return [p.detach() for group in run.learner.parameter_groups() for p in group.parameters]


@pytest.mark.parametrize(
    ("method", "priors"),
    [
        ("detex", [{}, {}, {}]),
        ("textual_inversion", [{}, {}, {}]),
        ("custom_diffusion", [{}, {}, {}]),
        ("custom_diffusion", [IMAGES, IMAGES, IMAGES]),
        ("custom_diffusion", [IMAGES, PROMPT]),
        ("detex", [{}, IMAGES, PROMPT]),
    ],
)
def test_a_packed_job_ends_as_it_does_alone(
    base_model: BaseModel, training_set: TrainingSet, method: str, priors: list[dict[str, object]]
) -> None:
    sets = [training_set, make_training_set(masks=False), training_set]
    lengths = [6, 3, 6]
    make = [
        lambda i=i, prior=prior: make_run(  # type: ignore[misc]
            base_model,
            sets[i],
            method,
            seed=i,
            steps=lengths[i],
            batch_size=2 + i,
            key_value_learning_rate=0.01,
            **prior,
        )
        for i, prior in enumerate(priors)
    ]
    packed_runs = [each() for each in make]
    packed = run_all(base_model, packed_runs)
    for i, each in enumerate(make):
        alone_run = each()
        [alone] = run_all(base_model, [alone_run])
        assert len(alone) == lengths[i]
        assert_close(packed[i], alone)
        for one, other in zip(weights(packed_runs[i]), weights(alone_run), strict=True):
            torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_losses_of_different_concepts_differ(base_model: BaseModel, training_set: TrainingSet) -> None:
    runs = [make_run(base_model, training_set, "detex", seed=seed, steps=2) for seed in (1, 2)]
    first, second = run_all(base_model, runs)
    assert abs(first[0]["total"] - second[0]["total"]) > 10 * TOLERANCE


def test_a_job_that_diverges_leaves_the_others_alone(base_model: BaseModel, training_set: TrainingSet) -> None:
    def make() -> TrainingRun:
        return make_run(base_model, training_set, "detex", seed=1, steps=4)

    [alone] = run_all(base_model, [make()])
    sick, well = make_run(base_model, training_set, "detex", seed=2, steps=4), make()
    with torch.no_grad():
        weights(sick)[0].fill_(math.nan)
    sick.keep_as_good()
    sick.restore(sick.state())  # it has nothing better to go back to
    pack, recorder = TrainingPack(base_model), LossRecorder()
    pack.add(sick, [])
    pack.add(well, [recorder])
    failures: dict[TrainingRun, DivergedError] = {}
    while pack.runs:
        failures |= pack.advance()
    assert failures.keys() == {sick}
    assert "not a finite number" in failures[sick].message
    assert_close(recorder.losses, alone)


def test_a_job_can_leave_a_pack_and_another_join_it(base_model: BaseModel, training_set: TrainingSet) -> None:
    def make(seed: int) -> TrainingRun:
        return make_run(base_model, training_set, "textual_inversion", seed=seed, steps=4)

    alone = [run_all(base_model, [make(seed)])[0] for seed in range(3)]
    pack, recorders = TrainingPack(base_model), [LossRecorder() for _ in range(3)]
    runs = [make(seed) for seed in range(3)]
    pack.add(runs[0], [recorders[0]])
    pack.add(runs[1], [recorders[1]])
    pack.advance()
    pack.leave(runs[0])
    assert recorders[0].stopped_at == 1
    pack.add(runs[2], [recorders[2]])
    while pack.runs:
        assert pack.advance() == {}
    assert_close(recorders[0].losses, alone[0][:1])
    assert_close(recorders[1].losses, alone[1])
    assert_close(recorders[2].losses, alone[2])


def packed_job(spec: JobSpec, training_set: TrainingSet, stop_at: int = 0) -> PackedJob:
    looks = itertools.count(1)
    return PackedJob(spec, training_set, RecordingReporter(), lambda: bool(stop_at) and next(looks) >= stop_at)


def named(spec: JobSpec, index: int, **hyperparameters: object) -> JobSpec:
    knobs = spec.hyperparameters.model_copy(update={"seed": index, **hyperparameters})
    return spec.model_copy(
        update={"job_id": f"job-{index:016x}", "concept_name": f"mug-{index}", "hyperparameters": knobs}
    )


def test_jobs_of_a_pack_are_published_each_when_it_is_done(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore, tmp_path: Path
) -> None:
    specs = [named(make_spec("textual_inversion"), index, steps=2 + index) for index in range(3)]
    ended: list[tuple[str, object]] = []
    train_pack(
        [packed_job(spec, training_set) for spec in specs],
        store,
        lambda job, outcome: ended.append((job.spec.concept_name, outcome)),
    )
    assert [name for name, _ in ended] == ["mug-0", "mug-1", "mug-2"]
    for spec, (_, packed) in zip(specs, ended, strict=True):
        assert isinstance(packed, Manifest)
        alone = train_concept(spec, training_set, FolderStore(tmp_path / "alone"), RecordingReporter(), lambda: False)
        for name in ("loss_total", "denoising_loss_after"):
            assert packed.metrics[name] == pytest.approx(alone.metrics[name], abs=TOLERANCE, rel=TOLERANCE)


def test_a_job_that_fails_or_stops_leaves_a_pack_to_the_others(
    make_spec: Callable[..., JobSpec], store: FolderStore, training_set: TrainingSet
) -> None:
    spec = make_spec("detex", steps=3)
    whole = make_training_set(masks=False)
    blank = [TrainingPhoto(photo.record, Image.new("RGB", photo.picture.size, "grey"), None) for photo in whole.photos]
    jobs = [
        packed_job(named(spec, 0), TrainingSet(whole.record, tuple(blank))),
        packed_job(named(spec, 1), training_set, stop_at=3),
        packed_job(named(spec, 2), training_set),
    ]
    ended: dict[str, object] = {}
    train_pack(jobs, store, lambda job, outcome: ended.update({job.spec.concept_name: outcome}))
    assert isinstance(ended["mug-0"], SubjectNotFoundError)
    assert isinstance(ended["mug-1"], TrainingStopped)
    assert isinstance(ended["mug-2"], Manifest)


def test_a_pack_is_as_large_as_memory_allows(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore
) -> None:
    """With no memory to spare, one job is trained and the others are given back at once."""
    jobs = [packed_job(named(make_spec("textual_inversion", steps=2), index), training_set) for index in range(3)]
    ended: list[tuple[str, type[object]]] = []
    train_pack(
        jobs,
        store,
        lambda job, outcome: ended.append((job.spec.concept_name, type(outcome))),
        free_bytes=lambda device: 0,
    )
    assert ended == [("mug-1", NoRoomError), ("mug-2", NoRoomError), ("mug-0", Manifest)]


def test_a_job_goes_on_from_its_own_checkpoint_in_another_pack(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore, tmp_path: Path
) -> None:
    specs = [named(make_spec("textual_inversion", steps=6), index) for index in range(2)]
    ended: dict[str, object] = {}

    def on_end(job: PackedJob, outcome: object) -> None:
        ended[job.spec.concept_name] = outcome

    # Looks before and after the photos are prepared come first: they are stopped after different numbers of steps.
    train_pack(
        [packed_job(spec, training_set, stop_at=5 + 2 * index) for index, spec in enumerate(specs)], store, on_end
    )
    assert all(isinstance(outcome, TrainingStopped) for outcome in ended.values())
    resumed = [packed_job(spec, training_set) for spec in specs]
    train_pack(resumed, store, on_end)
    first_steps = [job.reporter.news[1].step for job in resumed]  # type: ignore[attr-defined]
    assert 1 < first_steps[0] < first_steps[1], "neither began anew"
    for spec in specs:
        manifest = ended[spec.concept_name]
        assert isinstance(manifest, Manifest)
        alone = train_concept(spec, training_set, FolderStore(tmp_path / "alone"), RecordingReporter(), lambda: False)
        assert manifest.metrics["loss_total"] == pytest.approx(alone.metrics["loss_total"], abs=TOLERANCE)


@pytest.mark.parametrize("prior", ["none", "key_values", "images", "prompt"])
def test_what_is_said_to_share_passes_does(base_model: BaseModel, training_set: TrainingSet, prior: str) -> None:
    for method in trainable_methods():
        if prior == "key_values" and method not in {"detex", "custom_diffusion"}:
            continue
        if prior in {"images", "prompt"} and method == "textual_inversion":
            continue
        chosen = {"prior_preservation": prior, "prior_loss_weight": 0.5}
        learner, _ = make_learner(base_model, training_set, method, ATTRIBUTES.get(method, ""), **chosen)
        assert isinstance(learner, PackableLearner) == shares_passes(method), method


def test_jobs_that_differ_in_method_or_size_do_not_share_a_pack(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore
) -> None:
    jobs = [packed_job(make_spec(method), training_set) for method in ("detex", "textual_inversion")]
    with pytest.raises(ValueError, match="same base model, method and size"):
        train_pack(jobs, store, lambda job, outcome: None)
