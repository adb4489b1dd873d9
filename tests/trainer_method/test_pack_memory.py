"""How much memory a run of a pack takes, and how many runs fit."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detex_core.object_store import FolderStore
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.packing import rows_per_step
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.learning.training.base_model import base_model_of
from detex_trainer.learning.training.memory import MemoryEstimate, MemoryRoom, estimate_memory
from tests.trainer_method.learners import make_learner


def test_the_memory_of_a_run_is_estimated_without_changing_it(base_model: BaseModel, training_set: TrainingSet) -> None:
    learner, photo_set = make_learner(base_model, training_set, "detex", "pose background")
    before = [p.detach().clone() for group in learner.parameter_groups() for p in group.parameters]
    small, large = (estimate_memory(learner, photo_set, base_model, batch_size) for batch_size in (2, 8))
    assert large.state_bytes == small.state_bytes > 0
    assert 3 < large.activation_bytes / small.activation_bytes < 4.5
    after = [p for group in learner.parameter_groups() for p in group.parameters]
    assert all(p.grad is None for p in after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("prior", ["images", "prompt"])
def test_rows_of_the_prior_are_counted(base_model: BaseModel, training_set: TrainingSet, prior: str) -> None:
    taken, rows = [], []
    for kind in ("none", prior):
        chosen = {"prior_preservation": kind}
        learner, photo_set = make_learner(base_model, training_set, "custom_diffusion", **chosen)
        taken.append(estimate_memory(learner, photo_set, base_model, 4).activation_bytes)
        rows.append(rows_per_step(resolve_hyperparameters("custom_diffusion", {**chosen, "batch_size": 4})))
    assert rows == [4, 8]
    assert 1.6 < taken[1] / taken[0] < 2.2


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
    batch_sizes=st.lists(st.integers(1, 64), min_size=1, max_size=16),
)
def test_a_pack_fits_into_free_memory(state: int, activations: int, free: int, batch_sizes: list[int]) -> None:
    room = MemoryRoom(MemoryEstimate(state, activations), 4, free)
    assert room.take(batch_sizes[0]), "the first is trained whatever memory there is"
    taken = [size for size in batch_sizes[1:] if room.take(size)]
    if taken:
        assert sum(state + activations * size / 4 for size in [batch_sizes[0], *taken]) <= free
