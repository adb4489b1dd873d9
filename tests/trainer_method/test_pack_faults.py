"""What one job of a pack brings about is its own failure; the others come out as they do alone."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from detex_core.artifact import Manifest
from detex_core.errors import DetexError, InvalidInputError, UnavailableError, invalid_input
from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.domain.failures import NoRoomError
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.packing import PackedJob
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.methods.unet_pass import PassOutput, PassRows, run_pass
from detex_trainer.learning.training import loop
from detex_trainer.learning.training.concept_training import ConceptTraining
from detex_trainer.learning.training.loop import TrainingPack
from detex_trainer.learning.training.pack_training import train_pack
from detex_trainer.learning.training.run import TrainingRun
from tests.trainer_method.test_packing import LossRecorder, assert_close, make_run, named, packed_job, run_all

pytestmark = pytest.mark.slow

ERRORS = [RuntimeError("defect"), KeyError("defect"), MemoryError(), invalid_input("caption", "this", "that")]
ALLOCATION = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


class Spoiler:
    """Raises, in the place of a method or as a listener."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *args: object, **kwargs: object) -> object:
        raise self._error

    def after_step(self, run: TrainingRun, losses: Mapping[str, float]) -> None:
        raise self._error

    def before_stop(self, run: TrainingRun) -> None:
        raise self._error


