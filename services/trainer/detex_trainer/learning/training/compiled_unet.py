"""The UNet of a training, compiled by torch where that is chosen: passes with gradients alone.

What is measured or drawn between steps runs as it is: it would have to be compiled once more for a few passes.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.cross_attention import KEY_VALUES

_log = logging.getLogger(__name__)

# By UNet and not within it: copies of a UNet, which are trained themselves, are not compiled.
_COMPILED: WeakKeyDictionary[nn.Module, Callable[..., Any]] = WeakKeyDictionary()


class CompiledUNet(UNet2DConditionModel):  # type: ignore[misc]
    """A UNet whose passes with gradients are compiled; made of a `UNet2DConditionModel` by `compile_unet`."""

    def forward(self, sample: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As `UNet2DConditionModel`."""
        compiled = _COMPILED.get(self) if torch.is_grad_enabled() else None
        if compiled is None:
            return super().forward(sample, timestep, *args, **kwargs)
        try:
            return compiled(self, _of_its_own(sample), _of_its_own(timestep), *args, **_without_views(kwargs))
        except TorchDynamoException as error:
            if _COMPILED.pop(self, None) is not None:
                _log.warning("the UNet runs uncompiled from here on: %s", _reason(error))
            return super().forward(sample, timestep, *args, **kwargs)


def compile_unet(base_model: BaseModel, backend: str | Callable[..., Any] = "inductor") -> bool:
    """Compile the UNet of a base model when it is first run with gradients.

    What the compiler cannot do is logged, and done without it.

    Args:
        base_model: Whose UNet is not trained; copies of it are not compiled.
        backend: Of `torch.compile`.

    Returns:
        Whether it will; else the log says why it stays as it is.
    """
    unet = base_model.unet
    problem = _missing(base_model.device) if backend == "inductor" else None
    if type(unet) is not UNet2DConditionModel:
        problem = "it is of a kind of its own"
    if problem is not None:
        _log.warning("the UNet of base model %s is not compiled: %s", base_model.name, problem)
        return False
    # For the rows of the first pass, and once more for any number of rows when that changes. With `dynamic`, rows as
    # many as latent channels would be taken for these, whose number is fixed.
    _COMPILED[unet] = torch.compile(UNet2DConditionModel.forward, backend=_both_ways(backend))
    unet.__class__ = CompiledUNet
    return True


@contextmanager
def uncompiled(unet: nn.Module) -> Iterator[None]:
    """Run a UNet as it is meanwhile, compiled or not; for where it is not run as in the steps of a training."""
    compiled = _COMPILED.pop(unet, None)
    try:
        yield
    finally:
        if compiled is not None:
            _COMPILED[unet] = compiled


def _both_ways(backend: str | Callable[..., Any]) -> Callable[..., Any]:
    """A backend that compiles the backward pass with the forward pass.

    Left to itself, torch compiles the former when it is first run, where a failure is that of the training.
    """

    def compile_graph(graph: Any, inputs: Any) -> Any:
        wanted = {name: True for name in ("force_non_lazy_backward_lowering",) if hasattr(config, name)}
        with config.patch(wanted):
            return (lookup_backend(backend) if isinstance(backend, str) else backend)(graph, inputs)

    return compile_graph


def _without_views(kwargs: dict[str, Any]) -> dict[str, Any]:
    attention = kwargs.get("cross_attention_kwargs") or {}
    text = attention.get(KEY_VALUES)
    if not isinstance(text, KeyValueBatch):
        return kwargs
    layers = {name: (_of_its_own(key), _of_its_own(value)) for name, (key, value) in text.layers.items()}
    return {**kwargs, "cross_attention_kwargs": {**attention, KEY_VALUES: replace(text, layers=layers)}}


def _of_its_own(tensor: Tensor) -> Tensor:
    """A tensor that is no view: a graph is compiled for the tensor behind a view as well, whatever reads it."""
    return tensor if tensor._base is None else tensor.clone(memory_format=torch.contiguous_format)


def _missing(device: torch.device) -> str | None:
    """What the compiler of torch lacks for a device; None where it lacks nothing that is known beforehand."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            compiler = get_cpp_compiler()
        except InvalidCxxCompiler:
            compiler = ""
        return None if shutil.which(compiler) else "there is no C++ compiler"
    from torch.utils._triton import has_triton

    if not any(shutil.which(each) for each in (os.environ.get("CC", ""), "gcc", "clang")):
        return "there is no C compiler, which Triton needs"
    return None if has_triton() else "there is no Triton"


def _reason(error: Exception) -> str:
    """The first line of what the backend raised, or of the error itself where that is no backend's."""
    inner = getattr(error, "inner_exception", error)
    lines = str(inner).strip().splitlines()
    return ": ".join([type(inner).__name__, *lines[:1]])
