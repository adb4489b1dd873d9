"""A UNet that torch compiles: losses and gradients of one that it does not, and what is left alone."""

import copy
import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch._dynamo import lookup_backend
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_compiler
from torch._functorch.compilers import nop

from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.cross_attention import cross_attention_layers
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.frozen import FrozenConvolution, FrozenLinear
from detex_trainer.learning.photos.dataset import PhotoBatches
from detex_trainer.learning.training.base_model import base_model_of
from detex_trainer.learning.training.compiled_unet import CompiledUNet, compile_unet, uncompiled
from detex_trainer.learning.training.run import draw_noise
from detex_trainer.settings import TrainerSettings
from tests.trainer_method.learners import make_learner

pytestmark = pytest.mark.slow


@pytest.fixture
def own_base_model(model_settings: BaseModelSettings) -> Iterator[BaseModel]:
    """The tiny base model, which may be changed."""
    yield load_base_model(model_settings)
    torch._dynamo.reset()


def losses_and_gradients(base_model: BaseModel, training_set: TrainingSet, batch_size: int) -> list[Tensor]:
    learner, photo_set = make_learner(base_model, training_set, "detex", "pose background")
    generator = torch.Generator().manual_seed(batch_size)
    batch = next(PhotoBatches(photo_set, batch_size, generator))
    losses = learner.losses(batch, draw_noise(batch.latents, base_model.noise_schedule, generator), generator)
    assert {"denoising", "attention"} <= losses.keys()
    parameters = [parameter for group in learner.parameter_groups() for parameter in group.parameters]
    return [*losses.values(), *torch.autograd.grad(losses["total"], parameters, materialize_grads=True)]


def test_a_step_is_that_of_the_uncompiled_unet_and_copies_are_not_compiled(
    base_model: BaseModel, own_base_model: BaseModel, training_set: TrainingSet
) -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    assert compile_unet(own_base_model, backend)
    for batch_size, compiled in ((4, 1), (3, 2), (2, 2)):
        expected = losses_and_gradients(base_model, training_set, batch_size)
        found = losses_and_gradients(own_base_model, training_set, batch_size)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert len(graphs) == compiled, "the whole UNet is one graph: of the first rows, and then of any number"
    twin = copy.deepcopy(own_base_model.unet)
    latents = torch.randn(2, *own_base_model.latent_shape(), generator=torch.Generator().manual_seed(0))
    text = torch.zeros(2, 4, own_base_model.embedding_width)
    ran = [twin(latents, 1, text).sample]
    with uncompiled(own_base_model.unet):
        ran.append(own_base_model.unet(latents, 1, text).sample)
    with torch.no_grad():
        ran.append(own_base_model.unet(latents, 1, text).sample)
    assert len(graphs) == compiled
    torch.testing.assert_close(ran[1:], [ran[0], ran[0].detach()])


@pytest.mark.parametrize("failing", ["forward", "backward"])
def test_where_the_compiler_fails_the_unet_runs_uncompiled(
    base_model: BaseModel,
    own_base_model: BaseModel,
    training_set: TrainingSet,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    tried = []

    def fail(graph: Any, inputs: Any) -> Callable[..., Any]:
        tried.append(graph)
        raise OSError("no space left")

    backend = fail if failing == "forward" else aot_autograd(fw_compiler=make_boxed_compiler(nop), bw_compiler=fail)
    assert compile_unet(own_base_model, backend)
    expected = losses_and_gradients(base_model, training_set, 3)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = losses_and_gradients(own_base_model, training_set, 3)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(tried) == 1
    [told] = [each.getMessage() for each in caplog.records if "uncompiled" in each.getMessage()]
    assert "no space left" in told


@pytest.mark.skipif(shutil.which("g++") is None, reason="takes a C++ compiler")
def test_of_a_compiled_unet_the_projections_alone_are_frozen_and_a_unet_in_training_is_not_compiled(
    make_spec: Callable[..., JobSpec], store: FolderStore
) -> None:
    for method, compiled in (("detex", True), ("dreambooth_lora", False)):
        unet = base_model_of(make_spec(method).model_copy(update={"compile_unet": True}), store).unet
        assert isinstance(unet, CompiledUNet) == compiled
        assert isinstance(unet.conv_in, FrozenConvolution) != compiled
        assert all(isinstance(each.to_k, FrozenLinear) for each in cross_attention_layers(unet).values())


def test_a_compiled_unet_recomputes_no_activations() -> None:
    assert TrainerSettings(compile_unet=True).compile_unet
    with pytest.raises(ValidationError, match="compile_unet: must be false with gradient_checkpointing, got true"):
        TrainerSettings(compile_unet=True, gradient_checkpointing=True)