@pytest.mark.parametrize("moment", ["draw", "draw_step", "step_losses", "check", "update", "listener"])
def test_a_step_that_fails_is_the_failure_of_its_own_job(
    base_model: BaseModel, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def make() -> TrainingRun:
        return make_run(base_model, training_set, "textual_inversion", seed=1, steps=3)

    [alone] = run_all(base_model, [make()])
    for error in ERRORS:
        sick, well = make_run(base_model, training_set, "textual_inversion", seed=2, steps=3), make()
        if moment != "listener":
            owner = sick.learner if moment in {"draw_step", "step_losses"} else sick
            monkeypatch.setattr(owner, moment, Spoiler(error))
        pack, recorder = TrainingPack(base_model), LossRecorder()
        pack.add(sick, [Spoiler(error)] if moment == "listener" else [])
        pack.add(well, [recorder])
        failures: dict[TrainingRun, Exception] = {}
        while pack.runs:
            failures |= pack.advance()
        assert failures == {sick: error}
        assert_close(recorder.losses, alone)


def failing_together(error: Exception) -> Callable[..., list[PassOutput]]:
    def run(base_model: BaseModel, unet: KeyValueUNet, asked: Sequence[PassRows]) -> list[PassOutput]:
        if len(asked) > 1:
            raise error
        return run_pass(base_model, unet, asked)

    return run


def test_where_the_shared_pass_fails_each_makes_its_own(
    base_model: BaseModel, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> list[TrainingRun]:
        return [make_run(base_model, training_set, "textual_inversion", seed=seed, steps=3) for seed in range(3)]

    alone = [run_all(base_model, [run])[0] for run in make()]
    monkeypatch.setattr(loop, "run_pass", failing_together(RuntimeError("only together")))
    for found, expected in zip(run_all(base_model, make()), alone, strict=True):
        assert_close(found, expected)


def test_a_pack_that_nobody_can_go_on_in_blames_nobody(
    base_model: BaseModel, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = TrainingPack(base_model)
    for seed in range(2):
        pack.add(make_run(base_model, training_set, "textual_inversion", seed=seed, steps=2), [])
    monkeypatch.setattr(loop, "run_pass", Spoiler(RuntimeError("everything is broken")))
    with pytest.raises(RuntimeError, match="everything is broken"):
        pack.advance()


def test_a_gpu_that_is_lost_is_nobodys_failure(
    base_model: BaseModel, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = TrainingPack(base_model)
    runs = [make_run(base_model, training_set, "textual_inversion", seed=seed, steps=2) for seed in range(2)]
    for run in runs:
        pack.add(run, [])
    monkeypatch.setattr(runs[0], "update", Spoiler(RuntimeError("CUDA error: device-side assert triggered")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        pack.advance()


def test_short_of_memory_half_of_a_pack_is_given_back_and_goes_on_later(
    make_spec: Callable[..., JobSpec],
    training_set: TrainingSet,
    store: FolderStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = [named(make_spec("textual_inversion", steps=2), index) for index in range(3)]
    ended: list[tuple[str, type[object]]] = []

    def on_end(job: PackedJob, outcome: object) -> None:
        ended.append((job.spec.concept_name, type(outcome)))

    monkeypatch.setattr(loop, "run_pass", failing_together(ALLOCATION))
    train_pack([packed_job(spec, training_set) for spec in specs], store, on_end)
    assert ended == [("mug-2", NoRoomError), ("mug-1", NoRoomError), ("mug-0", Manifest)] or ended == [
        ("mug-2", NoRoomError),
        ("mug-0", Manifest),
        ("mug-1", Manifest),
    ]
    waiting = [spec for spec in specs if (spec.concept_name, NoRoomError) in ended]
    ended.clear()
    monkeypatch.setattr(loop, "run_pass", run_pass)
    again = [packed_job(spec, training_set) for spec in waiting]
    train_pack(again, store, on_end)
    assert all(kind is Manifest for _, kind in ended)
    assert again[0].reporter.news[1].step == 2, "it goes on from the step that it had done"  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_caption_that_cannot_be_read_fails_its_own_job_alone(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore, at: int
) -> None:
    record = training_set.record
    photos = tuple(photo.model_copy(update={"caption": "green mug " * 99}) for photo in record.photos)
    talkative = TrainingSet(
        record.model_copy(update={"photos": photos}),
        tuple(
            type(photo)(each, photo.picture, photo.mask)
            for photo, each in zip(training_set.photos, photos, strict=True)
        ),
    )
    spec = make_spec("textual_inversion", steps=2)
    jobs = [packed_job(named(spec, index), talkative if index == at else training_set) for index in range(3)]
    ended: dict[str, object] = {}
    train_pack(jobs, store, lambda job, outcome: ended.update({job.spec.concept_name: outcome}))
    assert isinstance(ended.pop(f"mug-{at}"), InvalidInputError)
    assert all(isinstance(outcome, Manifest) for outcome in ended.values())
    assert len(ended) == 2


@pytest.mark.parametrize(
    "error", [RuntimeError("defect"), MemoryError(), UnavailableError("away"), OSError(28, "full")]
)
def test_a_publication_that_fails_leaves_the_others_alone(
    make_spec: Callable[..., JobSpec],
    training_set: TrainingSet,
    store: FolderStore,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    publish = ConceptTraining.publish

    def fail_one(training: ConceptTraining) -> Manifest:
        if training.spec.concept_name == "mug-0":
            raise error
        return publish(training)

    monkeypatch.setattr(ConceptTraining, "publish", fail_one)
    jobs = [packed_job(named(make_spec("textual_inversion", steps=2), index), training_set) for index in range(2)]
    ended: dict[str, object] = {}
    train_pack(jobs, store, lambda job, outcome: ended.update({job.spec.concept_name: outcome}))
    assert ended["mug-0"] is error
    assert isinstance(ended["mug-1"], Manifest)


def test_a_base_model_that_cannot_be_had_is_told_to_each_job(
    make_spec: Callable[..., JobSpec], training_set: TrainingSet, store: FolderStore
) -> None:
    spec = make_spec("textual_inversion", steps=2)
    gone = spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"source": "/gone"})})
    ended: dict[str, object] = {}
    jobs = [packed_job(named(gone, index), training_set) for index in range(2)]
    train_pack(jobs, store, lambda job, outcome: ended.update({job.spec.concept_name: outcome}))
    assert len(ended) == 2
    assert all(isinstance(outcome, DetexError) for outcome in ended.values())


def test_gradients_of_a_failed_pass_are_forgotten(
    base_model: BaseModel, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backward half that breaks off has added to some gradients already; they may not count twice."""

    def make() -> list[TrainingRun]:
        return [make_run(base_model, training_set, "textual_inversion", seed=seed, steps=2) for seed in range(2)]

    alone = [run_all(base_model, [run])[0] for run in make()]
    backward = torch.autograd.backward

    def break_off(tensors: Sequence[torch.Tensor]) -> None:
        backward(tensors, retain_graph=len(tensors) > 1)
        if len(tensors) > 1:
            raise ALLOCATION

    monkeypatch.setattr(torch.autograd, "backward", break_off)
    for found, expected in zip(run_all(base_model, make()), alone, strict=True):
        assert_close(found, expected)
