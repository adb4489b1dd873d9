"""Concepts that are learned in one pass come out as they do alone."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detex_core.artifact import Manifest
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.failures import DivergedError, TrainingStopped
from detex_trainer.hyperparameters import resolve_hyperparameters
from detex_trainer.job_spec import JobSpec
from detex_trainer.progress import JobPhase
from detex_trainer.segmenters import SubjectNotFoundError
from detex_trainer.training import train_concept
from detex_trainer.training.base_model import base_model_of
from detex_trainer.training.loop import TrainingPack
from detex_trainer.training.memory import MemoryEstimate, estimate_memory, pack_size
from detex_trainer.training.pack_training import PackedJob, train_pack
from detex_trainer.training.run import TrainingRun
from detex_trainer.training_set import TrainingPhoto, TrainingSet
from tests.trainer_method.conftest import RecordingReporter, make_training_set
from tests.trainer_method.learners import make_learner

TOLERANCE = 1e-4
ATTRIBUTES = {"detex": "pose background"}


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


@pytest.mark.parametrize("method", ["detex", "textual_inversion", "custom_diffusion"])
def test_a_packed_job_ends_as_it_does_alone(base_model: BaseModel, training_set: TrainingSet, method: str) -> None:
    sets = [training_set, make_training_set(masks=False), training_set]
    lengths = [6, 3, 6]
    make = [
        lambda i=i: make_run(  # type: ignore[misc]
            base_model, sets[i], method, seed=i, steps=lengths[i], batch_size=2 + i, key_value_learning_rate=0.01
        )
        for i in range(3)
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
    """With no memory to spare, one job begins when the one before has ended."""
    jobs = [packed_job(named(make_spec("textual_inversion", steps=2), index), training_set) for index in range(2)]
    begun_at_ends: list[int] = []

    def begun() -> int:
        phases = [{news.phase for news in job.reporter.news} for job in jobs]  # type: ignore[attr-defined]
        return sum(JobPhase.TRAINING in each for each in phases)

    train_pack(jobs, store, lambda job, outcome: begun_at_ends.append(begun()), free_bytes=lambda device: 0)
    assert begun_at_ends == [1, 2]


def test_jobs_that_differ_in_method_or_size_do_not_share_a_pack(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore
) -> None:
    jobs = [packed_job(make_spec(method), training_set) for method in ("detex", "textual_inversion")]
    with pytest.raises(ValueError, match="same base model, method and size"):
        train_pack(jobs, store, lambda job, outcome: None)


def test_the_memory_of_a_run_is_estimated_without_changing_it(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_learner(base_model, training_set, "detex", "pose background")
    before = [p.detach().clone() for group in learner.parameter_groups() for p in group.parameters]
    small, large = (estimate_memory(learner, photo_set, base_model, batch_size) for batch_size in (2, 8))
    assert large.state_bytes == small.state_bytes > 0
    assert 3 < large.activation_bytes / small.activation_bytes < 4.5
    after = [p for group in learner.parameter_groups() for p in group.parameters]
    assert all(p.grad is None for p in after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_recomputed_activations_take_less_memory(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore
) -> None:
    kept = []
    for recomputes in (False, True):
        spec = make_spec().model_copy(update={"gradient_checkpointing": recomputes})
        model = base_model_of(spec, store)
        learner, photo_set = make_learner(model, training_set, "detex", "pose background")
        kept.append(estimate_memory(learner, photo_set, model, 4).activation_bytes)
    assert kept[1] < 0.6 * kept[0]


@given(
    state=st.integers(0, 10**10),
    activations=st.integers(1, 10**10),
    free=st.integers(0, 10**12),
    most=st.integers(1, 64),
)
def test_a_pack_fits_into_free_memory(state: int, activations: int, free: int, most: int) -> None:
    size = pack_size(MemoryEstimate(state, activations), free, most)
    assert 1 <= size <= most
    assert size == 1 or size * (state + activations) <= free
